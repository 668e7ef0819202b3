//! A group of nodes and the messages between them: what the commands of a transcript do.

use std::collections::VecDeque;

use super::message::{Kind, Message, Snapshot, is_thread};
use super::node::{Node, Options};
use super::output::Output;
use super::render;
use super::script::Nonsense;

/// Why a command printed an error or could not be carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is part of the output.
    Said(String),
    /// The transcript asks for something that does not exist.
    Nonsense(Nonsense),
}

impl From<String> for Stop {
    fn from(said: String) -> Self {
        Self::Said(said)
    }
}

impl From<Nonsense> for Stop {
    fn from(nonsense: Nonsense) -> Self {
        Self::Nonsense(nonsense)
    }
}

/// Rounds after which a group that finds no rest is given up.
const ROUNDS_MAX: usize = 10_000;

/// Whom to deliver to, or whose messages to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recipient {
    pub(super) id: u64,
    pub(super) drop: bool,
}

/// A node and the work its storage threads have.
pub(super) struct Member {
    pub(super) node: Node,
    appends: VecDeque<Message>,
    applies: VecDeque<Message>,
}

/// Everything there is in one file.
#[derive(Default)]
pub(super) struct Group {
    members: Vec<Member>,
    /// On their way, oldest first.
    messages: Vec<Message>,
    pub(super) out: Output,
}

impl Group {
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The node with this id; ids count from one.
    pub(super) fn member(&mut self, id: u64) -> Result<&mut Member, Nonsense> {
        let at = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        at.and_then(|at| self.members.get_mut(at))
            .ok_or_else(|| Nonsense(format!("there is no node {id}")))
    }

    pub(super) fn node(&mut self, id: u64) -> Result<&mut Node, Nonsense> {
        self.member(id).map(|member| &mut member.node)
    }

    pub(super) fn add(&mut self, options: &Options, snapshot: &Snapshot) -> Result<(), Stop> {
        let is_empty = *snapshot == Snapshot::default();
        if !is_empty && snapshot.index <= 1 {
            let error = "index must be specified as > 1 due to bootstrap";
            return Err(Stop::Said(error.to_owned()));
        }
        let node = Node::new(self.members.len() as u64 + 1, options, snapshot)?;
        let (appends, applies) = (VecDeque::new(), VecDeque::new());
        self.members.push(Member { node, appends, applies });
        Ok(())
    }

    /// Puts a message on its way.
    pub(super) fn send(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// Delivers or drops what is on its way to these, of this kind if one is given. Returns how many
    /// messages that were.
    pub(super) fn deliver(
        &mut self,
        kind: Option<Kind>,
        recipients: &[Recipient],
    ) -> Result<usize, Nonsense> {
        let mut count = 0;
        for &recipient in recipients {
            let is_meant = |message: &Message| is_meant(message, recipient, kind);
            let meant: Vec<_> = self.messages.extract_if(.., |message| is_meant(message)).collect();
            count += meant.len();
            for message in meant {
                let told = render::message(&message);
                if recipient.drop {
                    self.out.lines(&format!("dropped: {told}"));
                    continue;
                }
                self.out.lines(&told);
                if let Err(error) = self.node(message.to)?.step(message) {
                    self.out.lines(&error);
                }
            }
        }
        Ok(count)
    }

    /// Shows what a node wants done and does it.
    pub(super) fn process_ready(&mut self, id: u64) -> Result<(), Stop> {
        let ready = self.node(id)?.ready();
        self.out.lines(&ready.describe());
        let member = self.member(id)?;
        let is_async = member.node.options().async_writes;
        if !is_async {
            let state = ready.hard_state.unwrap_or_default();
            member.node.write(state, &ready.entries, ready.snapshot.as_ref())?;
            member.node.apply(&ready.committed)?;
        }
        for message in ready.messages {
            match message.kind {
                Kind::StorageAppend => self.member(id)?.appends.push_back(message),
                Kind::StorageApply => self.member(id)?.applies.push_back(message),
                _ => self.send(message),
            }
        }
        if !is_async {
            self.node(id)?.advance();
        }
        Ok(())
    }

    /// Does one piece of a node's work on its log.
    pub(super) fn process_append(&mut self, id: u64) -> Result<(), Stop> {
        let Some(mut work) = self.member(id)?.appends.pop_front() else {
            self.out.lines("no append work to perform");
            return Ok(());
        };
        let responses = std::mem::take(&mut work.responses);
        self.out.lines("Processing:");
        self.out.lines(&render::message(&work));
        let snapshot = work.snapshot.as_ref().filter(|snapshot| snapshot.index > 0);
        self.node(id)?.write(work.hard_state(), &work.entries, snapshot)?;
        self.respond(responses);
        Ok(())
    }

    /// Does one piece of a node's work on its state.
    pub(super) fn process_apply(&mut self, id: u64) -> Result<(), Stop> {
        let Some(mut work) = self.member(id)?.applies.pop_front() else {
            self.out.lines("no apply work to perform");
            return Ok(());
        };
        let responses = std::mem::take(&mut work.responses);
        self.out.lines("Processing:");
        self.out.lines(&render::message(&work));
        self.node(id)?.apply(&work.entries)?;
        self.respond(responses);
        Ok(())
    }

    fn respond(&mut self, responses: Vec<Message>) {
        self.out.lines("Responses:");
        for response in responses {
            self.out.lines(&render::message(&response));
            self.send(response);
        }
    }

    /// Lets these nodes work and talk until they have nothing more to do.
    pub(super) fn stabilize(&mut self, ids: &[u64]) -> Result<(), Stop> {
        for _ in 0..ROUNDS_MAX {
            if !self.round(ids)? {
                return Ok(());
            }
        }
        Err(Stop::Nonsense(Nonsense("the group does not come to rest".to_owned())))
    }

    /// Returns whether anything happened.
    fn round(&mut self, ids: &[u64]) -> Result<bool, Stop> {
        let mut happened = false;
        for &id in ids {
            if self.node(id)?.has_ready() {
                self.titled(id, "handling Ready", |group| group.process_ready(id))?;
                happened = true;
            }
        }
        for &id in ids {
            let recipient = Recipient { id, drop: false };
            if self.messages.iter().any(|message| is_meant(message, recipient, None)) {
                self.titled(id, "receiving messages", |group| {
                    group.deliver(None, &[recipient])?;
                    Ok(())
                })?;
                happened = true;
            }
        }
        for &id in ids {
            if !self.member(id)?.appends.is_empty() {
                self.titled(id, "processing append thread", |group| {
                    while !group.member(id)?.appends.is_empty() {
                        group.process_append(id)?;
                    }
                    Ok(())
                })?;
                happened = true;
            }
        }
        for &id in ids {
            if !self.member(id)?.applies.is_empty() {
                self.titled(id, "processing apply thread", |group| {
                    while !group.member(id)?.applies.is_empty() {
                        group.process_apply(id)?;
                    }
                    Ok(())
                })?;
                happened = true;
            }
        }
        Ok(happened)
    }

    /// Does something under a title of its own.
    pub(super) fn titled(
        &mut self,
        id: u64,
        title: &str,
        act: impl FnOnce(&mut Self) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.out.lines(&format!("> {id} {title}"));
        self.out.indent(true);
        let result = act(self);
        self.out.indent(false);
        result
    }
}

/// What stays within a node is never dropped.
fn is_meant(message: &Message, recipient: Recipient, kind: Option<Kind>) -> bool {
    debug_assert!(!is_thread(message.to), "storage threads have queues of their own");
    message.to == recipient.id
        && !(recipient.drop && message.is_local())
        && kind.is_none_or(|kind| message.kind == kind)
}
