//! Clocks that are turned by hand: every stage gets what it took, and the right one is named.

use super::*;

const GROUP: GroupId = GroupId(4);
const HERE: NodeId = NodeId(1);

fn membership(voters: &[u64]) -> Membership {
    Membership::of_voters(voters.iter().map(|&id| ReplicaId(id)))
}

/// The clocks of a core with one replica, and the time.
struct Core {
    stages: Stages,
    now: u64,
    ticket: u64,
}

impl Core {
    fn new(node: u64) -> Self {
        Self { stages: Stages::new(NodeId(node), 1), now: 1_000, ticket: 0 }
    }

    fn mark(&mut self, mark: Mark, after: u64) {
        self.now += after;
        self.stages.mark(mark, Micros(self.now));
    }

    /// A turn begins at this time.
    fn turn(&mut self, at: u64) {
        assert!(self.now <= at, "time goes on");
        self.now = at;
        self.mark(Mark::Reaped, 0);
        self.mark(Mark::Gathered, 10);
    }

    /// Two commands are proposed, sent to these nodes and written, in one turn that takes 60 µs.
    fn write(&mut self, at: u64, first: u64, to: &[u64]) -> FlushTicket {
        self.turn(at);
        let arrival = self.stages.arrival();
        for index in [first, first + 1] {
            self.stages.proposed(0, Index(index), arrival);
        }
        for &node in to {
            self.stages.sending(0, NodeId(node), Index(first + 1));
        }
        let ticket = self.place(first + 1);
        self.end();
        ticket
    }

    fn place(&mut self, last: u64) -> FlushTicket {
        self.ticket += 1;
        let ticket = FlushTicket(self.ticket);
        self.stages.writing(ticket);
        self.stages.placed(0, Index(last), ticket);
        ticket
    }

    /// The turn ends, 50 µs after it was gathered.
    fn end(&mut self) {
        self.mark(Mark::Decided, 20);
        self.mark(Mark::Written, 5);
        self.mark(Mark::Sent, 15);
        self.mark(Mark::Replied, 10);
    }

    fn flushed(&mut self, ticket: FlushTicket) {
        self.stages.durable(0, ticket);
        self.stages.written(ticket);
    }

    fn heard(&mut self, node: u64, last: u64, timing: Option<AckTiming>) {
        self.heard_both(node, last, [None, timing]);
    }

    fn heard_both(&mut self, node: u64, last: u64, [oldest, newest]: [Option<AckTiming>; 2]) {
        let told = [oldest.as_ref(), newest.as_ref()];
        self.stages.heard(0, NodeId(node), Index(last), told);
    }

    fn accepted(&mut self, last: u64) -> Vec<AckTiming> {
        self.stages.accepted(0, GROUP, Index(last)).collect()
    }

    fn applied(&mut self, applied: u64, voters: &[u64]) {
        self.stages.applied(0, GROUP, Index(applied), &membership(voters));
    }

    fn explained(&self) -> (Vec<Commit>, Vec<Leg>) {
        let (commits, legs) = self.stages.explained();
        (commits.to_vec(), legs.to_vec())
    }
}

fn timing(index: u64, flush: u32) -> Option<AckTiming> {
    let (group, index) = (GROUP, Index(index));
    Some(AckTiming { group, index, pick_up: 7, flush_wait: 3, flush, ack: 11 })
}

fn of(times: &StageTimes, stage: Stage) -> u32 {
    times[stage as usize]
}

#[test]
fn every_stage_gets_what_it_took_and_together_they_are_the_whole() {
    let mut core = Core::new(1);
    let ticket = core.write(10_000, 1, &[2, 3]);
    core.turn(10_300);
    core.flushed(ticket);
    core.end();
    core.turn(10_400);
    core.heard(2, 2, timing(2, 150));
    core.applied(2, &[1, 2, 3]);
    core.end();
    let (commits, legs) = core.explained();
    let [commit] = commits[..] else { panic!("{commits:?}") };
    assert_eq!((commit.group, commit.first, commit.last), (GROUP, Index(1), Index(2)));
    assert_eq!((commit.commands, commit.set_by), (2, NodeId(2)));
    // Received 10_000, picked 10_010, decided 10_030, written 10_035, sent 10_050; heard 10_400.
    let expected = [
        (Stage::Queue, 10),
        (Stage::PickUp, 0),
        (Stage::FlushWait, 0),
        (Stage::Encode, 25),
        (Stage::Flush, 265),
        (Stage::Send, 40),
        (Stage::Network, 350 - (7 + 3 + 150 + 11)),
        (Stage::FollowerPickUp, 7),
        (Stage::FollowerFlushWait, 3),
        (Stage::FollowerFlush, 150),
        (Stage::Ack, 11),
        (Stage::Quorum, 10),
        (Stage::Apply, 20),
        (Stage::Reply, 30),
    ];
    for (stage, us) in expected {
        assert_eq!(of(&commit.times, stage), us, "{stage:?} in {:?}", commit.times);
    }
    assert_eq!(commit.us, 460);
    let own = [Stage::FlushWait, Stage::Encode, Stage::Flush];
    let way = Stage::ALL.into_iter().filter(|stage| !own.contains(stage));
    assert_eq!(way.map(|stage| of(&commit.times, stage)).sum::<u32>(), commit.us, "no gap");
    assert_eq!(commit.stage, Stage::Network);
    assert_eq!(legs.len(), 1);
    assert_eq!((legs[0].node, legs[0].commands), (NodeId(2), 2));
    // The other follower is heard of later, and is told by itself.
    core.turn(15_500);
    core.heard(3, 2, timing(2, 5_000));
    core.end();
    let (commits, legs) = core.explained();
    assert!(commits.is_empty(), "{commits:?}");
    assert_eq!(of(&legs[0].times, Stage::FollowerFlush), 5_000);
    assert!(core.stages.passages[0].is_empty(), "nothing is to be learned of it any more");
}

/// Who holds up the commit: a slow disk, ours or that of a follower that is needed, and not that of one
/// that is not.
#[test]
fn the_replica_and_the_stage_that_set_the_commit_time_are_named() {
    // (own flush ends, follower 2's acceptance comes and its flush, follower 3's, who, what).
    let both = &[2, 3][..];
    for (own, second, third, to, who, what) in [
        (300, (400, 150), (5_400, 5_000), both, 2, Stage::Network),
        (5_300, (400, 150), (500, 160), both, 1, Stage::Flush),
        (300, (5_400, 5_000), (5_600, 4_900), both, 2, Stage::FollowerFlush),
        (300, (0, 0), (5_400, 5_000), &[3][..], 3, Stage::FollowerFlush),
    ] {
        let mut core = Core::new(1);
        let ticket = core.write(10_000, 1, to);
        let mut events = vec![(own, 1, 0), (second.0, 2, second.1), (third.0, 3, third.1)];
        events.retain(|(at, ..)| *at != 0);
        events.sort_unstable();
        let mut complete = (false, 0);
        let mut commit = None;
        for (at, node, flush) in events {
            core.turn(10_000 + at);
            match node {
                1 => {
                    core.flushed(ticket);
                    complete.0 = true;
                }
                node => {
                    core.heard(node, 2, timing(2, flush));
                    complete.1 += 1;
                }
            }
            if complete.0 && complete.1 > 0 && commit.is_none() {
                core.applied(2, &[1, 2, 3]);
                core.end();
                commit = core.explained().0.first().copied();
            } else {
                core.end();
            }
        }
        let commit = commit.expect("it is explained");
        assert_eq!((commit.set_by, commit.stage), (NodeId(who), what), "{commit:?}");
    }
}

#[test]
fn a_learner_is_not_waited_for_and_a_node_alone_waits_for_itself() {
    let mut core = Core::new(1);
    let ticket = core.write(10_000, 1, &[2]);
    core.turn(10_100);
    core.flushed(ticket);
    core.end();
    core.turn(19_000);
    core.heard(2, 2, timing(2, 8_000));
    core.applied(2, &[1]);
    core.end();
    let commit = core.explained().0[0];
    assert_eq!((commit.set_by, of(&commit.times, Stage::FollowerFlush)), (HERE, 0));
    assert_eq!(commit.stage, Stage::Quorum, "it was durable long before it was applied");
}

#[test]
fn what_is_accepted_together_has_waited_for_the_same_flush() {
    let mut core = Core::new(1);
    core.write(10_000, 1, &[2]);
    core.write(10_100, 3, &[2]);
    core.write(10_200, 5, &[2]);
    core.turn(11_000);
    // The oldest waited 200 us longer than the newest.
    let oldest = timing(2, 300).map(|it| AckTiming { flush_wait: 203, ..it });
    core.heard_both(2, 6, [oldest, timing(6, 300)]);
    core.end();
    let (_, legs) = core.explained();
    let [newer, middle, older] = legs[..] else { panic!("{legs:?}") };
    // Sent at 10_250, heard at 11_000, 321 of that told.
    assert_eq!(of(&newer.times, Stage::Network), 750 - 321);
    for stage in [Stage::Network, Stage::FollowerPickUp, Stage::FollowerFlush, Stage::Ack] {
        assert_eq!(of(&newer.times, stage), of(&older.times, stage), "{stage:?}");
    }
    assert_eq!(of(&newer.times, Stage::FollowerFlushWait), 3);
    assert_eq!(of(&older.times, Stage::FollowerFlushWait), 3 + 200, "it was there 200 us earlier");
    assert_eq!(of(&middle.times, Stage::Network), 750 - 321);
    assert_eq!(of(&middle.times, Stage::FollowerFlushWait), 3 + 100);
}

#[test]
fn what_a_network_held_up_has_not_waited_for_a_disk() {
    let mut core = Core::new(1);
    core.write(10_000, 1, &[2]);
    core.write(110_000, 3, &[2]);
    core.write(310_000, 5, &[2]);
    core.turn(311_000);
    // All of it arrived at once, and was written at once.
    core.heard_both(2, 6, [timing(2, 300), timing(6, 300)]);
    core.end();
    let (_, legs) = core.explained();
    let [newer, middle, older] = legs[..] else { panic!("{legs:?}") };
    for (leg, earlier) in [(newer, 0), (middle, 200_000), (older, 300_000)] {
        assert_eq!(of(&leg.times, Stage::Network), 950 - 321 + earlier);
        assert_eq!(of(&leg.times, Stage::FollowerFlushWait), 3);
    }
    // As much is known if the follower had it as one.
    let mut core = Core::new(1);
    core.write(10_000, 1, &[2]);
    core.write(110_000, 3, &[2]);
    core.turn(111_000);
    core.heard(2, 4, timing(4, 300));
    core.end();
    let (_, legs) = core.explained();
    let [_, older] = legs[..] else { panic!("{legs:?}") };
    assert_eq!(of(&older.times, Stage::Network), 950 - 321 + 100_000);
}

#[test]
fn a_follower_tells_how_long_its_part_took() {
    let mut core = Core::new(2);
    core.turn(10_000);
    core.stages.received(0, Index(5));
    core.end();
    core.turn(10_100);
    core.stages.received(0, Index(9));
    let ticket = core.place(9);
    core.end();
    assert_eq!(core.accepted(4), [], "nothing that new");
    core.turn(10_600);
    core.flushed(ticket);
    let told = core.accepted(9);
    // Received 10_100, picked and in a write 10_110, durable 10_600, composed 10_610.
    let (group, index) = (GROUP, Index(9));
    let expected = AckTiming { group, index, pick_up: 10, flush_wait: 0, flush: 490, ack: 10 };
    let older = AckTiming { index: Index(5), flush_wait: 100, ..expected };
    assert_eq!(told, [older, expected]);
    assert_eq!(core.accepted(9), [], "it is told once");
}

#[test]
fn what_waits_for_a_flush_in_flight_has_waited_for_it() {
    let mut core = Core::new(2);
    core.turn(10_000);
    core.stages.received(0, Index(5));
    core.end();
    core.turn(10_400);
    let ticket = core.place(5);
    core.end();
    core.turn(10_700);
    core.flushed(ticket);
    let [told] = core.accepted(5)[..] else { panic!("one") };
    assert_eq!((told.flush_wait, told.flush), (400, 290));
}

#[test]
fn without_marks_nothing_is_followed_and_with_them_no_more_than_may_be() {
    let mut core = Core::new(1);
    let arrival = Arrival::default();
    core.stages.proposed(0, Index(1), arrival);
    core.stages.received(0, Index(1));
    assert!(core.stages.passages[0].is_empty());
    for write in 0..3 * PASSAGES_MAX as u64 {
        core.write(10_000 + 100 * write, 1 + 2 * write, &[2, 3]);
    }
    assert_eq!(core.stages.passages[0].len(), PASSAGES_MAX);
    core.stages.forget(0);
    assert!(core.stages.passages[0].is_empty());
}

#[test]
fn a_command_from_another_core_has_queued_there_and_was_picked_up_here() {
    let mut core = Core::new(1);
    core.turn(10_000);
    let arrival = Arrival { received: Micros(9_000), taken: Micros(9_100) };
    core.stages.proposed(0, Index(1), arrival);
    core.stages.proposed(0, Index(2), core.stages.arrival());
    let ticket = core.place(2);
    core.end();
    core.turn(10_500);
    core.flushed(ticket);
    core.applied(2, &[1]);
    core.end();
    let commit = core.explained().0[0];
    assert_eq!(of(&commit.times, Stage::Queue), 100);
    assert_eq!(of(&commit.times, Stage::PickUp), 10_010 - 9_100);
    assert_eq!(commit.us, 10_560 - 9_000, "the oldest counts");
}
