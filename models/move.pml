/* A disk that moves while it is written: what copier and guest share (cursor, marks, claims), HS-2 and PD-2.
 * README.md says which line of code each part stands for. Checked by check.sh:
 *   SCHEME=TRACKED     dbt, slr; with TURN the passes turn into mirroring (PD-8)
 *   SCHEME=MIRRORED    mirror
 *   SCHEME=REDIRECTED  lr; it may be cancelled at any step
 *   BROKEN_...         a deliberate mistake, which spin must find
 */
#define TRACKED 0
#define MIRRORED 1
#define REDIRECTED 2
#define RETURNING 3
#ifndef SCHEME
#define SCHEME TRACKED
#endif
#ifndef BLOCKS
#define BLOCKS 2
#endif
#ifndef WRITES
#define WRITES 2 /* of each writer */
#endif
#define WRITERS 2

byte routing = SCHEME;
byte source[BLOCKS];      /* versions */
byte destination[BLOCKS];
bit dirty[BLOCKS];
bit ahead[BLOCKS];
bit claimed[BLOCKS];
byte cursor = 0;
byte in_flight = 0;          /* requests of the guest on their way */
byte plain = 0;           /* of them, changes without a claim */
bit hold = 0;             /* requests wait for the switch */
bit finished = 0;         /* moved, or returned */
bit moved = 0;
byte version = 0;         /* the last that was given to a change */
/* Plain and claimed changes of one block together have no order that the guest could know of. */
#ifdef TURN
#define mixed 1
#else
#define mixed 0
#endif
byte acknowledged[BLOCKS];/* ghost: the newest the guest knows to be there */

#define newest(b, v) if :: v > acknowledged[b] -> acknowledged[b] = v :: else fi

/* A change of one block. Where it goes is chosen when it begins, or when its claim is held. */
proctype writer() {
    byte left = WRITES;
    byte b, v, way;
    bit both, in_order, on_source, on_destination;
    do
    :: left == 0 -> break
    :: else ->
        left--;
        select(b : 0 .. BLOCKS - 1);
        atomic { !hold -> in_flight++; way = routing; if :: way == TRACKED && !finished -> plain++ :: else fi };
        if
        :: finished || way == TRACKED ->
            /* Straight through: the device puts overlapping ones into an order of its own. */
#ifdef BROKEN_EARLY_MARK
            if :: b < cursor -> dirty[b] = 1 :: else fi;
#endif
            atomic {
                version++; v = version;
                if :: moved -> destination[b] = v :: else -> source[b] = v fi
            };
            atomic { /* done: marked before the guest hears of it */
#ifndef BROKEN_EARLY_MARK
                if :: !finished && b < cursor -> dirty[b] = 1 :: else fi;
#endif
                newest(b, v);
                if :: way == TRACKED && plain > 0 -> plain-- :: else fi;
                in_flight--
            }
        :: else ->
            atomic { !claimed[b] -> claimed[b] = 1; version++; v = version; way = routing;
                     both = (way != REDIRECTED && way != RETURNING && b < cursor); in_order = (plain == 0);
                     on_source = (way == REDIRECTED); on_destination = !(both || way == REDIRECTED) };
            do /* the sides in any order */
            :: !on_source -> source[b] = v; on_source = 1
            :: !on_destination -> destination[b] = v; on_destination = 1
            :: on_source && on_destination -> break
            od;
            atomic {
                if
                :: way == REDIRECTED -> ahead[b] = 1
                :: way == RETURNING -> ahead[b] = 0
                :: both ->
#ifdef BROKEN_TAKES_MARK
                    dirty[b] = 0
#else
                    if :: in_order -> dirty[b] = 0 :: else fi
#endif
                :: else
                fi;
                newest(b, v);
                claimed[b] = 0;
                in_flight--
            }
        fi
    od
}

/* A read never gives less than what was acknowledged before it began. */
proctype reader() {
    byte b, least, got;
    select(b : 0 .. BLOCKS - 1);
    atomic { !hold -> in_flight++; least = acknowledged[b];
        if
        :: moved || ahead[b] -> got = destination[b]
        :: !moved && !ahead[b] && routing == REDIRECTED && b < cursor && !claimed[b] -> got = destination[b]
        :: !moved && !ahead[b] && !(routing == REDIRECTED && b < cursor && !claimed[b]) -> got = source[b]
        fi;
        in_flight--
    };
    assert(got >= least || mixed)
}

inline copy_over(b) {
    read = source[b];
    destination[b] = read
}
inline copy_back(b) {
    read = destination[b];
    source[b] = read
}

inline marked_pass(claims) {
    k = 0;
    do
    :: k == BLOCKS -> break
    :: k < BLOCKS && !dirty[k] -> k++
    :: k < BLOCKS && dirty[k] ->
        if :: claims -> atomic { !claimed[k] -> claimed[k] = 1 } :: else fi;
#ifdef BROKEN_CLEAR_AFTER
        copy_over(k);
        dirty[k] = 0;
#else
        dirty[k] = 0;
        copy_over(k);
#endif
        if :: claims -> claimed[k] = 0 :: else fi;
        k++
    od
}

inline none_dirty(result) {
    d_step { result = 1; k = 0; do :: k < BLOCKS -> if :: dirty[k] -> result = 0 :: else fi; k++ :: else -> break od; k = 0 }
}

inline equal() {
    d_step { k = 0; do :: k < BLOCKS -> assert(destination[k] == source[k]); k++ :: else -> break od; k = 0 }
}
inline source_is_complete() {
    d_step { k = 0; do :: k < BLOCKS -> assert(source[k] >= acknowledged[k]); k++ :: else -> break od; k = 0 }
}
inline destination_is_complete() {
    d_step { k = 0; do :: k < BLOCKS -> assert(destination[k] >= acknowledged[k]); k++ :: else -> break od; k = 0 }
}

active proctype mover() {
    byte k, read;
    bit clean, cancelled;
    run writer(); run writer(); run reader();
    /* First pass. */
    k = 0;
    do
    :: k == BLOCKS -> break
    :: k < BLOCKS && SCHEME == REDIRECTED -> cancelled = 1; break
    :: k < BLOCKS ->
        if
        :: SCHEME == TRACKED ->
#ifdef BROKEN_LATE_CURSOR
            read = source[k]; cursor = k + 1; destination[k] = read
#else
            cursor = k + 1;
            copy_over(k)
#endif
        :: SCHEME == MIRRORED ->
#ifdef BROKEN_NO_CLAIM
            cursor = k + 1;
            copy_over(k)
#else
            atomic { !claimed[k] -> claimed[k] = 1; cursor = k + 1 };
            copy_over(k);
            claimed[k] = 0
#endif
        :: SCHEME == REDIRECTED ->
#ifdef BROKEN_LOOKS_FIRST
            clean = !ahead[k];
            atomic { !claimed[k] -> claimed[k] = 1; cursor = k + 1 };
#else
            atomic { !claimed[k] -> claimed[k] = 1; cursor = k + 1; clean = !ahead[k] };
#endif
            if :: clean -> copy_over(k) :: else fi;
            claimed[k] = 0
        fi;
        k++
    od;
    if
    :: cancelled -> /* back, until nothing is ahead and nothing on its way */
        routing = RETURNING;
again:  k = 0;
        do
        :: k == BLOCKS -> break
        :: k < BLOCKS ->
            atomic { !claimed[k] -> claimed[k] = 1; clean = !ahead[k] };
            if :: !clean -> copy_back(k); ahead[k] = 0 :: else fi;
            claimed[k] = 0;
            k++
        od;
        atomic { hold = 1; k = 0 };
        in_flight == 0;
        d_step { clean = 1; k = 0; do :: k < BLOCKS -> if :: ahead[k] -> clean = 0 :: else fi; k++ :: else -> break od; k = 0 };
        if :: !clean -> hold = 0; goto again :: else fi;
        source_is_complete();
        atomic { finished = 1; routing = TRACKED; hold = 0 }
    :: else ->
        if
        :: SCHEME == TRACKED ->
            marked_pass(0);
#ifdef TURN
            atomic { routing = MIRRORED; cursor = BLOCKS };
            plain == 0;
turned:     marked_pass(1);
            none_dirty(clean);
            if :: !clean -> goto turned :: else fi;
#endif
        :: else
        fi;
        hold = 1;
        in_flight == 0;
#ifdef TURN
        none_dirty(clean);
        if :: !clean -> hold = 0; goto turned :: else fi;
#endif
        if :: SCHEME == TRACKED -> marked_pass(0) :: else fi;
        if :: SCHEME != REDIRECTED -> equal() :: else fi;
        if :: !mixed -> destination_is_complete() :: else fi;
        atomic { finished = 1; moved = 1; d_step { k = 0; do :: k < BLOCKS -> ahead[k] = 0; k++ :: else -> break od }; routing = TRACKED; hold = 0 }
    fi
}
