/* The estate of a partitioned exchange (requirements section 6, MP-5 and MP-8). The machine's memory moves by
 * pointers; what the old instance needs until its end is bequeathed: it writes a deadline and the pointers of
 * its last memory and seals them, the heir arms a timer and claims only when the timer has expired and the old
 * instance is proven to be gone. README.md says what is modelled. Checked by check.sh:
 *   default        instances die, hang, end early or late, change their mind: safety, and how it ends
 *   QUIET          nobody dies, hangs or aborts: the heir ends up with everything (ltl ends)
 *   BROKEN_...     a deliberate mistake, which spin must find
 */
#ifdef QUIET
#define HEIRS 1
#define DEATHS 0
#endif
#ifndef HEIRS
#define HEIRS 2 /* instances started one after the other to inherit */
#endif
#ifndef DEATHS
#define DEATHS 2
#endif
#define OLD 1 /* instances: the old one is 1, its heirs 2.. */
#define LAST (OLD + HEIRS)
#define MACHINE 0 /* extents: the machine's memory, and two that the old instance lives in */
#define EXTENTS 3
#define PATIENCE 2 /* ticks from writing the deadline until it is over */

mtype = { empty_estate, writing, sealed, void };

/* The ownership table in shared memory: one word {owner, epoch} per extent, changed by compare-and-swap only. */
byte owner[EXTENTS] = OLD;
byte epoch[EXTENTS] = 1;
/* The estate record beside it. */
mtype estate = empty_estate;
byte deadline = 0;
bit pointer[EXTENTS];

byte now = 0; /* the clock both share */
bit alive[4]; /* what a pidfd tells */
byte started = OLD;
byte offered = 0; /* the heir that may claim the machine, */
byte offered_epoch = 0; /* from this epoch */
bit asked_back = 0; /* the old instance aborts and wants the machine again */
bit hangs = 0; /* the old instance stands still, its memory in use */

/* ghosts */
bit uses[16]; /* instance * 4 + extent: has it mapped and may write */
bit runs[4];  /* executes the machine */
bit machine_lost = 0; /* whoever ran the machine, or alone had its state, has died */
bit finished = 0; /* an heir says that everything is its own */
bit aborted = 0;
bit died = 0;

#define used(i, x) uses[(i) * 4 + (x)]
#define users(x) (used(1, x) + used(2, x) + used(3, x))
#define some_runs (runs[1] || runs[2] || runs[3])

/* The only place where an extent gets a writer. */
inline map(i, x) {
    used(i, x) = 1;
    assert(users(x) == 1 && owner[x] == i)
}
inline start_machine(i) {
    if
    :: !machine_lost -> assert(!some_runs && used(i, MACHINE)); runs[i] = 1
    :: else -> skip
    fi
}
inline vanish(i) {
    if :: runs[i] -> machine_lost = 1 :: else -> skip fi;
    if :: !some_runs && owner[MACHINE] == i -> machine_lost = 1 :: else -> skip fi;
    runs[i] = 0;
    used(i, 0) = 0; used(i, 1) = 0; used(i, 2) = 0;
    alive[i] = 0 /* last: what leads out of the process that dies */
}

proctype Old() {
    byte heir, e, impatient = 1;
    {
        /* the machine moves: stop it, unmap it, offer its pointers */
        do
        :: atomic { runs[OLD] && alive[started] && started > OLD && !aborted ->
                    heir = started; e = epoch[MACHINE]; runs[OLD] = 0; used(OLD, MACHINE) = 0;
                    offered = heir; offered_epoch = e };
           if
           :: owner[MACHINE] != OLD -> break
           :: atomic { !alive[heir] && owner[MACHINE] == OLD -> skip } /* proven dead */
#ifndef QUIET
           :: impatient > 0 -> impatient-- /* too slow */
#endif
           fi;
#ifdef BROKEN_TAKE_BACK
           atomic { used(OLD, MACHINE) = 1; runs[OLD] = 1; assert(users(MACHINE) == 1) };
#endif
           /* take it back: the next epoch, so that no late claim succeeds */
           if
           :: atomic { owner[MACHINE] == OLD && epoch[MACHINE] == e ->
                       epoch[MACHINE] = e + 1; map(OLD, MACHINE); start_machine(OLD) }
           :: owner[MACHINE] != OLD -> break
           fi
        :: atomic { runs[OLD] && started == LAST && !alive[LAST] -> goto end_stays } /* no heir came through */
#ifndef QUIET
        :: runs[OLD] -> goto abort
#endif
        od;
        /* bequeath: each write by itself, a reader or a death may come between any two */
        estate = writing;
        atomic { deadline = now + PATIENCE };
        pointer[1] = 1;
#ifndef QUIET
        if /* until the seal the old instance may change its mind */
        :: skip
        :: goto abort
        fi;
#endif
#ifdef BROKEN_SEAL_FIRST
        estate = sealed;
        pointer[2] = 1;
#else
        pointer[2] = 1;
        estate = sealed;
#endif
        if /* shuts down, early or late; hangs; or finds that no heir is left */
        :: atomic { vanish(OLD) }
#ifndef QUIET
        :: hangs = 1; end_hangs: false
        :: started == LAST && !alive[LAST] -> goto abort
#endif
        fi;

abort:  atomic { estate = void; aborted = 1; asked_back = 1 };
        heir = owner[MACHINE];
        if
        :: heir == OLD -> goto again
        :: heir != OLD && owner[MACHINE] == OLD /* given back */
        :: atomic { heir != OLD && owner[MACHINE] == heir && !alive[heir] ->
                    owner[MACHINE] = OLD; epoch[MACHINE]++ } /* by epoch, from one proven dead */
        :: heir != OLD && owner[MACHINE] != OLD && owner[MACHINE] != heir -> goto abort
        fi;
again:  atomic { if
                 :: !used(OLD, MACHINE) -> map(OLD, MACHINE); start_machine(OLD)
                 :: else -> skip
                 fi };
end_stays: false
    } unless { !alive[OLD] }
}

proctype Heir(byte me) {
    byte x = 1, e, timer, from;
    bit by_map, p1, p2;
    {
        do
        /* claims the machine that was offered */
        :: atomic { offered == me && owner[MACHINE] == OLD && epoch[MACHINE] == offered_epoch ->
                    owner[MACHINE] = me; epoch[MACHINE]++ };
           atomic { map(me, MACHINE); start_machine(me) }; break
        /* takes over from an heir before it, proven dead */
        :: atomic { owner[MACHINE] != OLD && owner[MACHINE] != me && !alive[owner[MACHINE]] ->
                    from = owner[MACHINE]; e = epoch[MACHINE] };
           if
           :: atomic { owner[MACHINE] == from && epoch[MACHINE] == e ->
                       owner[MACHINE] = me; epoch[MACHINE]++; map(me, MACHINE) }; break
           :: owner[MACHINE] != from || epoch[MACHINE] != e
           fi
        :: !alive[OLD] -> break
        :: asked_back && alive[OLD] && owner[MACHINE] == OLD && offered != me -> goto end_dismissed
        :: asked_back && alive[OLD] && offered == me && epoch[MACHINE] != offered_epoch -> goto end_dismissed
        od;

        /* waits for the seal, for the end of the old instance without one, or for its change of mind */
        if
        :: estate == sealed
        :: !alive[OLD] /* look at the estate only now: it does not change any more */
#ifdef BROKEN_UNSEALED
        :: estate == writing && deadline != 0
#endif
#ifdef BROKEN_LOOK_FIRST
        :: estate == writing -> by_map = 1; !alive[OLD]
#endif
        :: asked_back && alive[OLD] -> goto give_back
        fi;
        if
        :: by_map
        :: atomic { !by_map && (estate == sealed
#ifdef BROKEN_UNSEALED
                                || estate == writing
#endif
                                ) -> timer = deadline; p1 = pointer[1]; p2 = pointer[2] }
        :: atomic { !by_map && estate != sealed && !alive[OLD] -> by_map = 1; p1 = 1; p2 = 1 }
        :: estate == void && alive[OLD] -> goto give_back
        fi;

        /* the timer, and the proof of its end */
#ifdef BROKEN_TIMER_ONLY
        now >= timer;
#elif defined(BROKEN_TERMINATION_ONLY)
        !alive[OLD];
#else
        if :: by_map :: !by_map && now >= timer fi;
        do
        :: !alive[OLD] -> break
        :: atomic { alive[OLD] && hangs -> vanish(OLD) } /* fenced: killed, then proven */
        :: asked_back && alive[OLD] -> goto give_back
        od;
#endif
        do
        :: x < EXTENTS ->
            atomic { from = owner[x]; e = epoch[x] };
            if
            :: from != me && ((x == 1 && p1) || (x == 2 && p2) || by_map) ->
                if
                :: atomic { owner[x] == from && epoch[x] == e && !(from > OLD && alive[from]) ->
                            assert(!alive[OLD]);                           /* MP-5: proven termination */
                            assert(estate != sealed || now >= deadline);   /* and the deadline is over */
                            owner[x] = me; epoch[x]++; map(me, x) }
                :: !(owner[x] == from && epoch[x] == e)
                fi
            :: else -> skip
            fi;
            atomic { x++; from = 0; e = 0 }
        :: x == EXTENTS -> break
        od;
        atomic { /* and, by the map, a machine that died with the old instance or with an heir */
            if
            :: owner[MACHINE] != me -> assert(!alive[owner[MACHINE]]);
                owner[MACHINE] = me; epoch[MACHINE]++; map(me, MACHINE)
            :: else -> skip
            fi;
            finished = 1;
            assert(owner[0] == me && owner[1] == me && owner[2] == me); /* MP-6: nothing is left over */
            assert(users(0) == 1 && users(1) == 1 && users(2) == 1)
        };
        goto end_dismissed;

give_back: /* stops the machine, unmaps it, and only then lets go of it */
        atomic { if
                 :: owner[MACHINE] == me ->
                    runs[me] = 0; used(me, MACHINE) = 0; owner[MACHINE] = OLD; epoch[MACHINE]++
                 :: else -> skip
                 fi };
end_dismissed: false
    } unless { !alive[me] }
}

/* Time, whoever starts heirs, and death. */
proctype World() {
    byte deaths = DEATHS, i;
end_world:
    do
    :: now < deadline -> now++
    :: atomic { started < LAST && (started == OLD || !alive[started]) && !aborted && !finished ->
                started++; alive[started] = 1; run Heir(started) }
    :: atomic { deaths > 0 && !finished && (alive[OLD] || alive[started]) -> deaths--; died = 1;
                if
                :: alive[OLD] -> i = OLD
                :: started > OLD && alive[started] -> i = started
                fi;
                vanish(i); i = 0 }
    :: timeout -> break
    od;
    /* Nothing moves any more: how did it end? */
    if
    :: finished && alive[started] -> /* the heir has it all */
        assert(machine_lost || runs[started])
    :: alive[OLD] && hangs && started == LAST && !alive[LAST] -> assert(died) /* nobody is left to fence it */
    :: alive[OLD] && !hangs -> /* the old instance has it all */
        assert(owner[0] == OLD && owner[1] == OLD && owner[2] == OLD);
        assert(machine_lost || runs[OLD]);
        assert(died || aborted)
    :: else -> assert(died && !alive[OLD] && !alive[started] && started == LAST || aborted && died)
    fi
}

init {
    atomic {
        alive[OLD] = 1; runs[OLD] = 1;
        used(OLD, 0) = 1; used(OLD, 1) = 1; used(OLD, 2) = 1;
        run Old(); run World()
    }
}

#ifdef QUIET
ltl ends { <>[] (finished && !alive[OLD] && runs[LAST]) }
#endif
