//! A session: requests that are executed once each, however often they are sent.
//!
//! ```text
//!  run(1, "a") ──► Unknown          the leader died; "a" may be executed, or not
//!  run(1, "a") ──► Ok(reply)        the same number: executed now, or told what it came to then
//!  run(2, "b") ──► Ok(reply)        a session has one request outstanding at a time
//! ```

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::group::SessionRequest;
use crate::id::{GroupId, SessionId};
use crate::wire::reply::Reply;

use super::outcome::{Failure, Outcome, Why};
use super::{Call, Client};

/// An open session in one group. Not cloneable: it has one request outstanding at a time, because the group keeps the
/// answer to its last one only.
///
/// The group remembers [`SESSIONS_MAX`](crate::limits::SESSIONS_MAX) sessions, on every replica and in every
/// snapshot, and of their answers [`SESSION_REPLY_BYTES_MAX`](crate::limits::SESSION_REPLY_BYTES_MAX) bytes in all. Past
/// either it forgets the one that was used the longest ago, whose next request is [`Why::NoSession`].
///
/// ```no_run
/// # use outrigger::{id::GroupId, runtime::client::Failure, Client};
/// # fn with(client: Client) -> Result<(), Failure> {
/// let mut session = client.open_session(GroupId(0)).wait()?;
/// let seq = session.next_seq();
/// let mut outcome = session.run(seq, "withdraw 100").wait();
/// while let Err(Failure::Unknown { payload, .. }) = outcome {
///     outcome = session.run(seq, payload).wait(); // never withdraws twice
/// }
/// # Ok(())
/// # }
/// ```
pub struct Session {
    client: Client,
    group: GroupId,
    id: SessionId,
    seq: u64,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, id, seq, .. } = self;
        write!(f, "Session {{ id: {id}, group: {group}, seq: {seq} }}")
    }
}

impl Session {
    pub(super) const fn new(client: Client, group: GroupId, id: SessionId, seq: u64) -> Self {
        Self { client, group, id, seq }
    }

    /// Its name. Whoever keeps it, with the number of the last request, can go on after a restart
    /// ([`Client::session`]).
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// Its group.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// The number of the last request.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.seq
    }

    /// A number for a new request: whoever takes one has heard, or given up on, the answer to the one before. After the
    /// last number there is, `u64::MAX`, it is 0, which [`Self::run`] refuses: open another session.
    pub const fn next_seq(&mut self) -> u64 {
        let Some(seq) = self.seq.checked_add(1) else { return 0 };
        self.seq = seq;
        seq
    }

    /// Sends request `seq`, for the first time or again; with the same payload each time, through any node.
    /// [`Failure::NotExecuted`] is about this attempt: it does not say what became of earlier ones.
    pub fn run(&mut self, seq: u64, payload: impl Into<Bytes>) -> Call {
        let payload = payload.into();
        if seq == 0 {
            return Call::refused(Why::Invalid, payload);
        }
        self.seq = self.seq.max(seq);
        let request = SessionRequest::Run { id: self.id, seq };
        self.client.ask_session(self.group, request, payload)
    }

    /// Ends the session: the group forgets it. The reply is 1, or 0 if it was not open.
    pub fn close(self) -> Call {
        self.client.ask_session(self.group, SessionRequest::Close(self.id), Bytes::new())
    }
}

/// A session on its way to be opened: a future, and for threads without an executor [`Opening::wait`].
///
/// If the outcome is unknown, open another: what was never used is forgotten in time.
#[derive(Debug)]
#[must_use = "the outcome says whether there is a session"]
pub struct Opening {
    call: Call,
    session: Option<Session>,
}

impl Opening {
    pub(super) const fn new(call: Call, session: Session) -> Self {
        Self { call, session: Some(session) }
    }

    /// Wait for it on this thread, as with [`Call::wait`].
    ///
    /// # Errors
    /// [`Failure`]: not opened, or unknown.
    pub fn wait(self) -> Result<Session, Failure> {
        let Self { call, session } = self;
        opened(call.wait(), session)
    }
}

impl Future for Opening {
    type Output = Result<Session, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.call).poll(context) {
            Poll::Ready(outcome) => Poll::Ready(opened(outcome, self.session.take())),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn opened(outcome: Outcome, session: Option<Session>) -> Result<Session, Failure> {
    match (outcome?, session) {
        (Reply::Ok, Some(session)) => Ok(session),
        // Two sessions of one name, once in 2^53: the group refused the second.
        (reply, _) => Err(Failure::NotExecuted {
            why: Why::Busy,
            text: reply.error_text().to_owned(),
            payload: Bytes::new(),
        }),
    }
}
