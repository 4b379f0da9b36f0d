//! Orders of running, and what threads do together.

use ptx_emulator::{Launch, Memory, Options, Order, Param, launch_with};

use crate::{module_of, read_u32, run_body};

/// Blocks in the order in which they ran: each takes a ticket.
fn tickets(order: Order) -> Vec<u32> {
    let module = module_of(
        "atom.global.add.u32 %r1, [%rd7], 1;
         mov.u32 %r2, %ctaid.x;
         mul.wide.u32 %rd1, %r2, 4;
         add.s64 %rd1, %rd1, %rd7;
         st.global.u32 [%rd1+4], %r1;",
    );
    let mut memory = Memory::new();
    let out = memory.zeroed(4 * 21, "out");
    let shape = Launch {
        grid: [20, 1, 1],
        block: [1, 1, 1],
        dynamic_shared: 0,
        params: &[Param::Ptr(out)],
    };
    let options = Options {
        order,
        ..Options::default()
    };
    launch_with(&module, &mut memory, "k", &shape, &options).expect("no fault");
    read_u32(&mut memory, out.offset(4), 20)
}

#[test]
fn orders_of_blocks() {
    assert_eq!(tickets(Order::Ascending), (0..20).collect::<Vec<_>>());
    assert_eq!(
        tickets(Order::Descending),
        (0..20).rev().collect::<Vec<_>>()
    );
    let shuffled = tickets(Order::Shuffled(1));
    assert_eq!(shuffled, tickets(Order::Shuffled(1)));
    assert_ne!(shuffled, tickets(Order::Shuffled(2)));
    let mut sorted = shuffled;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..20).collect::<Vec<_>>());
}

/// Runs a body whose result is in `%r0`, in 32 threads.
fn lanes(body: &str) -> Vec<u32> {
    let body = format!(
        "mov.u32 %r15, %laneid;
         {body}
         mul.wide.u32 %rd1, %r15, 4;
         add.s64 %rd1, %rd1, %rd7;
         st.global.u32 [%rd1], %r0;"
    );
    let (bytes, _) = run_body(&body, 32, 0, 128).unwrap_or_else(|error| panic!("{error}"));
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn each(f: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..32).map(f).collect()
}

#[test]
fn shuffles() {
    let all = "mov.b32 %r2, -1; mul.lo.u32 %r1, %r15, 10;";
    let shuffle = |text: &str| lanes(&format!("{all} {text}"));
    assert_eq!(
        shuffle("shfl.sync.bfly.b32 %r0, %r1, 3, 31, %r2;"),
        each(|lane| (lane ^ 3) * 10)
    );
    assert_eq!(
        shuffle("shfl.sync.idx.b32 %r0, %r1, 5, 31, %r2;"),
        each(|_| 50)
    );
    assert_eq!(
        shuffle("shfl.sync.up.b32 %r0, %r1, 4, 0, %r2;"),
        each(|lane| if lane < 4 { lane * 10 } else { (lane - 4) * 10 })
    );
    assert_eq!(
        shuffle("shfl.sync.down.b32 %r0, %r1, 4, 31, %r2;"),
        each(|lane| if lane > 27 {
            lane * 10
        } else {
            (lane + 4) * 10
        })
    );
    // Segments of 8 lanes: width 8 is clamp 31 or 0 with mask 24 above it.
    assert_eq!(
        shuffle(
            "shfl.sync.down.b32 %r0|%p1, %r1, 2, 6175, %r2; selp.u32 %r3, 1, 0, %p1; add.u32 %r0, %r0, %r3;"
        ),
        each(|lane| if lane % 8 < 6 {
            (lane + 2) * 10 + 1
        } else {
            lane * 10
        })
    );
    assert_eq!(
        shuffle("shfl.sync.idx.b32 %r0, %r1, 9, 6175, %r2;"),
        each(|lane| (lane / 8 * 8 + 1) * 10)
    );
}

#[test]
fn votes_matches_and_sums() {
    let odd = "and.b32 %r1, %r15, 1; setp.eq.u32 %p1, %r1, 1; mov.b32 %r2, -1;";
    let vote = |text: &str| lanes(&format!("{odd} {text}"));
    assert_eq!(
        vote("vote.sync.ballot.b32 %r0, %p1, %r2;"),
        each(|_| 0xAAAA_AAAA)
    );
    assert_eq!(
        vote("vote.sync.ballot.b32 %r0, !%p1, %r2;"),
        each(|_| 0x5555_5555)
    );
    for (kind, value) in [("any", 1), ("all", 0), ("uni", 0)] {
        let text = format!("vote.sync.{kind}.pred %p2, %p1, %r2; selp.u32 %r0, 1, 0, %p2;");
        assert_eq!(vote(&text), each(|_| value), "{kind}");
    }
    assert_eq!(
        vote("match.any.sync.b32 %r0, %r1, %r2;"),
        each(|lane| 0x5555_5555 << (lane % 2))
    );
    assert_eq!(
        vote(
            "match.all.sync.b32 %r0|%p2, %r2, %r2; selp.u32 %r3, 1, 0, %p2; sub.u32 %r0, %r0, %r3;"
        ),
        each(|_| u32::MAX - 1)
    );
    assert_eq!(vote("redux.sync.add.u32 %r0, %r15, %r2;"), each(|_| 496));
    assert_eq!(
        vote("neg.s32 %r3, %r15; redux.sync.min.s32 %r0, %r3, %r2;"),
        each(|_| 31_u32.wrapping_neg())
    );
    assert_eq!(vote("redux.sync.xor.b32 %r0, %r15, %r2;"), each(|_| 0));
}

/// Lanes part and meet again; those that are apart see who is with them.
#[test]
fn lanes_part_and_meet() {
    let parted = "
        setp.lt.u32 %p1, %r15, 10;
        @%p1 bra FEW;
        activemask.b32 %r0;
        bra MEET;
    FEW:
        activemask.b32 %r0;
        add.u32 %r0, %r0, 1;
    MEET:
        activemask.b32 %r3;
        setp.eq.u32 %p2, %r3, -1;
        @!%p2 mov.u32 %r0, 0;";
    assert_eq!(
        lanes(parted),
        each(|lane| if lane < 10 { 0x400 } else { !0x3FF })
    );
    let rounds = "
        mov.u32 %r0, 0;
    AGAIN:
        add.u32 %r0, %r0, 3;
        setp.lt.u32 %p1, %r0, %r15;
        @%p1 bra AGAIN;";
    assert_eq!(lanes(rounds), each(|lane| lane.div_ceil(3).max(1) * 3));
    let indexed = "
        and.b32 %r1, %r15, 3;
        targets: .branchtargets A, B, A, C;
        brx.idx %r1, targets;
    A:  mov.u32 %r0, 7; bra END;
    B:  mov.u32 %r0, 8; bra END;
    C:  mov.u32 %r0, 9;
    END:";
    assert_eq!(lanes(indexed), each(|lane| [7, 8, 7, 9][lane as usize % 4]));
}

/// Lanes of a warp that wait for each other in a loop: one holds a lock that the others want.
#[test]
fn a_lock_within_a_warp_gets_everyone_through() {
    let body = "
    AGAIN:
        atom.global.cas.b32 %r1, [%rd7], 0, 1;
        setp.ne.u32 %p1, %r1, 0;
        @%p1 bra AGAIN;
        ld.volatile.global.u32 %r2, [%rd7+4];
        add.u32 %r2, %r2, 1;
        st.volatile.global.u32 [%rd7+4], %r2;
        atom.global.exch.b32 %r1, [%rd7], 0;";
    let (bytes, _) = run_body(body, 96, 0, 8).expect("no fault");
    assert_eq!(bytes, [0, 0, 0, 0, 96, 0, 0, 0]);
}

#[test]
fn barriers_count() {
    let body = "
        mov.u32 %r15, %tid.x;
        setp.lt.u32 %p1, %r15, 40;
        bar.red.popc.u32 %r0, 0, %p1;
        bar.red.or.pred %p2, 0, %p1;
        bar.red.and.pred %p3, 0, !%p1;
        selp.u32 %r1, 1000, 0, %p2;
        selp.u32 %r2, 10000, 0, %p3;
        add.u32 %r0, %r0, %r1;
        add.u32 %r0, %r0, %r2;
        mul.wide.u32 %rd1, %r15, 4;
        add.s64 %rd1, %rd1, %rd7;
        st.global.u32 [%rd1], %r0;";
    let (bytes, stats) = run_body(body, 64, 0, 256).expect("no fault");
    assert!(
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .all(|word| *word == 1040_u32.to_le_bytes())
    );
    assert_eq!(stats.barriers, 3);
}

/// Two warps hand work on through numbered barriers: one arrives, the other waits.
#[test]
fn warps_hand_over_at_a_numbered_barrier() {
    let body = "
        mov.u32 %r1, %tid.x;
        shl.b32 %r2, %r1, 2;
        mov.u32 %r3, dynamic;
        add.u32 %r3, %r3, %r2;
        setp.lt.u32 %p1, %r1, 32;
        @!%p1 bra READER;
        st.shared.u32 [%r3], %r1;
        bar.arrive 1, 64;
        ret;
    READER:
        bar.sync 1, 64;
        ld.shared.u32 %r4, [%r3+-128];
        mul.wide.u32 %rd1, %r4, 4;
        add.s64 %rd1, %rd1, %rd7;
        st.global.u32 [%rd1], %r4;";
    let (bytes, _) = run_body(body, 64, 256, 128).unwrap_or_else(|error| panic!("{error}"));
    let numbers: Vec<u8> = (0_u32..32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(bytes, numbers);
    let unordered = body
        .replace("bar.arrive 1, 64;", "")
        .replace("bar.sync 1, 64;", "");
    assert!(run_body(&unordered, 64, 256, 128).is_err());
}
