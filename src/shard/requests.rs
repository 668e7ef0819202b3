//! Requests of this core's own connections: each is one or more parts (a group, or a core, each),
//! and is answered once — with the merged result, or when its time is up.

use std::collections::VecDeque;

use crate::group::{PartId, refusal};
use crate::id::{ConnId, Tick};
use crate::limits;
use crate::store::cluster::Call;
use crate::store::slow;
use crate::store::split::Merge;
use crate::wire::reply::Reply;

use super::event::{About, ReplyTo};
use super::report::{GroupReport, ShardReport, info_text, node_digest};
use super::topology::{self, Addresses};

/// How the parts of a request become its reply.
#[derive(Debug)]
pub(super) enum Whole {
    /// One part, whose reply is the reply.
    One,
    /// Several groups, merged by the command's own rule.
    Merged(Merge),
    /// All cores, shown as `INFO`, of this section.
    Info(Vec<Vec<u8>>),
    /// All cores, shown as `DEBUG DIGEST`.
    Digest,
    /// All cores, shown as `CLUSTER` does, with where clients reach the nodes.
    Cluster(Call, Box<Addresses>),
    /// All cores have handed over what they led.
    Drain,
    /// All cores, shown as `SLOWLOG` does.
    Slowlog(slow::Call),
}

impl Whole {
    /// What the cores are asked about for it.
    pub(super) fn about(&self) -> About {
        match self {
            Self::Digest => About::Digest,
            Self::Slowlog(slow::Call::Reset) => About::Forgetting,
            Self::Slowlog(_) => About::Slow,
            _ => About::Itself,
        }
    }
}

/// What one part came back with.
#[derive(Debug)]
pub(super) enum PartAnswer {
    Reply(Reply),
    Report(Box<ShardReport>),
}

impl PartAnswer {
    /// About what it holds in memory beside its place.
    fn bytes(&self) -> usize {
        match self {
            Self::Reply(reply) => reply.bytes(),
            Self::Report(report) => {
                size_of::<ShardReport>() + report.groups.len() * size_of::<GroupReport>()
            }
        }
    }
}

#[derive(Debug)]
struct Open {
    conn: ConnId,
    seq: u64,
    write: bool,
    redirects: bool,
    bytes: usize,
    whole: Whole,
    missing: u32,
    parts: Vec<Option<PartAnswer>>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    open: Option<Open>,
}

/// One per shard; bounded by `limits::REQUESTS_MAX` and `limits::REQUEST_BYTES_MAX`.
#[derive(Debug, Default)]
pub(super) struct Requests {
    slots: Vec<Slot>,
    free: Vec<u32>,
    bytes: usize,
    /// Deadlines in the order of arrival, which is their own order: all requests have one timeout.
    deadlines: VecDeque<(Tick, u64)>,
    /// Writes that were refused, or whose outcome is unknown, since the last look.
    writes_failed: u64,
}

/// A request to be opened.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) conn: ConnId,
    pub(super) seq: u64,
    /// An unknown outcome matters: it may change data.
    pub(super) write: bool,
    /// It came from a cluster client.
    pub(super) redirects: bool,
    /// The command's own bytes.
    pub(super) bytes: usize,
    pub(super) whole: Whole,
    pub(super) parts: u32,
    /// The largest tick: its parts end by themselves.
    pub(super) deadline: Tick,
}

impl Opening {
    /// Places for answers that wait for their siblings; a single part needs none.
    fn places(&self) -> usize {
        if self.parts > 1 || !matches!(self.whole, Whole::One) { self.parts as usize } else { 0 }
    }

    /// What the request holds in memory: its own bytes, once more as its parts, and a place for
    /// the answer of each. A command over thousands of groups is mostly the latter.
    fn held(&self) -> usize {
        2 * self.bytes + size_of::<Open>() + self.places() * size_of::<Option<PartAnswer>>()
    }
}

impl Requests {
    /// Whether this request may be opened.
    pub(super) fn has_room(&self, opening: &Opening) -> bool {
        self.slots.len() - self.free.len() < limits::REQUESTS_MAX
            && self.bytes + opening.held() <= limits::REQUEST_BYTES_MAX
    }

    /// Opens a request; its id names its parts.
    pub(super) fn open(&mut self, opening: Opening) -> u64 {
        let (bytes, places) = (opening.held(), opening.places());
        let Opening { conn, seq, write, redirects, whole, parts, deadline, .. } = opening;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.open = Some(Open {
            conn,
            seq,
            write,
            redirects,
            bytes,
            whole,
            missing: parts,
            parts: (0..places).map(|_| None).collect(),
        });
        self.bytes += bytes;
        let id = (u64::from(slot.generation) << 32) | u64::from(index);
        // Whoever needs longer than the others ends by itself.
        if deadline < Tick(u64::MAX) {
            self.deadlines.push_back((deadline, id));
        }
        id
    }

    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut((id & 0xffff_ffff) as usize)?;
        (slot.generation == (id >> 32) as u32).then_some(slot)
    }

    fn close(&mut self, id: u64) -> Option<Open> {
        let open = self.slot(id)?.open.take()?;
        self.free.push((id & 0xffff_ffff) as u32);
        self.bytes -= open.bytes;
        Some(open)
    }

    /// A part came back. Yields the reply if it was the last; a part of a request that was
    /// answered before is ignored.
    pub(super) fn answer(&mut self, part: PartId, answer: PartAnswer) -> Option<ReplyTo> {
        let open = self.slot(part.request)?.open.as_mut()?;
        let mut single = None;
        if open.parts.is_empty() {
            single = Some(answer);
        } else {
            let place = open.parts.get_mut(part.part as usize)?;
            if place.is_some() {
                return None;
            }
            // What waits for its siblings is held as the request is.
            let bytes = answer.bytes();
            *place = Some(answer);
            open.bytes += bytes;
            open.missing -= 1;
            let missing = open.missing;
            self.bytes += bytes;
            if missing > 0 {
                return None;
            }
        }
        let open = self.close(part.request)?;
        let (conn, seq, redirects, write) = (open.conn, open.seq, open.redirects, open.write);
        let reply = match single {
            Some(PartAnswer::Reply(reply)) => reply,
            Some(PartAnswer::Report(_)) => {
                Reply::error("ERR", "internal: a report nobody asked for")
            }
            None => whole(open),
        };
        self.writes_failed += u64::from(write && refusal::is_refusal(&reply));
        Some(ReplyTo { conn, seq, reply: worded(redirects, reply) })
    }

    /// Requests whose time is up are answered with what is known: nothing.
    pub(super) fn expire(&mut self, now: Tick, replies: &mut Vec<ReplyTo>) {
        while let Some(&(deadline, id)) = self.deadlines.front() {
            let is_open = self.slot(id).is_some_and(|slot| slot.open.is_some());
            if is_open && deadline > now {
                return;
            }
            self.deadlines.pop_front();
            let Some(open) = self.close(id) else { continue };
            let reply = if open.write {
                self.writes_failed += 1;
                refusal::uncertain("no answer within the request timeout")
            } else {
                refusal::read_unconfirmed()
            };
            let reply = worded(open.redirects, reply);
            replies.push(ReplyTo { conn: open.conn, seq: open.seq, reply });
        }
    }

    /// Writes that were refused, or whose outcome is unknown, since the last call.
    pub(super) fn take_writes_failed(&mut self) -> u64 {
        std::mem::take(&mut self.writes_failed)
    }

    /// When the next request may expire.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }
}

/// The reply in the words of whoever hears it.
fn worded(redirects: bool, reply: Reply) -> Reply {
    if redirects { refusal::for_cluster_clients(reply) } else { reply }
}

fn whole(open: Open) -> Reply {
    let mut replies = Vec::new();
    let mut reports = Vec::new();
    for part in open.parts.into_iter().flatten() {
        match part {
            PartAnswer::Reply(reply) => replies.push(reply),
            PartAnswer::Report(report) => reports.push(*report),
        }
    }
    let of_cores = matches!(
        open.whole,
        Whole::Info(_) | Whole::Digest | Whole::Cluster(..) | Whole::Slowlog(_)
    );
    if let Some(refused) = replies.pop_if(|_| of_cores) {
        // A core that does not tell leaves a hole; half a digest is a wrong one.
        return refused;
    }
    match open.whole {
        Whole::Info(sections) => Reply::Verbatim(info_text(&reports, &sections)),
        Whole::Cluster(call, addresses) => topology::reply(call, &reports, &addresses),
        Whole::Slowlog(call) => super::slowlog::reply(call, reports),
        Whole::Drain => super::drain::merged(replies),
        Whole::Digest => Reply::Bulk(format!("{:016x}", node_digest(&reports)).into()),
        Whole::One => replies.pop().unwrap_or(Reply::Nil),
        Whole::Merged(merge) => {
            let parts = replies.len();
            if !replies.iter().any(Reply::is_error) {
                return merge.finish(replies);
            }
            replies.retain(Reply::is_error);
            // Of the errors, the one that promises least decides.
            let least = replies.iter().position(Reply::is_uncertain).unwrap_or(0);
            let error = replies.swap_remove(least);
            if open.write && replies.len() + 1 < parts {
                // Some groups executed their part: "not executed" would be a lie.
                return refusal::uncertain(&format!(
                    "some keys were written and others refused ({})",
                    error.error_text()
                ));
            }
            error
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reply to a command over three groups that answered so.
    fn merged(write: bool, merge: Merge, replies: [Reply; 3]) -> Reply {
        let mut requests = Requests::default();
        let request = requests.open(Opening {
            conn: ConnId(1),
            seq: 1,
            write,
            redirects: false,
            bytes: 10,
            whole: Whole::Merged(merge),
            parts: 3,
            deadline: Tick(100),
        });
        let mut heard = None;
        for (part, reply) in (0..).zip(replies) {
            assert!(heard.is_none(), "answered before its last part");
            heard = requests.answer(PartId { request, part }, PartAnswer::Reply(reply));
        }
        assert!(requests.slots[0].open.is_none(), "what is answered is closed");
        heard.expect("the last part answers").reply
    }

    fn no_leader() -> Reply {
        refusal::no_leader(crate::id::GroupId(1))
    }

    #[test]
    fn a_read_that_one_group_refused_is_refused_whole() {
        for merge in [Merge::Sum, Merge::Scatter(vec![vec![0], vec![1], vec![2]])] {
            let replies = [Reply::Int(5), no_leader(), Reply::Int(7)];
            assert_eq!(merged(false, merge, replies), no_leader());
        }
        assert_eq!(merged(false, Merge::Sum, [1, 2, 4].map(Reply::Int)), Reply::Int(7));
    }

    #[test]
    fn a_write_that_one_group_refused_and_another_took_is_uncertain() {
        let reply = merged(true, Merge::AllOk, [Reply::Ok, no_leader(), Reply::Ok]);
        assert!(reply.is_uncertain(), "{reply:?}");
        assert!(reply.error_text().contains("NOLEADER"), "{reply:?}");
        let all = merged(true, Merge::AllOk, [no_leader(), no_leader(), no_leader()]);
        assert_eq!(all, no_leader(), "nobody executed anything");
    }

    #[test]
    fn a_write_has_failed_if_it_was_refused_and_not_if_its_result_is_an_error() {
        let result = Reply::error("WRONGTYPE", "not a string");
        for (write, reply, failed) in [
            (true, no_leader(), 1),
            (true, refusal::for_cluster_clients(no_leader()), 1),
            (true, refusal::busy("full"), 1),
            (true, refusal::full(), 1),
            (true, refusal::uncertain("lost"), 1),
            (true, result.clone(), 0),
            (true, Reply::Ok, 0),
            (false, no_leader(), 0),
        ] {
            let mut requests = Requests::default();
            let request = requests.open(Opening {
                conn: ConnId(1),
                seq: 1,
                write,
                redirects: false,
                bytes: 10,
                whole: Whole::One,
                parts: 1,
                deadline: Tick(100),
            });
            requests.answer(PartId { request, part: 0 }, PartAnswer::Reply(reply.clone()));
            assert_eq!(requests.take_writes_failed(), failed, "{write} {reply:?}");
        }
    }

    #[test]
    fn of_several_errors_the_one_that_promises_least_decides() {
        let uncertain = refusal::uncertain("lost");
        let replies = [no_leader(), uncertain.clone(), no_leader()];
        assert_eq!(merged(true, Merge::Sum, replies), uncertain);
    }

    #[test]
    fn when_time_is_up_a_write_is_uncertain_and_a_read_is_not() {
        let mut requests = Requests::default();
        for (seq, write) in [(1, true), (2, false)] {
            requests.open(Opening {
                conn: ConnId(1),
                seq,
                write,
                redirects: false,
                bytes: 10,
                whole: Whole::One,
                parts: 1,
                deadline: Tick(100),
            });
        }
        let mut replies = Vec::new();
        requests.expire(Tick(99), &mut replies);
        assert!(replies.is_empty());
        requests.expire(Tick(100), &mut replies);
        assert!(replies[0].reply.is_uncertain());
        assert_eq!(replies[1].reply, refusal::read_unconfirmed());
        assert_eq!(requests.take_writes_failed(), 1, "the write, not the read");
        assert_eq!((replies.len(), requests.bytes), (2, 0));
    }
}
