//! `SLOWLOG`: the operations that took longest, each with where its time went.
//!
//! The core that leads a group keeps them, in memory and bounded: writes with every stage of their commit,
//! reads with how long they waited for their leadership to be confirmed and for what they must see. A command
//! that came in at another node is kept there as well, with how long the way to the leader and back took.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::entry::{Entry, EntryKind};
use crate::group::SessionRequest;
use crate::id::{GroupId, Index, Micros, NodeId, ShardId, UnixMs};
use crate::limits::{SLOW_ARG_BYTES_MAX, SLOW_ARGS_MAX, SLOW_OPS_MAX, SLOW_OPS_OF_TURN_MAX};
use crate::store::acl;
use crate::store::slow::{Call, HELP};
use crate::store::stamp;
use crate::wire::reply::Reply;
use crate::wire::resp::Command;

use super::forward::Forwarded;
use super::report::ShardReport;
use super::stages::{Commit, Stage};

/// Numbers begin with the time, so that cores need not agree on them; with this many for each ms they stay below 2^53.
const IDS_PER_MS: u64 = 16;

/// One operation that took long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowOp {
    /// Its number; no two of a node have the same, and what ended later has a larger one, whatever its core, to the ms.
    pub id: u64,
    /// When it ended, by this node's clock.
    pub at: UnixMs,
    /// How long it took, in µs.
    pub us: u64,
    /// The command, its long arguments and long tails cut.
    pub args: Vec<Bytes>,
    /// The group that executed it.
    pub group: GroupId,
    /// The node that it was sent on to, if this one does not lead the group.
    pub forwarded_to: Option<NodeId>,
    /// Its entry; none for a read, nor for what was sent on.
    pub index: Option<Index>,
    /// The longest stage on the way to the completion that set the time, and where it was; none where there is no entry.
    pub set_by: Option<(NodeId, Stage)>,
    /// The stages that took any time, in the order of the path: the node, the stage, µs.
    pub trace: Vec<(NodeId, &'static str, u32)>,
}

/// The answer, from the reports of all cores.
pub(super) fn reply(call: Call, reports: Vec<ShardReport>) -> Reply {
    let mut ops: Vec<SlowOp> = reports.into_iter().flat_map(|report| report.slow).collect();
    match call {
        Call::Len => Reply::Int(ops.len() as i64),
        Call::Reset => Reply::Ok,
        Call::Help => Reply::Array(HELP.iter().map(Reply::bulk).collect()),
        Call::Get(count) => {
            ops.sort_by_key(|op| std::cmp::Reverse(op.id));
            Reply::Array(ops.into_iter().take(count).map(SlowOp::reply).collect())
        }
    }
}

impl SlowOp {
    /// As Redis tells it (number, second, µs, arguments, client's address and name, which a leader does not
    /// know), and what it does not: the trace.
    fn reply(self) -> Reply {
        let mut trace = vec![match (self.index, self.forwarded_to) {
            (Some(index), _) => format!("group {} index {index}", self.group),
            (None, Some(node)) => format!("group {} forwarded to node {node}", self.group),
            (None, None) => format!("group {} read", self.group),
        }];
        let set_by =
            self.set_by.map(|(node, stage)| format!("set by node {node}: {}", stage.name()));
        trace.extend(set_by);
        trace.extend(
            self.trace.iter().map(|(node, stage, us)| format!("node {node} {stage} {us} us")),
        );
        Reply::Array(vec![
            Reply::Int(self.id as i64),
            Reply::Int((self.at.0 / 1000) as i64),
            Reply::Int(self.us as i64),
            Reply::Array(self.args.into_iter().map(Reply::Bulk).collect()),
            Reply::bulk(""),
            Reply::bulk(""),
            Reply::Array(trace.into_iter().map(|line| Reply::Bulk(line.into())).collect()),
        ])
    }
}

/// The slow operations of one core.
#[derive(Debug)]
pub(super) struct Slowlog {
    node: NodeId,
    shard: ShardId,
    cores: u16,
    /// What takes as long is slow, in µs; none if nothing is.
    after_us: Option<u64>,
    ops: VecDeque<SlowOp>,
    /// The number of the next one among those of this core.
    next: u64,
}

impl Slowlog {
    pub(super) fn new(node: NodeId, shard: ShardId, cores: u16) -> Self {
        Self { node, shard, cores, after_us: None, ops: VecDeque::new(), next: 0 }
    }

    pub(super) fn slow_after(&mut self, us: u64) {
        self.after_us = Some(us);
    }

    fn is_slow(&self, us: u64) -> bool {
        self.after_us.is_some_and(|after| after <= us)
    }

    /// A commit was explained. `entry` finds what is still in memory of it.
    pub(super) fn on_commit<'a>(
        &mut self,
        commit: &Commit,
        wall: UnixMs,
        entry: impl Fn(Index) -> Option<&'a Entry>,
    ) {
        if !self.is_slow(commit.us.into()) {
            return;
        }
        let last = commit.last.0.min(commit.first.0 + SLOW_OPS_OF_TURN_MAX - 1);
        for index in (commit.first.0..=last).map(Index) {
            let Some(entry) = entry(index) else { continue };
            let node_of = |stage: Stage| {
                if stage.is_of_follower() { commit.set_by } else { self.node }
            };
            let stages = Stage::ALL.into_iter().map(|stage| (stage, commit.times[stage as usize]));
            let trace = stages
                .filter(|(_, us)| 0 < *us)
                .map(|(stage, us)| (node_of(stage), stage.name(), us))
                .collect();
            self.push(SlowOp {
                id: 0,
                at: wall,
                us: commit.us.into(),
                args: arguments(entry),
                group: commit.group,
                forwarded_to: None,
                index: Some(index),
                set_by: Some((commit.set_at, commit.stage)),
                trace,
            });
        }
    }

    /// A read took so many ms.
    pub(super) fn on_read(&mut self, group: GroupId, ms: u64, body: &Bytes, wall: UnixMs) {
        let us = ms * 1000;
        if self.is_slow(us) {
            let waited = u32::try_from(us).unwrap_or(u32::MAX);
            let trace = vec![(self.node, "confirmation and what it must see", waited)];
            let args = parts(body);
            self.push(SlowOp {
                id: 0,
                at: wall,
                us,
                args,
                group,
                forwarded_to: None,
                index: None,
                set_by: None,
                trace,
            });
        }
    }

    /// The answer to a command that was sent on was heard.
    pub(super) fn on_forward(&mut self, forwarded: &Forwarded, heard: Micros, wall: UnixMs) {
        let Forwarded { to, group, arrival, sent, ref body, .. } = *forwarded;
        let us = heard.since(arrival.received);
        if !self.is_slow(us.into()) {
            return;
        }
        let stages = [
            (self.node, Stage::Queue.name(), arrival.taken.since(arrival.received)),
            (self.node, Stage::PickUp.name(), sent.since(arrival.taken)),
            (to, "forward", heard.since(sent)),
        ];
        self.push(SlowOp {
            id: 0,
            at: wall,
            us: us.into(),
            args: parts(body),
            group,
            forwarded_to: Some(to),
            index: None,
            set_by: None,
            trace: stages.into_iter().filter(|(.., us)| 0 < *us).collect(),
        });
    }

    fn push(&mut self, op: SlowOp) {
        if self.ops.len() == SLOW_OPS_MAX {
            self.ops.pop_front();
        }
        self.next = self.next.max(op.at.0 * IDS_PER_MS);
        let id = self.next * u64::from(self.cores) + u64::from(self.shard.0);
        self.next += 1;
        self.ops.push_back(SlowOp { id, ..op });
    }

    pub(super) fn ops(&self) -> impl Iterator<Item = &SlowOp> {
        self.ops.iter()
    }

    pub(super) fn reset(&mut self) {
        self.ops.clear();
    }
}

/// The command in an entry.
fn arguments(entry: &Entry) -> Vec<Bytes> {
    let body = match entry.kind {
        EntryKind::Session => SessionRequest::parse(&entry.payload).map(|(_, body)| body),
        _ => Some(entry.payload.clone()),
    };
    parts(&stamp::read(&body.unwrap_or_default()).1)
}

/// The arguments of a command, cut; of anything else its beginning. Copies, so that no receive buffer is kept.
fn parts(body: &Bytes) -> Vec<Bytes> {
    let Ok(command) = Command::parse(body.clone()) else { return vec![cut(body)] };
    let count = command.len();
    if acl::is_acl(&command) && 3 < count {
        // The rules of a user have passwords in them, if only their digests.
        let shown = command.args().take(3).map(cut);
        return shown.chain([Bytes::from_static(b"(redacted)")]).collect();
    }
    if count <= SLOW_ARGS_MAX {
        return command.args().map(cut).collect();
    }
    let mut args: Vec<Bytes> = command.args().take(SLOW_ARGS_MAX - 1).map(cut).collect();
    args.push(format!("... ({} more arguments)", count - args.len()).into());
    args
}

fn cut(arg: &[u8]) -> Bytes {
    match arg.len().checked_sub(SLOW_ARG_BYTES_MAX) {
        None | Some(0) => Bytes::copy_from_slice(arg),
        Some(more) => {
            let mut shown = arg[..SLOW_ARG_BYTES_MAX].to_vec();
            shown.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
            shown.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::stages::StageTimes;

    fn log() -> Slowlog {
        let mut log = Slowlog::new(NodeId(1), ShardId(1), 2);
        log.slow_after(1_000);
        log
    }

    fn commit(first: u64, last: u64, us: u32) -> Commit {
        let mut times = StageTimes::default();
        (times[Stage::Send as usize], times[Stage::FollowerFlush as usize]) = (40, us - 60);
        Commit {
            group: GroupId(5),
            first: Index(first),
            last: Index(last),
            commands: (last - first + 1) as u32,
            us,
            times,
            set_by: NodeId(3),
            stage: Stage::FollowerFlush,
            set_at: NodeId(3),
        }
    }

    fn entry(args: &[&[u8]]) -> Entry {
        Entry::command(Command::from_args(args).raw)
    }

    #[test]
    fn a_slow_write_is_told_with_its_command_and_its_trace_and_a_fast_one_is_not() {
        let mut log = log();
        let set = entry(&[b"SET", b"k", &[b'v'; SLOW_ARG_BYTES_MAX + 3]]);
        log.on_commit(&commit(7, 7, 999), UnixMs(5_000), |_| Some(&set));
        assert_eq!(log.ops().count(), 0);
        log.on_commit(&commit(8, 8, 1_000), UnixMs(5_000), |_| Some(&set));
        let op = log.ops().next().expect("slow").clone();
        let id = 5_000 * IDS_PER_MS * 2 + 1;
        assert_eq!((op.id, op.us, op.index), (id, 1_000, Some(Index(8))));
        assert_eq!(op.trace, [(NodeId(1), "send", 40), (NodeId(3), "follower_flush", 940)]);
        assert_eq!((&op.args[0][..], &op.args[1][..]), (&b"SET"[..], &b"k"[..]));
        assert!(op.args[2].ends_with(b"v... (3 more bytes)"), "{:?}", op.args[2]);
        let Reply::Array(parts) = op.reply() else { panic!("an array") };
        let lines = ["group 5 index 8", "set by node 3: follower_flush"];
        let Reply::Array(trace) = &parts[6] else { panic!("the trace") };
        assert_eq!(trace[..2], lines.map(Reply::bulk));
        assert_eq!(parts[1..3], [Reply::Int(5), Reply::Int(1_000)]);
    }

    #[test]
    fn it_is_bounded_the_oldest_goes_and_numbers_go_on() {
        let mut log = log();
        let set = entry(&[b"SET", b"k", b"v"]);
        for index in 0..2 * SLOW_OPS_MAX as u64 {
            log.on_commit(&commit(index, index, 2_000), UnixMs(index), |_| Some(&set));
        }
        assert_eq!(log.ops().count(), SLOW_OPS_MAX);
        assert_eq!(log.ops().next().map(|op| op.at), Some(UnixMs(SLOW_OPS_MAX as u64)));
        log.reset();
        log.on_commit(&commit(1, 100, 2_000), UnixMs(0), |_| Some(&set));
        assert_eq!(log.ops().count() as u64, SLOW_OPS_OF_TURN_MAX, "one turn does not fill it");
        let last = (2 * SLOW_OPS_MAX as u64 - 1) * IDS_PER_MS;
        let ids = log.ops().map(|op| op.id);
        let expected = (1..=SLOW_OPS_OF_TURN_MAX).map(|more| (last + more) * 2 + 1);
        assert!(ids.eq(expected), "they go on though the clock has gone back");
    }

    #[test]
    fn a_slow_read_and_long_commands_and_what_is_no_command() {
        let mut log = log();
        let get = Command::from_args(&[b"GET", b"k"]).raw;
        log.on_read(GroupId(2), 0, &get, UnixMs(1));
        log.on_read(GroupId(2), 30, &get, UnixMs(1));
        assert_eq!(log.ops().map(|op| (op.us, op.index)).collect::<Vec<_>>(), [(30_000, None)]);
        let many: Vec<&[u8]> = std::iter::repeat_n(&b"x"[..], SLOW_ARGS_MAX + 5).collect();
        let args = arguments(&entry(&many));
        assert_eq!(
            (args.len(), &args[SLOW_ARGS_MAX - 1][..]),
            (SLOW_ARGS_MAX, &b"... (6 more arguments)"[..])
        );
        assert_eq!(arguments(&Entry::command(Bytes::from_static(b"\x01own"))), [&b"\x01own"[..]]);
        let rules = entry(&[b"ACL", b"SETUSER", b"u", b"#5e88", b"on"]);
        assert_eq!(arguments(&rules), [&b"ACL"[..], b"SETUSER", b"u", b"(redacted)"]);
    }
}
