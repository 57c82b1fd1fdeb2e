/* The change of owner of one machine: owner record, source, destination and the daemon of the host.
 * README.md says which line of code each transition stands for. Checked by check.sh:
 *   default        crashes and lost messages within the budgets below: safety, and how it ends
 *   QUIET          nothing crashes, is lost or late: the last successor runs the guest, alone (ltl ends)
 *   FAIR           nothing crashes or is lost, but patience may end anywhere: somebody runs it (ltl settles)
 *   BROKEN_...     a deliberate mistake, which spin must find
 */
#ifndef EXCHANGES
#define EXCHANGES 2 /* handovers asked for, one after the other */
#endif
#if defined(QUIET) || defined(FAIR)
#define CRASHES 0
#define DAEMON_CRASHES 0
#define LOSSES 0
#endif
#ifndef CRASHES
#define CRASHES 2 /* kill -9 of VMMs */
#endif
#ifndef DAEMON_CRASHES
#define DAEMON_CRASHES 1
#endif
#ifndef LOSSES
#define LOSSES 1 /* messages between VMMs */
#endif
#define RECOVERIES 2 /* times the operator says "recover" */
#define VMMS (EXCHANGES + 1)
#define FIRST 1 /* VMMs are 1..VMMS; 0 is nobody */
#define DAEMON (VMMS + 1)

mtype = { take_over, running, failed, abort, exchange, reclaim };
mtype = { rolled_back, committed, reclaimed, not_reclaimed };

/* The owner record. Only swap() changes it: one atomic step, as one compare-and-swap is. */
byte owner = FIRST;
byte epoch = 1;
bit claimed = 0;
byte claimed_from = 0; /* ghost: who owned it before the standing claim */

bit alive[VMMS + 1];
bit runs[VMMS + 1];   /* executes the guest */
bit frozen[VMMS + 1]; /* says so in its status */
byte copy[VMMS + 1];  /* ghost: which version of the guest it holds complete; 0 none */
byte version = 1;     /* ghost: counts how often somebody began to run the guest */
bit lost = 0;         /* ghost: a crash hit the last complete copy that anybody could run */
byte peer_end[VMMS + 1]; /* who holds the other end of a successor's socket; 0: it is closed */
byte started = FIRST; /* VMMs started so far */
byte crashes = CRASHES;
byte losses = LOSSES;

chan to[VMMS + 1] = [3] of { mtype, byte, byte, byte }; /* what, from, epoch, version */
chan ctl[VMMS + 1] = [2] of { mtype, byte, byte }; /* control sockets: exchange with whom, in which epoch */
chan report = [2] of { mtype, byte }; /* from a VMM to the daemon: what, of the exchange with whom */

#define peer_closed(i) (peer_end[i] == 0 || (peer_end[i] != DAEMON && !alive[peer_end[i]]))
#define valid(i) (alive[i] && copy[i] == version)
/* i runs the guest, goes on to run it by itself, or is there for a recovery. */
#define viable(i) (valid(i) && (owner == i || (claimed && claimed_from == i)))
#if VMMS == 2
#define some_viable (viable(1) || viable(2))
#define some_runs (runs[1] || runs[2])
#define some_frozen (frozen[1] || frozen[2])
#else
#define some_viable (viable(1) || viable(2) || viable(3))
#define some_runs (runs[1] || runs[2] || runs[3])
#define some_frozen (frozen[1] || frozen[2] || frozen[3])
#endif

inline vanish(i) {
    runs[i] = 0; frozen[i] = 0; alive[i] = 0
}
/* A process ends by decision, its own or the daemon's: never the last copy. */
inline leave(i) {
    vanish(i);
    assert(lost || some_viable)
}
/* The only place where a guest begins to run. */
inline begin(i) {
    assert(!some_runs);                 /* X-6: never two */
    assert(owner == i && !claimed);     /* only whom the record names */
    assert(copy[i] == version);         /* never from a stale copy */
    version++; copy[i] = version; runs[i] = 1
}
/* The source is done with its handover: the guest is its own as before. */
inline close_peer() {
    peer_end[peer] = 0; peer = 0; e = 0
}
inline tell(i, what, from, e, v) {
    if
    :: alive[i] && nfull(to[i]) -> to[i]!what(from, e, v)
    :: losses > 0 -> losses--
    :: !alive[i] -> skip
    fi
}
/* The answer to a call of the daemon. One that has crashed meanwhile hears nothing. */
inline say(what, about) {
    if
    :: nfull(report) -> report!what(about)
    :: full(report) -> skip
    fi
}

proctype Vmm(byte me) {
    byte peer, e, v, lost_owner, lost_epoch;
    mtype m;
    {
        if
        :: me == FIRST -> goto owning
        :: else -> goto standing
        fi;

standing: /* destination: built, waits for the state */
        if
        :: atomic { to[me]?take_over(peer, e, v) -> copy[me] = v }
        :: atomic { to[me]?abort(_, _, _) -> leave(me); goto over }
        :: atomic { empty(to[me]) && peer_closed(me) -> leave(me); goto over }
        fi;
        if /* the state may not load */
        :: skip
#ifndef QUIET
        :: atomic { tell(peer, failed, me, 0, 0); leave(me); goto over }
#endif
        fi;
        /* claim: the commit */
        if
        :: atomic { owner == peer && epoch == e && !claimed ->
                    owner = me; epoch = e + 1; claimed = 1; claimed_from = peer }
        :: atomic { !(owner == peer && epoch == e && !claimed) ->
                    tell(peer, failed, me, 0, 0); leave(me); goto over }
        fi;
#ifndef BROKEN_NO_CONFIRM
        /* confirm: the point of no return */
        if
        :: atomic { owner == me && epoch == e + 1 && claimed -> claimed = 0 }
        :: atomic { !(owner == me && epoch == e + 1 && claimed) ->
                    tell(peer, failed, me, 0, 0); leave(me); goto over }
        fi;
        atomic { begin(me) };
#else
        atomic { assert(!some_runs); version++; copy[me] = version; runs[me] = 1; claimed = 0 };
#endif
        atomic { tell(peer, running, me, e + 1, 0); peer = 0; e = 0; v = 0 };

owning: /* runs the guest until told to hand it over */
end_owning:
        do
        :: atomic { ctl[me]?exchange(peer, e) -> break }
        :: atomic { ctl[me]?reclaim(_, _) -> say(not_reclaimed, me) }
        :: atomic { to[me]?[running, _, _, _] -> to[me]?running(_, _, _) }
        :: atomic { to[me]?[failed, _, _, _] -> to[me]?failed(_, _, _) }
        od;
#ifdef BROKEN_LATE_START
        e = epoch;
#endif
        /* plan: whoever fenced this handover before it began has changed the epoch */
        if
        :: epoch == e
        :: atomic { epoch != e -> tell(peer, abort, me, 0, 0); say(rolled_back, peer); close_peer(); goto owning }
        fi;
        runs[me] = 0; /* prepare .. pause */
        if /* carry fails, or the operator cancels: nothing has been offered */
        :: skip
#ifndef QUIET
        :: atomic { tell(peer, abort, me, 0, 0); begin(me); say(rolled_back, peer); close_peer(); goto owning }
#endif
        fi;
        atomic { tell(peer, take_over, me, e, copy[me]) }; /* offer */
        do /* await_resumed */
        :: atomic { to[me]?running(_, _, _) ->
                    if
                    :: owner == peer && epoch == e + 1 && !claimed ->
                        say(committed, peer); leave(me); goto over
                    :: else -> break
                    fi }
        :: atomic { to[me]?failed(_, _, _) -> break }
        :: atomic { empty(to[me]) && !alive[peer] -> break }
#ifndef QUIET
        :: break /* time is over */
#endif
        :: atomic { ctl[me]?reclaim(_, _) -> say(not_reclaimed, me) }
        od;
#ifdef BROKEN_TAKE_BACK
        atomic { tell(peer, abort, me, 0, 0); assert(!some_runs); version++; copy[me] = version;
                 runs[me] = 1; say(rolled_back, peer); goto owning };
#endif
        /* take the offer back, then read who owns it: two steps, others act between them */
        atomic { if
                 :: owner == me && epoch == e && !claimed -> epoch = e + 1
                 :: else -> skip
                 fi };
        atomic { if
                 :: owner == me -> /* by us, or by the daemon for us */
                    tell(peer, abort, me, 0, 0); begin(me); say(rolled_back, peer); close_peer();
                    goto owning
                 :: else ->
                    lost_owner = owner;
#ifdef BROKEN_STALE_RECLAIM
                    lost_epoch = epoch;
#else
                    lost_epoch = e + 1;
#endif
                    frozen[me] = 1; say(committed, peer)
                 fi };
        /* frozen: RAM and state are kept at rest */
end_frozen:
        do
        :: atomic { to[me]?running(_, _, _) ->
                    if
                    :: !claimed -> leave(me); goto over
                    :: else -> skip
                    fi }
        :: atomic { to[me]?failed(_, _, _) -> skip }
        :: atomic { ctl[me]?reclaim(_, _) ->
                    if
                    :: owner == lost_owner && epoch == lost_epoch && claimed ->
                        owner = me; epoch = epoch + 1; claimed = 0; claimed_from = 0;
                        frozen[me] = 0; close_peer(); lost_owner = 0; lost_epoch = 0; break
                    :: else -> say(not_reclaimed, me)
                    fi }
        od;
        atomic { begin(me); say(reclaimed, me); goto owning };
over:   skip
    } unless { !alive[me] }
}

/* Kills any process at any moment. What is lost by that is the fault of the crash. */
proctype Crash() {
    byte i;
    do
    :: crashes > 0 ->
        atomic {
            crashes--;
            i = FIRST;
            do
            :: i < started -> i++
            :: break
            od;
            if
            :: alive[i] -> vanish(i); if :: !some_viable -> lost = 1 :: else -> skip fi
            :: else -> skip
            fi;
            i = 0
        }
    :: break
    od
}

/* godwitd, and the operator. What it knows, it has read; a crash forgets all of it. */
proctype Daemon() {
    byte crashes_left = DAEMON_CRASHES, recoveries = RECOVERIES;
    byte source, next, who, held;
    mtype m;
#define may_crash :: atomic { crashes_left > 0 -> crashes_left--; goto adopt }

adopt:
    atomic { if /* its end of a socket not yet given away is closed */
             :: peer_end[started] == DAEMON -> peer_end[started] = 0
             :: else -> skip
             fi;
             source = 0; next = 0; who = 0; held = 0;
             do :: report?m(who) :: empty(report) -> break od; m = 0; who = 0 };
idle:
    do
    /* godwit exchange: the owner by the record, a fresh successor */
    :: atomic { started < VMMS && alive[owner] && !claimed && runs[owner] ->
                source = owner; started++; next = started; alive[next] = 1; held = epoch;
                peer_end[next] = DAEMON; run Vmm(next) };
       if
       :: atomic { alive[source] && nfull(ctl[source]) -> ctl[source]!exchange(next, held);
                   peer_end[next] = source; held = 0 }
       :: atomic { !alive[source] || full(ctl[source]) -> peer_end[next] = 0; held = 0 }
       may_crash
       fi;
       goto handing_over
    /* godwit recover */
    :: atomic { recoveries > 0 && claimed -> recoveries--; held = owner }; goto recover
    /* the owner is dead and nobody keeps the guest: end what is left (end_without_owner) */
    :: atomic { !alive[owner] && !some_frozen && !claimed && (alive[started]) -> next = started; held = epoch };
       if
       :: atomic { epoch == held && !alive[owner] && !claimed -> epoch++;
                   if :: alive[next] -> leave(next) :: else -> skip fi }
       :: atomic { !(epoch == held && !alive[owner] && !claimed) -> skip }
       may_crash
       fi;
       atomic { next = 0; held = 0 }
    :: atomic { report?m(who) -> m = 0; who = 0 }
    may_crash
    :: timeout -> goto quiet
    od;

handing_over:
    if
    :: atomic { report?m(who) ->
                if
                :: who != next -> who = 0; m = 0; goto handing_over
                :: who == next && m == rolled_back -> who = 0; m = 0; goto undo
                :: who == next && m == committed && owner == next -> who = 0; m = 0; goto forward
                :: else -> who = 0; m = 0
                fi }
    :: atomic { !alive[source] -> skip }
#ifndef QUIET
    :: skip /* the source is silent for too long */
#endif
    may_crash
    fi;
    /* decide: no report, the record says what became of it */
    if
    :: atomic { owner == next -> goto forward }
    :: atomic { owner != next && (alive[source] || !alive[next]) -> goto undo }
    :: atomic { owner != next && !alive[source] && alive[next] -> skip } /* let it claim for a while */
    may_crash
    fi;
    if
    :: atomic { owner == next -> goto forward }
    :: atomic { owner != next -> goto undo }
    may_crash
    fi;

undo: /* fence, then kill the successor */
    do
    :: atomic { owner == next -> goto forward }
    /* claimed by a third: our successor's epoch is over, and the claim is not ours to void */
    :: atomic { owner != next && claimed -> break }
    :: atomic { owner != next && !claimed -> who = owner; held = epoch };
       if
       may_crash
       :: atomic { !alive[next] -> goto adopt }
       :: atomic { owner == who && epoch == held && !claimed -> epoch++; break }
       :: atomic { !(owner == who && epoch == held && !claimed) -> skip }
       fi
    od;
    atomic { who = 0; held = 0; if :: alive[next] -> leave(next) :: else -> skip fi; goto adopt_keep };

forward: /* the successor owns it; the source goes only if the guest runs for certain */
    atomic {
        if
        :: owner == next && !claimed && alive[next] && alive[source] -> leave(source)
        :: else -> skip
        fi };
adopt_keep:
    atomic { source = 0; next = 0; who = 0; held = 0; goto idle };

recover: /* claimed: whoever keeps the guest frozen takes it back, if the successor has not begun */
    atomic {
        who = FIRST; /* any of those that say so */
        do
        :: who < started -> who++
        :: frozen[who] -> break
        :: who == started && !frozen[who] -> break
        od;
        if
        :: frozen[who] && nfull(ctl[who]) -> ctl[who]!reclaim(0, 0)
        :: !frozen[who] || full(ctl[who]) -> who = 0; held = 0; goto idle
        fi };
    do
    :: atomic { report?m(_) ->
                if
                :: m == reclaimed -> m = 0;
                   if
                   :: owner != held && alive[held] -> leave(held)
                   :: else -> skip
                   fi; break
                :: m == not_reclaimed -> m = 0; break
                :: else -> m = 0
                fi }
    :: atomic { !alive[who] -> break }
    :: break /* no answer in time */
    may_crash
    od;
    atomic { who = 0; held = 0; goto idle };

quiet: /* nothing moves any more: how did it end? */
    /* Never zero: the guest runs, or is frozen and can be recovered, or a crash took it. */
    assert(lost || some_runs || (claimed && some_viable && frozen[claimed_from]));
    assert(lost || !claimed || crashes < CRASHES || losses < LOSSES || crashes_left < DAEMON_CRASHES)
}

init {
    atomic {
        alive[FIRST] = 1; runs[FIRST] = 1; copy[FIRST] = 1;
        run Vmm(FIRST);
        run Daemon();
        run Crash()
    }
}

#ifdef QUIET
ltl ends { <>[] (owner == VMMS && !claimed && runs[VMMS] && !alive[VMMS - 1]) }
#endif
#ifdef FAIR
ltl settles { <>[] (some_runs && !some_frozen) }
#endif
