//! The way in for whoever embeds a node: calls from any thread and any executor.
//!
//! ```text
//!  your threads, your tokio, your smol          the node's cores
//!  Client ── write, read ── Call ─────────────► mailbox ─► shard ─► your machine
//!         ── session ────── Session ──────────►      (forwarded if another node leads)
//!         ── roles, tail ── Roles, Tail ◄───────────── after each turn
//!         ── status ◄───────────────────────────────── after each turn
//! ```
//!
//! # Promises
//!
//! - Nothing here blocks but what is called `wait`: a call is put into a bounded mailbox, or refused at once.
//! - Every call is answered exactly once, also when the node stops or a core dies.
//! - What is refused is given back: see [`Failure`].
//!
//! # Bounds
//!
//! Unanswered calls per core: `limits::CALLS_MAX`, and `limits::CALL_BYTES_MAX` bytes of them. A call is
//! answered within `Config::request_ms`, give or take a turn. Past a bound the answer is [`Why::Busy`], at once.
//!
//! # Order
//!
//! A call that is made after the outcome of another is known comes after it, whatever nodes they went through
//! (linearizability). Calls under way at the same time may be executed in any order.

mod call;
mod outcome;
mod session;

pub use call::Call;
pub use outcome::{Failure, Outcome, Why};
pub use session::{Opening, Session};

pub(super) use call::{Asked, Desk};

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::entry::SESSION_HEADER_BYTES;
use crate::group::{GroupCommand, SessionRequest};
use crate::id::{GroupId, Incarnation, Index, NodeId, SessionId, ShardId};
use crate::limits::COMMAND_BYTES_MAX;
use crate::raft::effects::RoleKind;
use crate::store::command::{self, Access};
use crate::store::connection::Manner;
use crate::wire::reply::Reply;
use crate::wire::resp::Command;

use super::mailbox::Mailbox;
use super::shard_loop::Mail;
use super::watch::{Board, GroupStatus, Roles, Tail};

use call::Kind;

/// What is asked of a core.
#[derive(Debug)]
pub(super) enum What {
    /// Something of one group's machine.
    Group(GroupCommand),
    /// A command of the Redis protocol.
    Command(Command),
}

/// Calls a node from the process it runs in. Cheap to clone; `Send` and `Sync`; outlives the node, and then
/// says so.
///
/// ```no_run
/// use outrigger::id::GroupId;
/// # fn with(client: outrigger::Client) -> Result<(), outrigger::runtime::client::Failure> {
/// // From a plain thread:
/// let reply = client.write(GroupId(0), "add 5").wait()?;
/// // From any async executor: `client.write(GroupId(0), "add 5").await?`
/// # let _ = reply;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) mailboxes: Vec<Arc<Mailbox<Mail>>>,
    /// By core.
    pub(super) desks: Vec<Arc<Desk>>,
    pub(super) board: Arc<Board>,
    /// Cores that still replay their log.
    pub(super) loading: Arc<AtomicUsize>,
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    /// Sessions opened by clients since the node started: the next one's name follows from it.
    pub(super) sessions: AtomicU64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("node", &self.inner.node).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// How many groups there are: [`GroupId`] 0 and up.
    #[must_use]
    pub fn groups(&self) -> u64 {
        self.inner.board.groups()
    }

    /// Has the group agree on `payload`, and its machine execute it
    /// ([`StateMachine::apply`](crate::StateMachine::apply)) on every replica. Goes to the node that leads,
    /// if another does. At most [`COMMAND_BYTES_MAX`] bytes.
    ///
    /// If the outcome is unknown, it must not simply be sent again, unless executing it twice does no harm:
    /// see [`Client::open_session`].
    pub fn write(&self, group: GroupId, payload: impl Into<Bytes>) -> Call {
        self.ask_group(group, Access::Write, Manner::default(), None, payload.into())
    }

    /// Asks the group's machine ([`StateMachine::read`](crate::StateMachine::read)), linearizably: it has
    /// executed every write whose outcome was known, to anybody, when the read was made. Never unknown.
    pub fn read(&self, group: GroupId, payload: impl Into<Bytes>) -> Call {
        self.ask_group(group, Access::Read, Manner::default(), None, payload.into())
    }

    /// As [`Self::read`], of this node's own machine, which costs the leader a few bytes and not the read. With
    /// `stale` greater than zero what is read may be that old, and usually costs the leader nothing; in whole ms, at
    /// most [`STALE_MS_MAX`](crate::limits::STALE_MS_MAX).
    ///
    /// ```
    /// use std::time::Duration;
    /// use outrigger::id::GroupId;
    /// use outrigger::wire::{reply::Reply, resp::Command};
    ///
    /// # let dir = format!("target/tmp/doc-nearby-{}", std::process::id());
    /// # let config = outrigger::Config::new(1, &dir, "127.0.0.1:0".parse()?);
    /// # let node = outrigger::Node::start(config, |_| Box::new(outrigger::store::map::Map::new()))?;
    /// # let client = node.client();
    /// # assert!(node.wait_until_ready(std::time::Duration::from_secs(30)));
    /// let (set, get) = (Command::from_args(&[b"SET", b"k", b"v"]), Command::from_args(&[b"GET", b"k"]));
    /// client.write(GroupId(0), set.raw).wait()?;
    /// // As fresh as `read`, from the machine of this node:
    /// let fresh = client.read_nearby(GroupId(0), get.raw.clone(), Duration::ZERO).wait()?;
    /// assert_eq!(fresh, Reply::bulk("v"));
    /// // For a page that may be a second behind, without asking the leader:
    /// let _page = client.read_nearby(GroupId(0), get.raw, Duration::from_secs(1)).wait()?;
    /// # node.stop()?;
    /// # std::fs::remove_dir_all(dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_nearby(&self, group: GroupId, payload: impl Into<Bytes>, stale: Duration) -> Call {
        let ms = u32::try_from(stale.as_millis()).unwrap_or(u32::MAX);
        let stale_ms = ms.min(crate::limits::STALE_MS_MAX);
        let manner = Manner { nearby: true, stale_ms, redirects: false };
        self.ask_group(group, Access::Read, manner, None, payload.into())
    }

    /// A command of the Redis protocol, as from a connection of its own: `MEMBER ADD`, `DRAIN`, `INFO`, and with the
    /// machine we ship the commands of `docs/commands.md`. Every error reply but `UNCERTAIN` means "not
    /// executed", as there. No arguments at all are no command: [`Why::Invalid`].
    pub fn command<A: AsRef<[u8]>>(&self, args: &[A]) -> Call {
        if args.is_empty() {
            return Call::refused(Why::Invalid, Bytes::new());
        }
        let args: Vec<&[u8]> = args.iter().map(AsRef::as_ref).collect();
        let command = Command::from_args(&args);
        let payload = command.raw.clone();
        match command::validate(&command) {
            Ok(_) => self.ask(ShardId(0), Kind::Command, What::Command(command), payload),
            Err(refusal) => Call::answered(outcome::read(Kind::Command, refusal), payload),
        }
    }

    /// Opens a session in the group: its requests are executed once each, however often they are sent, so that an
    /// unknown outcome can be asked for again.
    ///
    /// ```
    /// use outrigger::id::GroupId;
    /// use outrigger::wire::{reply::Reply, resp::Command};
    ///
    /// # let dir = format!("target/tmp/doc-open-{}", std::process::id());
    /// # let config = outrigger::Config::new(1, &dir, "127.0.0.1:0".parse()?);
    /// # let node = outrigger::Node::start(config, |_| Box::new(outrigger::store::map::Map::new()))?;
    /// # let client = node.client();
    /// # assert!(node.wait_until_ready(std::time::Duration::from_secs(30)));
    /// let mut session = client.open_session(GroupId(0)).wait()?;
    /// let incr = Command::from_args(&[b"INCR", b"n"]).raw;
    /// let seq = session.next_seq();
    /// assert_eq!(session.run(seq, incr.clone()).wait()?, Reply::Int(1));
    /// // Had the answer been lost: the same number is the same request, and is told what it came to.
    /// assert_eq!(session.run(seq, incr.clone()).wait()?, Reply::Int(1));
    /// let seq = session.next_seq();
    /// assert_eq!(session.run(seq, incr).wait()?, Reply::Int(2));
    /// session.close().wait()?;
    /// # node.stop()?;
    /// # std::fs::remove_dir_all(dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_session(&self, group: GroupId) -> Opening {
        let count = self.inner.sessions.fetch_add(1, Ordering::Relaxed);
        // No core has this number, so no session of a connection has this name.
        let id = SessionId::new(self.inner.node, self.inner.incarnation, ShardId(u16::MAX), count);
        let call = self.ask_session(group, SessionRequest::Open(id), Bytes::new());
        Opening::new(call, self.session(group, id, 0))
    }

    /// Takes a session up again that was opened before, here or elsewhere, and has sent requests up to `last_seq`.
    ///
    /// ```
    /// use outrigger::id::GroupId;
    /// use outrigger::wire::resp::Command;
    ///
    /// # let dir = format!("target/tmp/doc-session-{}", std::process::id());
    /// # let config = outrigger::Config::new(1, &dir, "127.0.0.1:0".parse()?);
    /// # let node = outrigger::Node::start(config, |_| Box::new(outrigger::store::map::Map::new()))?;
    /// # let client = node.client();
    /// # assert!(node.wait_until_ready(std::time::Duration::from_secs(30)));
    /// let mut session = client.open_session(GroupId(0)).wait()?;
    /// let seq = session.next_seq();
    /// // Written down before the request is sent, so that a crash in between does not lose it:
    /// let (id, last_seq) = (session.id(), seq);
    /// let withdraw = Command::from_args(&[b"DECRBY", b"account", b"100"]).raw;
    /// let reply = session.run(seq, withdraw.clone()).wait()?;
    ///
    /// // After the crash nobody knows whether it was executed. Sent again, it is not executed twice.
    /// let mut session = client.session(GroupId(0), id, last_seq);
    /// assert_eq!(session.run(last_seq, withdraw).wait()?, reply);
    /// # node.stop()?;
    /// # std::fs::remove_dir_all(dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn session(&self, group: GroupId, id: SessionId, last_seq: u64) -> Session {
        Session::new(self.clone(), group, id, last_seq)
    }

    /// What this node's replica of the group is, and how far it has come: as of its core's last turn.
    /// None if there is no such group.
    ///
    /// ```
    /// use outrigger::id::GroupId;
    ///
    /// # let dir = format!("target/tmp/doc-status-{}", std::process::id());
    /// # let config = outrigger::Config::new(1, &dir, "127.0.0.1:0".parse()?);
    /// # let node = outrigger::Node::start(config, |_| Box::new(outrigger::store::map::Map::new()))?;
    /// # let client = node.client();
    /// # assert!(node.wait_until_ready(std::time::Duration::from_secs(30)));
    /// let status = client.status(GroupId(0)).expect("there is a group 0");
    /// // Work that one node of the cluster does at a time: only while this one leads.
    /// assert!(status.leader_ready);
    /// // Entries that the machine here has not executed yet, though the group has agreed on them:
    /// let behind = status.commit.0 - status.applied.0;
    /// assert_eq!((behind, client.status(GroupId(16))), (0, None));
    /// # node.stop()?;
    /// # std::fs::remove_dir_all(dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn status(&self, group: GroupId) -> Option<GroupStatus> {
        self.inner.board.status(group)
    }

    /// Changes of role of this node's replicas, from now on. To miss none, subscribe first and read
    /// [`Self::status`] then.
    ///
    /// ```
    /// use std::time::Duration;
    /// use outrigger::id::GroupId;
    /// use outrigger::raft::effects::RoleKind;
    ///
    /// # let dir = format!("target/tmp/doc-roles-{}", std::process::id());
    /// # let config = outrigger::Config::new(1, &dir, "127.0.0.1:0".parse()?);
    /// # let node = outrigger::Node::start(config, |_| Box::new(outrigger::store::map::Map::new()))?;
    /// # let client = node.client();
    /// let mut roles = client.roles();
    /// // What was before the subscription is in the status; what comes after it is heard.
    /// let mut role = client.status(GroupId(0)).map(|status| status.role);
    /// while role != Some(RoleKind::Leader) {
    ///     let change = roles.wait(Duration::from_secs(30)).ok_or("nothing has changed")??;
    ///     if change.group == GroupId(0) {
    ///         role = Some(change.role);
    ///     }
    /// }
    /// // This node leads. Once `GroupStatus::leader_ready` says so, too, work of the leader may begin.
    /// # node.stop()?;
    /// # std::fs::remove_dir_all(dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn roles(&self) -> Roles {
        self.inner.board.subscribe()
    }

    /// The commands that this node's replica of the group executes, in order, from index `from` on, or from
    /// now on: change data capture. Works on leaders and followers alike.
    ///
    /// An old index can be had as long as its entry is in this node's log (`Config::log_bytes`): what is no longer in
    /// memory is read back from the disk, beside the core. Otherwise the first thing heard is
    /// [`TailEnd::Lagged`](super::watch::TailEnd::Lagged), with the first index that can be had.
    ///
    /// ```
    /// use std::time::Duration;
    /// use outrigger::id::GroupId;
    /// use outrigger::wire::resp::Command;
    ///
    /// # let dir = format!("target/tmp/doc-tail-{}", std::process::id());
    /// # let config = outrigger::Config::new(1, &dir, "127.0.0.1:0".parse()?);
    /// # let node = outrigger::Node::start(config, |_| Box::new(outrigger::store::map::Map::new()))?;
    /// # let client = node.client();
    /// # assert!(node.wait_until_ready(std::time::Duration::from_secs(30)));
    /// let mut tail = client.tail(GroupId(0), None)?;
    /// let set = Command::from_args(&[b"SET", b"k", b"v"]).raw;
    /// client.write(GroupId(0), set.clone()).wait()?;
    /// let change = tail.wait(Duration::from_secs(30)).ok_or("nothing came")??;
    /// assert_eq!(change.payload, set);
    ///
    /// // Keep the index in one transaction with what you make of the change, and go on behind it:
    /// let go_on = change.id.index.next();
    /// let mut tail = client.tail(GroupId(0), Some(go_on))?;
    /// # client.write(GroupId(0), set).wait()?;
    /// # assert_eq!(tail.wait(Duration::from_secs(30)).ok_or("nothing came")??.id.index, go_on);
    /// # node.stop()?;
    /// # std::fs::remove_dir_all(dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Why::Busy`] past [`TAILS_MAX`](crate::limits::TAILS_MAX) tails on the group's core, [`Why::Invalid`] if there
    /// is no such group, [`Why::Stopped`] after the node's end.
    pub fn tail(&self, group: GroupId, from: Option<Index>) -> Result<Tail, Why> {
        let core = self.core_of(group).ok_or(Why::Invalid)?;
        let (tail, cursor) = self.inner.board.tail(core, group, from).ok_or(Why::Busy)?;
        let mailbox = &self.inner.mailboxes[usize::from(core.0)];
        match mailbox.offer(Mail::Tail(cursor)) {
            Ok(()) => Ok(tail),
            Err(_) if mailbox.is_closed() => Err(Why::Stopped),
            Err(_) => Err(Why::Busy),
        }
    }

    /// From now on the board is kept.
    pub(super) fn watch(&self) {
        self.inner.board.watch();
    }

    /// The log is replayed, and every group has a leader; one that leads here is ready.
    pub(super) fn is_ready(&self) -> bool {
        let is_ready = |status: GroupStatus| {
            status.leader.is_some() && (status.leader_ready || status.role != RoleKind::Leader)
        };
        let mut groups = (0..self.groups()).map(GroupId);
        !self.is_loading() && groups.all(|group| self.status(group).is_some_and(is_ready))
    }

    fn is_loading(&self) -> bool {
        self.inner.loading.load(Ordering::Acquire) != 0
    }

    fn core_of(&self, group: GroupId) -> Option<ShardId> {
        let cores = self.inner.mailboxes.len() as u64;
        (group.0 < self.groups()).then_some(ShardId((group.0 % cores) as u16))
    }

    fn ask_session(&self, group: GroupId, request: SessionRequest, payload: Bytes) -> Call {
        self.ask_group(group, Access::Write, Manner::default(), Some(request), payload)
    }

    fn ask_group(
        &self,
        group: GroupId,
        access: Access,
        manner: Manner,
        session: Option<SessionRequest>,
        body: Bytes,
    ) -> Call {
        let header = session.map_or(0, |_| SESSION_HEADER_BYTES);
        let fits = header + body.len() <= COMMAND_BYTES_MAX;
        let Some(core) = self.core_of(group).filter(|_| fits) else {
            return Call::refused(Why::Invalid, body);
        };
        let kind = match (access, session) {
            (Access::Write, Some(SessionRequest::Run { id, seq })) => Kind::Request(id, seq),
            (Access::Write, _) => Kind::Write,
            _ => Kind::Read,
        };
        let payload = body.clone();
        let after_writes = false;
        let command = GroupCommand { group, access, after_writes, manner, session, body };
        self.ask(core, kind, What::Group(command), payload)
    }

    fn ask(&self, core: ShardId, kind: Kind, what: What, payload: Bytes) -> Call {
        let core = usize::from(core.0);
        let mailbox = &self.inner.mailboxes[core];
        if self.is_loading() && !mailbox.is_closed() {
            // Nobody looks into the mailbox before the log is replayed.
            return Call::refused(Why::Loading, payload);
        }
        let (call, asked) = Call::new(&self.inner.desks[core], kind, &payload);
        let Some(asked) = asked else { return call };
        if let Err(Mail::Call(asked, _)) = mailbox.offer(Mail::Call(asked, what)) {
            let full = !mailbox.is_closed();
            asked.refuse(if full { Why::Busy } else { Why::Stopped });
        }
        call
    }
}

/// The unanswered calls of one core. One per core.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: super::slots::Slots<Asked>,
}

impl Calls {
    /// The shard is about to be given a call; its number there.
    pub(super) fn begin(&mut self, mut asked: Asked) -> u64 {
        asked.begin();
        self.open.insert(|_| asked)
    }

    /// The shard's reply to call `seq`.
    pub(super) fn reply(&mut self, seq: u64, reply: Reply) {
        let asked = self.open.remove(seq);
        debug_assert!(asked.is_some(), "call {seq} was answered twice");
        if let Some(asked) = asked {
            asked.reply(reply);
        }
    }
}
