//! What the machines of one embedded world did, and whether it fits together.
//!
//! Every machine is wrapped: the wrapper takes the harness's own number off the front of a command, hands
//! the rest to the embedder's machine, and writes down what happened. So every command is known by its
//! number, wherever it is executed, and the order of the log is known, which makes the question whether
//! there is *some* order that explains all replies a question about this one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Buf as _, Bytes};

use crate::id::{GroupId, Index};
use crate::store::batch::{Batch, Committed, Source, Stop};
use crate::store::{Frozen, RestoreError, Restoring, StateMachine, Wanted};
use crate::wire::reply::Reply;

use super::embed::Machines;
use super::safety::Checked;

/// Bytes of the harness's number in front of a command.
pub(super) const NUMBER_BYTES: usize = 8;

/// One command or read of a client.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) group: GroupId,
    pub(super) called: u64,
    /// `u64::MAX` if its client never heard a result.
    pub(super) returned: u64,
    pub(super) reply: Option<Reply>,
    /// It was refused: it must not have been executed.
    pub(super) refused: bool,
}

#[derive(Debug)]
struct Executed {
    group: GroupId,
    index: Index,
    reply: Option<Reply>,
}

/// One per world, shared by all its machines.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What is executed at each index, in log order.
    log: BTreeMap<(GroupId, Index), Bytes>,
    executed: BTreeMap<u64, Executed>,
    /// The digest at each index at which some replica was seen.
    digests: BTreeMap<(GroupId, Index), u64>,
    compared: u64,
    writes: BTreeMap<u64, Asked>,
    reads: Vec<(Asked, Bytes)>,
    broken: Option<String>,
}

impl Ledger {
    pub(super) fn executed(&self) -> u64 {
        self.executed.len() as u64
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads.iter().filter(|(asked, _)| asked.reply.is_some()).count() as u64
    }

    pub(super) fn compared(&self) -> u64 {
        self.compared
    }

    /// A machine executes a command.
    fn on_applied(&mut self, group: GroupId, index: Index, payload: &Bytes, reply: Option<&Reply>) {
        let Some(number) = payload.get(..NUMBER_BYTES) else { return };
        let number = u64::from_le_bytes(number.try_into().expect("eight bytes"));
        let known = self.log.entry((group, index)).or_insert_with(|| payload.clone());
        if known != payload {
            self.broken.get_or_insert(format!(
                "group {group} index {index}: two replicas execute different commands"
            ));
        }
        let first = || Executed { group, index, reply: reply.cloned() };
        let known = self.executed.entry(number).or_insert_with(first);
        if (known.group, known.index) != (group, index) {
            self.broken.get_or_insert(format!(
                "executed twice: command {number} at index {} of group {}, and at {index} of {group}",
                known.index, known.group
            ));
        }
        match (&mut known.reply, reply) {
            (Some(known), Some(reply)) if known != reply => {
                self.broken.get_or_insert(format!(
                    "not deterministic: group {group} index {index} is answered {known:?} by one \
                     replica and {reply:?} by another"
                ));
            }
            (unknown @ None, Some(reply)) => *unknown = Some(reply.clone()),
            _ => {}
        }
    }

    /// What went wrong in a machine, if something did.
    pub(super) fn check(&self) -> Checked {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// A replica was seen that has applied everything up to `index`.
    pub(super) fn on_seen(&mut self, group: GroupId, index: Index, digest: u64) -> Checked {
        match self.digests.insert((group, index), digest) {
            Some(known) if known != digest => Err(format!(
                "not deterministic: group {group} at index {index} has digest {known:016x} on one \
                 replica and {digest:016x} on another, or before a restart"
            )),
            known => {
                self.compared += u64::from(known.is_some());
                Ok(())
            }
        }
    }

    /// A client asks for a command to be executed.
    pub(super) fn on_write(&mut self, number: u64, group: GroupId, now: u64) {
        let asked = Asked { group, called: now, returned: u64::MAX, reply: None, refused: false };
        self.writes.insert(number, asked);
    }

    /// Whether a reply is the one that a machine gave to a command.
    pub(super) fn is_result(&self, number: u64, reply: &Reply) -> bool {
        self.executed.get(&number).is_some_and(|it| it.reply.as_ref() == Some(reply))
    }

    /// A client heard the result of its command, or that it was not executed.
    pub(super) fn on_answered(&mut self, number: u64, reply: &Reply, refused: bool, now: u64) {
        if let Some(asked) = self.writes.get_mut(&number) {
            (asked.returned, asked.reply, asked.refused) = (now, Some(reply.clone()), refused);
        }
    }

    /// A client asks; returns the place of its question.
    pub(super) fn on_read(&mut self, group: GroupId, body: Bytes, now: u64) -> usize {
        let asked = Asked { group, called: now, returned: u64::MAX, reply: None, refused: false };
        self.reads.push((asked, body));
        self.reads.len() - 1
    }

    pub(super) fn on_read_answered(&mut self, place: usize, reply: &Reply, now: u64) {
        let (asked, _) = &mut self.reads[place];
        (asked.returned, asked.reply) = (now, Some(reply.clone()));
    }

    /// Executes everything once more in log order, on machines of its own: replies and digests must be
    /// the same, and the log's order must be one that clients could have seen. Returns the digest that
    /// each group comes to.
    pub(super) fn explain(&self, machines: &Machines) -> Result<BTreeMap<GroupId, u64>, String> {
        for (number, asked) in &self.writes {
            match (&asked.reply, self.executed.get(number)) {
                (Some(_), Some(_)) if asked.refused => {
                    return Err(format!("command {number} was refused, and executed all the same"));
                }
                (Some(reply), None) if !asked.refused => {
                    return Err(format!("lost: command {number} was answered {reply:?}"));
                }
                _ => {}
            }
        }
        let mut digests = BTreeMap::new();
        let groups: std::collections::BTreeSet<GroupId> =
            self.log.keys().map(|&(group, _)| group).collect();
        for group in groups {
            digests.insert(group, self.explain_group(group, machines)?);
        }
        Ok(digests)
    }

    fn explain_group(&self, group: GroupId, machines: &Machines) -> Result<u64, String> {
        let mut machine = machines();
        let mut open: Vec<(&Asked, &Bytes)> = self
            .reads
            .iter()
            .filter(|(asked, _)| asked.group == group && asked.reply.is_some())
            .map(|(asked, body)| (asked, body))
            .collect();
        open.sort_by_key(|(asked, _)| asked.called);
        // When what is in front was asked at the latest, and when what follows was answered at the
        // earliest.
        let range = (group, Index(0))..=(group, Index(u64::MAX));
        let log: Vec<(Index, &Bytes, Option<&Asked>)> = self
            .log
            .range(range)
            .map(|(&(_, index), payload)| {
                let mut number = &payload[..];
                (index, payload, self.writes.get(&number.get_u64_le()))
            })
            .collect();
        let mut answered_after = vec![u64::MAX; log.len() + 1];
        for at in (0..log.len()).rev() {
            let returned = log[at].2.map_or(u64::MAX, |asked| asked.returned);
            answered_after[at] = answered_after[at + 1].min(returned);
        }
        let mut asked_before = 0;
        self.answer_reads(&mut open, &*machine, asked_before, answered_after[0], group)?;
        for (at, (index, payload, asked)) in log.iter().enumerate() {
            let body = payload.slice(NUMBER_BYTES..);
            let reply = alone(&mut *machine, *index, &body)?;
            let mut number = &payload[..];
            let executed = self.executed.get(&number.get_u64_le());
            if let Some(given) = executed.and_then(|it| it.reply.as_ref())
                && *given != reply
            {
                return Err(format!(
                    "not deterministic: group {group} index {index} was answered {given:?}, and is \
                     answered {reply:?} when the log is executed once more"
                ));
            }
            if let Some(asked) = asked {
                if asked.returned < asked_before {
                    return Err(format!(
                        "not linearizable: group {group} index {index} was answered before something \
                         in front of it was asked for"
                    ));
                }
                asked_before = asked_before.max(asked.called);
            }
            self.check_digest(group, *index, machine.digest())?;
            self.answer_reads(&mut open, &*machine, asked_before, answered_after[at + 1], group)?;
        }
        match open.first() {
            None => Ok(machine.digest()),
            Some((asked, _)) => Err(unexplained(group, asked)),
        }
    }

    fn check_digest(&self, group: GroupId, index: Index, digest: u64) -> Checked {
        match self.digests.get(&(group, index)) {
            Some(known) if *known != digest => Err(format!(
                "not deterministic: group {group} at index {index} had digest {known:016x}, and has \
                 {digest:016x} when the log is executed once more"
            )),
            _ => Ok(()),
        }
    }

    /// Strikes out the reads that this state of the machine explains. Everything in front of it was
    /// asked for by `asked_before`; something behind it was answered at `answered_after`.
    fn answer_reads(
        &self,
        open: &mut Vec<(&Asked, &Bytes)>,
        machine: &dyn StateMachine,
        asked_before: u64,
        answered_after: u64,
        group: GroupId,
    ) -> Checked {
        // The earliest return of a read that still waits: those called after it wait for it.
        let mut waits = u64::MAX;
        let mut late = None;
        open.retain(|(asked, body)| {
            if asked.returned < asked_before {
                // It should have been explained before.
                late.get_or_insert(unexplained(group, asked));
                return true;
            }
            let may = asked.called <= answered_after && asked.called <= waits;
            if may && asked.reply.as_ref() == Some(&machine.read(body)) {
                return false;
            }
            waits = waits.min(asked.returned);
            true
        });
        late.map_or(Ok(()), Err)
    }
}

fn unexplained(group: GroupId, asked: &Asked) -> String {
    format!(
        "not linearizable: group {group}: no state that a read asked at {} could see explains {:?}",
        asked.called, asked.reply
    )
}

/// A machine of the embedder, watched.
struct Watched {
    group: GroupId,
    machine: Box<dyn StateMachine>,
    ledger: Rc<RefCell<Ledger>>,
}

/// A machine for a replica of `group`.
pub(super) fn watched(
    group: GroupId,
    machine: Box<dyn StateMachine>,
    ledger: &Rc<RefCell<Ledger>>,
) -> Box<dyn StateMachine> {
    Box::new(Watched { group, machine, ledger: Rc::clone(ledger) })
}

impl StateMachine for Watched {
    fn apply(&mut self, index: Index, payload: &Bytes, wanted: Wanted) -> Reply {
        let Some(body) = payload.get(NUMBER_BYTES..) else {
            return not_ours();
        };
        let reply = self.machine.apply(index, &payload.slice_ref(body), wanted);
        let told = (wanted == Wanted::Yes).then_some(&reply);
        self.ledger.borrow_mut().on_applied(self.group, index, payload, told);
        reply
    }

    fn apply_batch(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop> {
        let Self { group, machine, ledger } = self;
        let mut heard = Heard { group: *group, batch, ledger, given: None };
        machine.apply_batch(&mut Batch::new(&mut heard))
    }

    fn read(&self, payload: &Bytes) -> Reply {
        self.machine.read(payload)
    }

    fn digest(&self) -> u64 {
        self.machine.digest()
    }

    fn len(&self) -> u64 {
        self.machine.len()
    }

    fn durable(&self) -> Option<Index> {
        self.machine.durable()
    }

    fn flush(&mut self, through: Index) {
        self.machine.flush(through);
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        self.machine.freeze()
    }

    fn restoring(&self) -> Box<dyn Restoring> {
        let (group, ledger) = (self.group, Rc::clone(&self.ledger));
        Box::new(RestoringWatched { group, restoring: self.machine.restoring(), ledger })
    }
}

/// What a machine takes and answers, written down.
struct Heard<'a, 'b> {
    group: GroupId,
    batch: &'a mut Batch<'b>,
    ledger: &'a Rc<RefCell<Ledger>>,
    given: Option<Given>,
}

struct Given {
    index: Index,
    payload: Bytes,
    body: Bytes,
    wanted: Wanted,
}

impl Source for Heard<'_, '_> {
    fn next_entry(&mut self) -> Option<Committed<'_>> {
        let given = loop {
            let Committed { index, payload, wanted } = self.batch.next_entry()?;
            match payload.get(NUMBER_BYTES..) {
                Some(body) => {
                    let (body, payload) = (payload.slice_ref(body), payload.clone());
                    break Given { index, payload, body, wanted };
                }
                None => self.batch.answer(not_ours()),
            }
        };
        let Given { index, body, wanted, .. } = self.given.insert(given);
        Some(Committed { index: *index, payload: body, wanted: *wanted })
    }

    fn answer(&mut self, reply: Reply) {
        let given = self.given.take().expect("the machine answers what it was given");
        let told = (given.wanted == Wanted::Yes).then_some(&reply);
        self.ledger.borrow_mut().on_applied(self.group, given.index, &given.payload, told);
        self.batch.answer(reply);
    }
}

/// One entry in a batch of its own, however often the machine yields over it.
fn alone(machine: &mut dyn StateMachine, index: Index, body: &Bytes) -> Result<Reply, String> {
    struct One<'a>(Index, &'a Bytes, Option<Reply>);

    impl Source for One<'_> {
        fn next_entry(&mut self) -> Option<Committed<'_>> {
            let entry = Committed { index: self.0, payload: self.1, wanted: Wanted::Yes };
            self.2.is_none().then_some(entry)
        }

        fn answer(&mut self, reply: Reply) {
            self.2 = Some(reply);
        }
    }

    let mut one = One(index, body, None);
    loop {
        machine.apply_batch(&mut Batch::new(&mut one)).map_err(|stop| stop.to_string())?;
        if let Some(reply) = one.2.take() {
            return Ok(reply);
        }
    }
}

fn not_ours() -> Reply {
    Reply::error("ERR", "not one of the harness's commands")
}

struct RestoringWatched {
    group: GroupId,
    restoring: Box<dyn Restoring>,
    ledger: Rc<RefCell<Ledger>>,
}

impl Restoring for RestoringWatched {
    fn chunk(&mut self, chunk: &Bytes) -> Result<(), RestoreError> {
        self.restoring.chunk(chunk)
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn StateMachine>, RestoreError> {
        let Self { group, restoring, ledger } = *self;
        Ok(watched(group, restoring.finish()?, &ledger))
    }
}
