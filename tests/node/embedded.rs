//! Nodes in this process, with a machine of their own: what an embedder is promised.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use outrigger::id::{GroupId, Index};
use outrigger::raft::effects::RoleKind;
use outrigger::runtime::client::{Failure, Why};
use outrigger::runtime::watch::{RolesEnd, Tail, TailEnd};
use outrigger::store::batch::{Batch, Stop};
use outrigger::store::{Frozen, Restoring, Wanted, whole};
use outrigger::wire::reply::Reply;
use outrigger::{Client, Config, Node, StateMachine};

use super::cluster::{TestDir, free_address};
use super::wait::{PATIENCE, wait_for};

/// A cluster has six cores, more than the machine may have: one at a time.
static ONE_CLUSTER: Mutex<()> = Mutex::new(());
const GROUP: GroupId = GroupId(1);

/// A reply that fits no frame.
fn large() -> Reply {
    Reply::Bulk(vec![b'x'; 17 << 20].into())
}

/// A sum; a write of `n` bytes adds n. To `large` it replies more than may be. It refuses what is over 100 bytes in words of its own. The `Rc` makes it `!Send`.
struct Sum(std::rc::Rc<u64>);

impl Sum {
    fn boxed(sum: u64) -> Box<dyn StateMachine> {
        Box::new(Self(sum.into()))
    }
}

impl StateMachine for Sum {
    fn apply(&mut self, _: Index, payload: &Bytes, _: Wanted) -> Reply {
        if payload.len() > 100 {
            return Reply::error("ERR", "too much at once");
        }
        self.0 = (*self.0 + payload.len() as u64).into();
        if payload == "large" { large() } else { Reply::Int(*self.0 as i64) }
    }
    fn read(&self, payload: &Bytes) -> Reply {
        if payload == "large" { large() } else { Reply::Int(*self.0 as i64) }
    }
    fn digest(&self) -> u64 {
        *self.0
    }
    fn len(&self) -> u64 {
        1
    }
    fn freeze(&self) -> Box<dyn Frozen> {
        whole::frozen(self.0.to_le_bytes().to_vec())
    }
    fn restoring(&self) -> Box<dyn Restoring> {
        whole::restoring(|bytes| Some(Self::boxed(u64::from_le_bytes(bytes.try_into().ok()?))))
    }
}

/// Three nodes of two cores each, in one directory.
struct Three {
    dir: TestDir,
    peers: BTreeMap<u64, SocketAddr>,
    nodes: BTreeMap<u64, Node>,
    _alone: MutexGuard<'static, ()>,
}

impl Three {
    fn start(name: &str) -> Self {
        let _alone = ONE_CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
        let peers = (1..=3).map(|id| (id, free_address())).collect();
        let mut three = Self { dir: TestDir::new(name), peers, nodes: BTreeMap::new(), _alone };
        (1..=3).for_each(|id| three.start_node(id));
        three.wait_ready();
        three
    }

    fn start_node(&mut self, id: u64) {
        let config = Config {
            peers: self.peers.clone(),
            cores: 2,
            groups: 3,
            request_ms: 5_000,
            ..Config::new(id, self.dir.path().join(id.to_string()), self.peers[&id])
        };
        self.nodes.insert(id, Node::start(config, |_| Sum::boxed(0)).expect("it starts"));
    }

    fn wait_ready(&self) {
        for node in self.nodes.values() {
            assert!(node.wait_until_ready(PATIENCE), "no leader in time: {}", self.told());
        }
    }

    /// What every node says of every group, a line each.
    fn told(&self) -> String {
        let of = |(id, group): (&u64, u64)| {
            format!("\nnode {id}, {:?}", self.client(*id).status(GroupId(group)))
        };
        self.nodes.keys().flat_map(|id| (0..3).map(move |group| of((id, group)))).collect()
    }

    fn client(&self, id: u64) -> Client {
        self.nodes[&id].client()
    }

    /// A node that leads the group, or does not. Between two leaders nobody leads for a while.
    fn node(&self, leads: bool) -> u64 {
        let is = |id: &u64| {
            let status = self.client(*id).status(GROUP).expect("there is such a group");
            (status.role == RoleKind::Leader) == leads
        };
        wait_for("one leads, the others follow", || self.nodes.keys().copied().find(is))
    }
}

/// The outcome, which does not fail to come.
fn hear(call: outrigger::runtime::client::Call) -> outrigger::runtime::client::Outcome {
    call.wait_for(Duration::from_secs(20)).expect("answered")
}

/// Calls again what was certainly not executed.
fn insist(call: impl Fn() -> outrigger::runtime::client::Call) -> Reply {
    wait_for("somebody leads", || match call().wait() {
        Ok(reply) => Some(reply),
        Err(Failure::NotExecuted { why: Why::NoLeader | Why::Loading, .. }) => None,
        Err(failure) => panic!("{failure}"),
    })
}

#[test]
fn three_nodes_agree_wherever_they_are_called_and_remember() {
    let mut three = Three::start("embedded-agree");
    let mut sum = 0;
    for id in 1..=3 {
        let client = three.client(id);
        sum += id;
        let written = insist(|| client.write(GROUP, vec![b'x'; id as usize]));
        assert_eq!(written, Reply::Int(sum as i64));
        for reader in 1..=3 {
            let client = three.client(reader);
            assert_eq!(insist(|| client.read(GROUP, "")), Reply::Int(sum as i64));
            let nearby = insist(|| client.read_nearby(GROUP, "", Duration::ZERO));
            assert_eq!(nearby, Reply::Int(sum as i64));
        }
    }
    for node in std::mem::take(&mut three.nodes).into_values() {
        node.stop().expect("a clean end");
    }
    (1..=3).for_each(|id| three.start_node(id));
    three.wait_ready();
    let client = three.client(2);
    assert_eq!(insist(|| client.read(GROUP, "")), Reply::Int(6));
    assert_eq!(insist(|| client.read(GroupId(0), "")), Reply::Int(0));
}

#[test]
fn what_a_machine_refuses_is_a_result_and_what_cannot_be_is_given_back() {
    let three = Three::start("embedded-refuse");
    let client = three.client(three.node(true));
    let refused = insist(|| client.write(GROUP, vec![b'x'; 101]));
    assert_eq!(refused, Reply::error("ERR", "too much at once"));
    for (group, payload) in
        [(GroupId(3), vec![b'x']), (GROUP, vec![b'x'; outrigger::limits::COMMAND_BYTES_MAX + 1])]
    {
        let failure = client.write(group, payload.clone()).wait().expect_err("impossible");
        assert_eq!(failure.why(), Some(Why::Invalid));
        assert_eq!(failure.into_payload(), payload);
    }
    assert_eq!(insist(|| client.read(GROUP, "")), Reply::Int(0));
}

#[test]
fn a_reply_past_the_bound_is_an_error_on_every_node_and_kills_none() {
    let three = Three::start("embedded-large");
    for id in [three.node(true), three.node(false)] {
        let client = three.client(id);
        assert_eq!(insist(|| client.write(GROUP, "large")), Reply::too_large());
        assert_eq!(insist(|| client.read(GROUP, "large")), Reply::too_large());
        let nearby = || client.read_nearby(GROUP, "large", Duration::ZERO);
        assert_eq!(insist(nearby), Reply::too_large());
    }
    let client = three.client(three.node(false));
    assert_eq!(insist(|| client.read(GROUP, "")), Reply::Int(10), "both were executed");
    for node in three.nodes.values() {
        assert!(node.wait_until_ready(PATIENCE), "a node has died: {}", three.told());
    }
}

#[test]
fn without_a_majority_a_write_is_unknown_and_its_session_tells_later() {
    let mut three = Three::start("embedded-session");
    let leader = three.node(true);
    let client = three.client(leader);
    let mut session = client.open_session(GROUP).wait().expect("opened");
    let seq = session.next_seq();
    // The others are gone without a word: nobody hands over, and nobody acknowledges.
    let others: Vec<u64> = three.nodes.keys().copied().filter(|id| *id != leader).collect();
    for id in &others {
        three.nodes.remove(id).expect("it runs").stop().expect("a clean end");
    }
    let payload = match session.run(seq, "abc").wait() {
        Err(Failure::Unknown { payload, .. }) => payload,
        // It may have stepped down before it was asked.
        Err(Failure::NotExecuted { why: Why::NoLeader, payload, .. }) => payload,
        other => panic!("{other:?}"),
    };
    assert_eq!(payload, "abc");
    others.iter().for_each(|id| three.start_node(*id));
    three.wait_ready();
    let (id, last) = (session.id(), session.last_seq());
    for through in [leader, others[0], others[1], leader] {
        let client = three.client(through);
        let again = insist(|| client.session(GROUP, id, last).run(seq, payload.clone()));
        assert_eq!(again, Reply::Int(3), "executed once");
    }
    assert_eq!(insist(|| client.read(GROUP, "")), Reply::Int(3));
    assert_eq!(insist(|| client.session(GROUP, id, last).close()), Reply::Int(1));
    let gone = client.session(GROUP, id, last).run(seq + 1, "d").wait().expect_err("closed");
    assert_eq!(gone.why(), Some(Why::NoSession));
}

#[test]
fn a_node_that_stops_answers_everybody_and_then_refuses() {
    let mut three = Three::start("embedded-stop");
    let leader = three.node(true);
    let client = three.client(leader);
    let mut roles = client.roles();
    let mut tail = client.tail(GROUP, None).expect("there is room");
    let calls: Vec<_> = (0..2_000).map(|_| client.write(GROUP, "x")).collect();
    three.nodes.remove(&leader).expect("it runs").stop().expect("a clean end");
    let (mut executed, mut refused, mut unknown) = (0, 0, 0);
    for call in calls {
        match call.wait_for(Duration::ZERO).expect("answered by now") {
            Ok(_) => executed += 1,
            Err(Failure::NotExecuted { payload, .. }) => {
                assert_eq!(payload, "x");
                refused += 1;
            }
            Err(Failure::Unknown { .. }) => unknown += 1,
        }
    }
    assert_eq!(hear(client.write(GROUP, "x")).expect_err("over").why(), Some(Why::Stopped));
    assert_eq!(client.tail(GROUP, None).expect_err("over"), Why::Stopped);
    let last = std::iter::from_fn(|| roles.wait(Duration::ZERO)).find_map(Result::err);
    assert_eq!(last, Some(RolesEnd::Stopped));
    let last = std::iter::from_fn(|| tail.wait(Duration::ZERO)).find_map(Result::err);
    assert_eq!(last, Some(TailEnd::Stopped));
    let other = three.client(three.node(true));
    let Reply::Int(sum) = insist(|| other.read(GROUP, "")) else { panic!("no sum") };
    assert!(executed <= sum && sum <= executed + unknown, "{executed} {refused} {unknown}: {sum}");
}

#[test]
fn roles_watermarks_and_the_log_can_be_watched_on_every_node() {
    let mut three = Three::start("embedded-watch");
    let (leader, follower) = (three.node(true), three.node(false));
    let mut roles = three.client(follower).roles();
    let mut tail = three.client(follower).tail(GROUP, Some(Index(1))).expect("there is room");
    let client = three.client(leader);
    let mut session = client.open_session(GROUP).wait().expect("opened");
    let seq = session.next_seq();
    for payload in ["a", "bb", "ccc"] {
        client.write(GROUP, payload).wait().expect("executed");
    }
    session.run(seq, "dddd").wait().expect("executed");
    let status = client.status(GROUP).expect("there is such a group");
    assert!(status.leader_ready && status.applied <= status.durable.min(status.commit));
    assert_eq!(status.leader.map(|node| node.0), Some(leader));
    let changes: Vec<_> =
        (0..4).map(|_| tail.wait(PATIENCE).expect("in time").expect("no end")).collect();
    assert_eq!(changes[3].id.index, status.applied, "the leader had executed it when it answered");
    let payloads: Vec<_> = changes.iter().map(|change| &change.payload[..]).collect();
    assert_eq!(payloads, [&b"a"[..], b"bb", b"ccc", b"dddd"]);
    assert_eq!(changes[3].session, Some((session.id(), seq)));
    assert_eq!(changes[0].session, None);

    three.nodes.remove(&leader).expect("it runs").stop().expect("a clean end");
    // Somebody else leads the group now, and whoever follows hears of it.
    let heard = std::iter::from_fn(|| roles.wait(PATIENCE)).find(|change| {
        let change = change.as_ref().expect("not slow");
        change.group == GROUP && change.leader.is_some_and(|node| node.0 != leader)
    });
    assert!(heard.is_some());
}

#[test]
fn a_tail_goes_back_to_what_is_on_disk_and_hears_where_the_log_begins() {
    let dir = TestDir::new("embedded-slow");
    let small = Config {
        log_cache_bytes: 8 << 20,
        log_bytes: 256 << 20,
        groups: 2,
        ..Config::new(1, dir.path(), free_address())
    };
    let node = Node::start(small, |_| Sum::boxed(0)).expect("it starts");
    assert!(node.wait_until_ready(PATIENCE));
    let client = node.client();
    let mut slow = client.tail(GROUP, None).expect("there is room");
    let first = client.write(GROUP, "first").wait().expect("executed");
    assert_eq!(first, Reply::Int(5));
    // Far more than a tail holds and than the log keeps in memory: two segments are sealed.
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    for _ in 0..150 {
        client.write(GROUP, large.clone()).wait().expect("executed");
    }
    let next = |tail: &mut Tail| tail.wait(PATIENCE).expect("in time").map(|it| it.id.index);
    let begin = next(&mut slow).expect("no end");
    for index in 1..=150 {
        assert_eq!(next(&mut slow), Ok(Index(begin.0 + index)), "each once, in order");
    }
    assert_eq!(slow.wait(Duration::ZERO), None, "and goes on from there");
    client.write(GROUP, "last").wait().expect("executed");
    assert_eq!(next(&mut slow), Ok(Index(begin.0 + 151)));
    let mut old = client.tail(GROUP, Some(Index(1))).expect("there is room");
    assert_eq!(next(&mut old), Ok(begin), "an old index can be had");

    // The log is cut in front of what the old tail wants: a snapshot stands for it.
    let cut = |client: &Client| {
        let mut tail = client.tail(GROUP, Some(Index(1))).expect("there is room");
        tail.wait(PATIENCE).expect("in time").err()
    };
    let mut end = None;
    for _ in 0..300 {
        client.write(GROUP, large.clone()).wait().expect("executed");
        end = cut(&client);
        if end.is_some() {
            break;
        }
    }
    let Some(TailEnd::Lagged { missed, resume }) = end else { panic!("never cut: {end:?}") };
    assert_eq!(missed, Index(1));
    assert!(Index(50) < resume, "a segment went: {resume}");
    let mut tail = client.tail(GROUP, Some(resume)).expect("there is room");
    assert_eq!(next(&mut tail), Ok(resume), "the first there is");
    let ends = std::iter::from_fn(|| Some(next(&mut old))).find_map(Result::err);
    assert!(matches!(ends, Some(TailEnd::Lagged { missed, .. }) if missed < resume), "{ends:?}");
    let again = old.wait(PATIENCE).expect("in time").map(|it| it.id.index);
    assert_eq!(again, Err(ends.expect("it ended")), "it says the same from then on");
    node.stop().expect("a clean end");
}

#[test]
fn commands_of_operators_need_no_client_port() {
    let dir = TestDir::new("embedded-command");
    let config = Config::new(1, dir.path(), free_address());
    let node =
        Node::start(config, |_| Box::new(outrigger::store::map::Map::new())).expect("starts");
    assert_eq!(node.client_port(), None);
    assert!(node.wait_until_ready(PATIENCE));
    let client = node.client();
    assert_eq!(client.command(&["SET", "k", "v"]).wait(), Ok(Reply::Ok));
    assert_eq!(client.command(&["GET", "k"]).wait(), Ok(Reply::bulk("v")));
    assert!(client.command(&["MEMBER", "LIST"]).wait().is_ok());
    let wrong = client.command(&["NOSUCH"]).wait().expect_err("no such command");
    assert_eq!(wrong.why(), Some(Why::Invalid));
    let none = client.command::<&str>(&[]).wait().expect_err("no command");
    assert_eq!(none.why(), Some(Why::Invalid));
    node.stop().expect("a clean end");
}

#[test]
fn two_nodes_cannot_share_a_directory_and_one_can_come_back_to_it() {
    let dir = TestDir::new("embedded-lock");
    let config = || Config::new(1, dir.path(), free_address());
    let node = Node::start(config(), |_| Sum::boxed(0)).expect("it starts");
    let second = Node::start(config(), |_| Sum::boxed(0)).expect_err("it is in use");
    assert!(second.to_string().contains("in use"), "{second}");
    node.stop().expect("a clean end");
    let again = Node::start(config(), |_| Sum::boxed(0)).expect("nobody uses it any more");
    again.stop().expect("a clean end");
    let wrong = Config { cores: 0, ..config() };
    let refused = Node::start(wrong, |_| Sum::boxed(0)).expect_err("no core");
    assert_eq!(refused.to_string(), "`cores` is 0, but must be from 1 to 256");
}

/// A machine that nobody should have written.
struct Panics;

impl StateMachine for Panics {
    fn apply(&mut self, _: Index, payload: &Bytes, _: Wanted) -> Reply {
        assert_ne!(payload, "panic", "as it was asked");
        Reply::Ok
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
        whole::restoring(|_| Some(Box::new(Panics)))
    }
}

#[test]
fn a_core_that_dies_answers_its_calls_and_the_node_says_why() {
    let dir = TestDir::new("embedded-panic");
    let config = Config { cores: 2, groups: 2, ..Config::new(1, dir.path(), free_address()) };
    let node = Node::start(config, |_| Box::new(Panics)).expect("it starts");
    assert!(node.wait_until_ready(PATIENCE));
    let client = node.client();
    let calls: Vec<_> = (0..100).map(|_| client.write(GROUP, "panic")).collect();
    let outcomes: Vec<_> =
        calls.into_iter().map(|call| call.wait_for(PATIENCE).expect("answered")).collect();
    assert!(matches!(outcomes[0], Err(Failure::Unknown { .. })), "{:?}", outcomes[0]);
    assert!(outcomes.iter().all(Result::is_err));
    assert_eq!(hear(client.write(GROUP, "x")).expect_err("dead").why(), Some(Why::Stopped));
    assert_eq!(client.write(GroupId(0), "x").wait(), Ok(Reply::Ok), "the other core lives");
    let status = client.status(GROUP).expect("there is such a group");
    assert_eq!((status.role, status.leader), (RoleKind::Follower, None), "it leads no more");
    assert!(!status.leader_ready && client.status(GroupId(0)).expect("likewise").leader_ready);
    let joined = node.join().expect_err("a core died");
    assert_eq!(node.join(), Err(joined.clone()), "each time it is asked");
    let cause = node.stop().expect_err("a core died");
    assert_eq!(cause, joined);
    assert!(cause.to_string().contains("core 1 panicked"), "{cause}");
}

#[test]
fn a_node_that_is_dropped_takes_its_ports_and_its_directory_with_it() {
    let dir = TestDir::new("embedded-dropped");
    let [client, admin] = [free_address(), free_address()].map(Some);
    let config = Config { client, admin, ..Config::new(1, dir.path(), free_address()) };
    let node = Node::start(config.clone(), |_| Sum::boxed(0)).expect("it starts");
    assert!(node.wait_until_ready(PATIENCE));
    let (calls, admin) = (node.client(), node.admin().expect("there is one"));
    TcpStream::connect(admin).expect("somebody listens");
    drop(node);
    let refused = TcpStream::connect(admin).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused), "it has ended by then");
    // The cores were told to stop, and nobody has waited for them.
    wait_for("calls hear so", || {
        (hear(calls.read(GROUP, "")).err()?.why() == Some(Why::Stopped)).then_some(())
    });
    let again = || Node::start(config.clone(), |_| Sum::boxed(0)).ok();
    let node = wait_for("directory and ports are free", again);
    assert_eq!(node.admin(), Some(admin));
    node.stop().expect("a clean end");
}

/// Executes one entry a turn; some it cannot execute.
struct Stops(u64);

impl StateMachine for Stops {
    fn apply_batch(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop> {
        let Some(entry) = batch.next_entry() else { return Ok(()) };
        match &entry.payload[..] {
            b"group" => return Err(Stop::Group("its table is full".into())),
            b"node" => return Err(Stop::Node("its disk is gone".into())),
            _ => self.0 += 1,
        }
        batch.answer(Reply::Int(self.0 as i64));
        Ok(())
    }
    fn apply(&mut self, _: Index, _: &Bytes, _: Wanted) -> Reply {
        unreachable!("the core calls `apply_batch`")
    }
    fn read(&self, _: &Bytes) -> Reply {
        Reply::Int(self.0 as i64)
    }
    fn digest(&self) -> u64 {
        self.0
    }
    fn len(&self) -> u64 {
        1
    }
    fn freeze(&self) -> Box<dyn Frozen> {
        whole::frozen(self.0.to_le_bytes().to_vec())
    }
    fn restoring(&self) -> Box<dyn Restoring> {
        whole::restoring(|bytes| Some(Box::new(Stops(u64::from_le_bytes(bytes.try_into().ok()?)))))
    }
}

#[test]
fn a_machine_that_cannot_go_on_stops_its_group_or_its_node_and_says_why() {
    let dir = TestDir::new("embedded-stops");
    let config = Config { groups: 3, ..Config::new(1, dir.path(), free_address()) };
    let node = Node::start(config.clone(), |_| Box::new(Stops(0))).expect("it starts");
    assert!(node.wait_until_ready(PATIENCE));
    let client = node.client();
    let calls: Vec<_> = (0..100).map(|_| client.write(GROUP, "x")).collect();
    for (number, call) in (1..).zip(calls) {
        let outcome = call.wait_for(PATIENCE).expect("answered");
        assert_eq!(outcome, Ok(Reply::Int(number)), "one a turn, however many are committed");
    }
    let mut roles = client.roles();
    let mut tail = client.tail(GROUP, Some(Index(1))).expect("there is room");
    let unknown = hear(client.write(GROUP, "group")).expect_err("not executed");
    assert!(matches!(unknown, Failure::Unknown { .. }), "{unknown}");
    let change = roles.wait(PATIENCE).expect("in time").expect("not slow");
    assert_eq!((change.group, change.role, change.leader), (GROUP, RoleKind::Follower, None));
    let status = client.status(GROUP).expect("there is such a group");
    assert!(status.failed && status.applied < status.commit, "{status:?}");
    let told = || tail.wait(PATIENCE).expect("in time").map(|change| change.payload);
    let told: Vec<_> = std::iter::repeat_with(told).take(101).collect();
    assert!(told[..100].iter().all(|payload| *payload == Ok(Bytes::from("x"))));
    assert_eq!(told[100], Err(TailEnd::Failed), "what was executed, and that there is no more");
    let refused = hear(client.write(GROUP, "x")).expect_err("nobody leads it");
    assert_eq!(refused.why(), Some(Why::NoLeader));
    assert_eq!(hear(client.write(GroupId(0), "x")), Ok(Reply::Int(1)), "other groups go on");
    assert!(!client.status(GroupId(0)).expect("there is such a group").failed);

    // It is in the log, so a node that starts again finds it; and still only this group stops.
    node.stop().expect("a clean end");
    let node = Node::start(config.clone(), |_| Box::new(Stops(0))).expect("it starts");
    let client = node.client();
    assert_eq!(insist(|| client.read(GroupId(0), "")), Reply::Int(1));
    assert!(client.status(GROUP).expect("there is such a group").failed);

    let unknown = hear(client.write(GroupId(2), "node")).expect_err("not executed");
    assert!(matches!(unknown, Failure::Unknown { .. }), "{unknown}");
    let cause = node.join().expect_err("it ended").to_string();
    assert!(cause.contains("group 2") && cause.contains("its disk is gone"), "{cause}");
    let error = Node::start(config, |_| Box::new(Stops(0))).map(|node| node.join());
    let told = match error {
        Err(error) => error.to_string(),
        Ok(joined) => joined.expect_err("it does not come up").to_string(),
    };
    assert!(told.contains("its disk is gone"), "{told}");
}
