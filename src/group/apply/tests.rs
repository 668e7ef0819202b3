//! Machines that yield and machines that stop, in one replica that is its own quorum.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;

use crate::entry::{Entry, EntryKind};
use crate::group::{
    Answers, GroupCommand, GroupState, Origin, PartId, Replayed, Replica, ReplicaRecovery,
    RunError, SessionRequest, Verdict, Written,
};
use crate::id::{
    EntryId, GroupId, Index, NodeId, ReplicaId, SegmentSeq, SessionId, Term, Tick, UnixMs,
};
use crate::raft::effects::{Effects, HardState, RoleKind};
use crate::raft::{Config, Failure};
use crate::store::batch::{Batch, Committed, Stop};
use crate::store::command::Access;
use crate::store::connection::Manner;
use crate::store::{Frozen, Restoring, StateMachine, Wanted, whole};
use crate::wal::{EntryLists, RunKind};
use crate::wire::reply::Reply;

const GROUP: GroupId = GroupId(3);
const SESSION: SessionId = SessionId(9);

/// Counts the commands it executed, and what it may do next is told from outside.
#[derive(Clone, Default)]
struct Machine {
    count: u64,
    /// Entries it answers before it yields, with the next one taken.
    pace: Rc<Cell<usize>>,
    /// It stops in place of the entry at this index.
    stops: Option<(Index, Stop)>,
}

impl StateMachine for Machine {
    fn apply_batch(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop> {
        let mut left = self.pace.get();
        while let Some(Committed { index, .. }) = batch.next_entry() {
            if left == 0 {
                return Ok(());
            }
            if let Some((at, stop)) = &self.stops
                && *at == index
            {
                return Err(stop.clone());
            }
            left -= 1;
            self.count += 1;
            batch.answer(Reply::Int(self.count as i64));
        }
        Ok(())
    }
    fn apply(&mut self, _: Index, _: &Bytes, _: Wanted) -> Reply {
        unreachable!("the core calls `apply_batch`")
    }
    fn read(&self, _: &Bytes) -> Reply {
        Reply::Int(self.count as i64)
    }
    fn digest(&self) -> u64 {
        crate::id::mix(self.count)
    }
    fn len(&self) -> u64 {
        self.count
    }
    fn freeze(&self) -> Box<dyn Frozen> {
        whole::frozen(self.count.to_le_bytes().to_vec())
    }
    fn restoring(&self) -> Box<dyn Restoring> {
        whole::restoring(|_| None)
    }
}

/// A machine with this pace, and the handle to it.
fn paced(pace: usize) -> (Machine, Rc<Cell<usize>>) {
    let pace = Rc::new(Cell::new(pace));
    (Machine { pace: Rc::clone(&pace), ..Machine::default() }, pace)
}

struct Alone {
    replica: Replica,
    fx: Effects,
    answers: Answers,
    /// Changes of role since it led.
    roles: Vec<RoleKind>,
    asked: u64,
}

impl Alone {
    /// Leads its group; entry 1 is its term's.
    fn leading(machine: impl StateMachine + 'static) -> Self {
        let recovery = ReplicaRecovery::new(GROUP, Box::new(machine), 1 << 20);
        let replica = recovery
            .beginning(GroupState::first(&[NodeId(1)], &[]))
            .finish(Config::new(ReplicaId(1), 1), Tick(0))
            .expect("an empty log");
        let (fx, answers) = (Effects::default(), Answers::new());
        let mut alone = Self { replica, fx, answers, roles: vec![], asked: 0 };
        alone.replica.campaign(Tick(0), &mut alone.answers);
        (0..4).for_each(|_| alone.turn());
        assert!(alone.replica.status().leader_ready);
        alone.roles.clear();
        alone
    }

    /// One turn, and everything written in it is durable.
    fn turn(&mut self) {
        let Self { replica, fx, answers, .. } = self;
        replica.ready(Tick(0), UnixMs(0), fx, answers);
        self.roles.extend(fx.role.map(|event| event.role));
        fx.clear();
        while let Some((_, done)) = replica.take_run(usize::MAX, &mut EntryLists::default()) {
            if let Some(Written::Persist(seq)) = done {
                replica.on_durable(Tick(0), seq, answers);
            }
        }
    }

    fn ask(&mut self, access: Access, session: Option<SessionRequest>) -> u64 {
        self.asked += 1;
        let origin = Origin::Here(PartId { request: self.asked, part: 0 });
        let command = GroupCommand {
            group: GROUP,
            access,
            after_writes: false,
            manner: Manner::default(),
            session,
            body: Bytes::from_static(b"?"),
        };
        let verdict = self.replica.on_command(Tick(0), UnixMs(0), command, origin);
        assert!(matches!(verdict, Verdict::Taken), "{verdict:?}");
        self.asked
    }

    fn write(&mut self) -> u64 {
        self.ask(Access::Write, None)
    }

    fn request(&mut self, seq: u64) -> u64 {
        self.ask(Access::Write, Some(SessionRequest::Run { id: SESSION, seq }))
    }

    /// What was answered since this was last called, and to which request.
    fn heard(&mut self) -> Vec<(u64, Reply)> {
        let number = |origin| match origin {
            Origin::Here(part) => part.request,
            _ => unreachable!("everybody asks here"),
        };
        self.answers.drain(..).map(|(origin, reply)| (number(origin), reply)).collect()
    }

    fn applied(&self) -> Index {
        self.replica.status().applied
    }
}

#[test]
fn a_machine_that_yields_is_called_again_and_what_it_answered_is_applied() {
    let (machine, pace) = paced(2);
    let mut alone = Alone::leading(machine);
    for _ in 0..5 {
        alone.write();
    }
    alone.turn();
    assert_eq!((alone.applied(), alone.replica.has_yielded()), (Index(1), false), "not durable");
    alone.turn();
    assert_eq!((alone.applied(), alone.replica.has_yielded()), (Index(3), true));
    assert_eq!(alone.heard(), [(1, Reply::Int(1)), (2, Reply::Int(2))]);
    // What is committed meanwhile comes behind what is left.
    alone.write();
    alone.turn();
    assert_eq!((alone.applied(), alone.replica.has_yielded()), (Index(5), true));
    pace.set(usize::MAX);
    alone.turn();
    assert_eq!((alone.applied(), alone.replica.has_yielded()), (Index(7), false));
    let rest: Vec<_> = (3..=6).map(|number| (number, Reply::Int(number as i64))).collect();
    assert_eq!(alone.heard(), rest, "each once, in order");
}

#[test]
fn a_read_waits_for_what_it_must_see_and_sees_nothing_of_what_came_after_it() {
    let (machine, pace) = paced(1);
    let mut alone = Alone::leading(machine);
    alone.write();
    alone.write();
    alone.turn();
    let read = alone.ask(Access::Read, None);
    alone.write();
    alone.write();
    alone.turn();
    assert_eq!(alone.applied(), Index(2), "one, and it yields");
    assert_eq!(alone.heard(), [(1, Reply::Int(1))], "the read waits for the second write");
    pace.set(usize::MAX);
    alone.turn();
    let heard = alone.heard();
    assert_eq!(alone.applied(), Index(5));
    assert!(heard.contains(&(read, Reply::Int(2))), "as it was before the third: {heard:?}");
}

#[test]
fn a_snapshot_between_two_turns_is_of_what_was_answered() {
    let (machine, pace) = paced(1);
    let mut alone = Alone::leading(machine);
    alone.ask(Access::Write, Some(SessionRequest::Open(SESSION)));
    alone.request(1);
    alone.request(2);
    alone.request(2);
    // Room for the first request; the second is taken, and not answered.
    (0..2).for_each(|_| alone.turn());
    assert_eq!((alone.applied(), alone.replica.has_yielded()), (Index(3), true));
    let (then, meta) = (alone.replica.digest(), alone.replica.snapshot_meta());
    assert_eq!(meta.entry.index, Index(3));
    let table = meta.sessions().expect("ours");

    // The same entries, replayed up to there.
    let replayed = replay(Machine { pace: pace.clone(), ..Machine::default() }, 3).expect("whole");
    assert_eq!(replayed.digest(), then);
    assert_eq!(replayed.sessions(), &table, "the table does not know yet of what is not applied");

    pace.set(usize::MAX);
    alone.turn();
    let answers = [(1, Reply::Ok), (2, Reply::Int(1)), (3, Reply::Int(2)), (4, Reply::Int(2))];
    assert_eq!(alone.heard(), answers, "the retry hears the first result");
    let replayed = replay(Machine { pace, ..Machine::default() }, 5).expect("whole");
    assert_eq!(replayed.digest(), alone.replica.digest());
}

/// The log of [`a_snapshot_between_two_turns_is_of_what_was_answered`], of which so many entries are committed.
fn replay(machine: Machine, commit: u64) -> Result<Replica, RunError> {
    let run = |seq| SessionRequest::Run { id: SESSION, seq }.payload(b"?");
    let session = [SessionRequest::Open(SESSION).payload(b"?"), run(1), run(2), run(2)];
    let session = session.into_iter().map(Entry::session);
    let hard_state = HardState { term: Term(1), commit: Index(commit), ..HardState::default() };
    let entry = EntryId { term: Term(1), index: Index(1) };
    let kind = RunKind::Log;
    let run = Replayed { kind, is_forgetful: false, hard_state, entry, segment: SegmentSeq(1) };
    let mut recovery = ReplicaRecovery::new(GROUP, Box::new(machine), 1 << 20)
        .beginning(GroupState::first(&[NodeId(1)], &[]));
    recovery.on_run(run, std::iter::once(Entry::empty()).chain(session))?;
    recovery.finish(Config::new(ReplicaId(1), 1), Tick(0))
}

#[test]
fn a_machine_that_stops_its_group_leaves_nobody_waiting() {
    let (machine, _) = paced(usize::MAX);
    let why = Stop::Group("its table is full".into());
    let mut alone = Alone::leading(Machine { stops: Some((Index(4), why)), ..machine });
    alone.write();
    (0..2).for_each(|_| alone.turn());
    assert_eq!(alone.heard(), [(1, Reply::Int(1))]);
    alone.write();
    alone.write();
    alone.turn();
    let read = alone.ask(Access::Read, None);
    alone.turn();
    let heard = alone.heard();
    assert!(
        heard.iter().all(|(who, reply)| reply.is_uncertain() == (*who != read) && reply.is_error()),
        "also what was answered in the batch that failed: {heard:?}"
    );
    assert_eq!(heard.iter().map(|(who, _)| *who).collect::<Vec<_>>(), [2, 3, read]);
    let (status, at) = (alone.replica.status(), Index(2));
    assert_eq!(status.failure, Some(Failure::MachineStopped { after: at }));
    assert_eq!((status.role, status.applied), (RoleKind::Follower, at));
    assert_eq!(
        alone.roles,
        [RoleKind::Follower],
        "whoever does a leader's work hears that it is over"
    );
    let (told, ends_node) = alone.replica.newly_failed().expect("told");
    assert!(told.contains("its table is full") && !ends_node, "{told}");
    assert_eq!(alone.replica.newly_failed(), None, "once");
    alone.turn();
    assert_eq!((alone.roles.len(), alone.replica.has_yielded()), (1, false));
}

#[test]
fn a_replay_knows_both_ways_to_stop() {
    let stopping = |stop| Machine { stops: Some((Index(4), stop)), ..paced(1).0 };
    let group = replay(stopping(Stop::Group("full".into())), 5).expect("the node starts");
    assert!(group.why_failed().expect("it does not take part").contains("full"));
    let node = replay(stopping(Stop::Node("on fire".into())), 5);
    let (after, why) = (Index(3), "on fire".to_owned());
    assert_eq!(node.err(), Some(RunError::Machine { group: GROUP, after, why }));
    let later = replay(stopping(Stop::Node("on fire".into())), 3);
    assert!(later.is_ok(), "what is not committed is not executed");
}

#[test]
#[should_panic(expected = "has not answered entry 2")]
fn a_machine_must_answer_before_it_asks_for_more() {
    struct Hasty;

    impl StateMachine for Hasty {
        fn apply_batch(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop> {
            while batch.next_entry().is_some() {}
            Ok(())
        }
        fn apply(&mut self, _: Index, _: &Bytes, _: Wanted) -> Reply {
            Reply::Nil
        }
        fn read(&self, _: &Bytes) -> Reply {
            Reply::Nil
        }
        fn digest(&self) -> u64 {
            0
        }
        fn len(&self) -> u64 {
            0
        }
        fn freeze(&self) -> Box<dyn Frozen> {
            whole::frozen("")
        }
        fn restoring(&self) -> Box<dyn Restoring> {
            whole::restoring(|_| None)
        }
    }

    let entries = vec![Entry::empty(), Entry::command(Bytes::from_static(b"?"))];
    assert_eq!(entries[1].kind, EntryKind::Command);
    let hard_state = HardState { term: Term(1), commit: Index(2), ..HardState::default() };
    let entry = EntryId { term: Term(1), index: Index(1) };
    let run = Replayed { hard_state, entry, segment: SegmentSeq(1), ..Replayed::default() };
    let mut recovery = ReplicaRecovery::new(GROUP, Box::new(Hasty), 1 << 20)
        .beginning(GroupState::first(&[NodeId(1)], &[]));
    recovery.on_run(run, entries.into_iter()).expect("it follows");
    recovery.settle();
}

/// Replies with as many bytes as it is asked for, and nested as deeply.
struct Verbose;

impl Verbose {
    fn reply(payload: &Bytes) -> Reply {
        let large = Reply::Bulk(vec![b'x'; 17 << 20].into());
        let deep = || (0..20).fold(Reply::Ok, |inner, _| Reply::Array(vec![inner]));
        if payload == "deep" { deep() } else { large }
    }
}

impl StateMachine for Verbose {
    fn apply(&mut self, _: Index, payload: &Bytes, _: Wanted) -> Reply {
        Self::reply(payload)
    }
    fn read(&self, payload: &Bytes) -> Reply {
        Self::reply(payload)
    }
    fn digest(&self) -> u64 {
        0
    }
    fn len(&self) -> u64 {
        0
    }
    fn freeze(&self) -> Box<dyn Frozen> {
        whole::frozen("")
    }
    fn restoring(&self) -> Box<dyn Restoring> {
        whole::restoring(|_| None)
    }
}

#[test]
fn a_reply_past_a_bound_is_an_error_whoever_asks_and_whatever_is_kept_of_it() {
    let mut alone = Alone::leading(Verbose);
    let open = alone.ask(Access::Write, Some(SessionRequest::Open(SESSION)));
    let (write, request) = (alone.write(), alone.request(1));
    (0..3).for_each(|_| alone.turn());
    let (read, again) = (alone.ask(Access::Read, None), alone.request(1));
    // Looked up before the entry behind it, and when its leadership is confirmed.
    (0..3).for_each(|_| alone.turn());
    let heard = alone.heard();
    assert!(heard.contains(&(open, Reply::Ok)));
    for asked in [write, request, read, again] {
        assert!(heard.contains(&(asked, Reply::too_large())), "{asked}: {heard:?}");
    }
    assert!(alone.replica.sessions().digest() != 0 && heard.len() == 5);
}
