//! One call: asked on any thread, answered by a core, once.
//!
//! ```text
//!  any thread                               the core that owns the group
//!  Client::write ── Asked ──► mailbox ────► Calls (the table) ──► Shard ──► reply ─┐
//!     │                         │ full, closed   │ the core ends                   │
//!     ▼                         ▼                ▼                                 ▼
//!   Call ◄──────────────────── Slot: Waiting ──► Done, once ◄──────────────────────┘
//!     poll, wait
//! ```
//!
//! An [`Asked`] answers its call when it is dropped, if nothing else has: a core that ends, in whichever way,
//! leaves nobody waiting. What it says then depends on how far the call had come: a write that the shard had
//! taken may be executed, one that still lay in the mailbox is not.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use crate::limits::{CALL_BYTES_MAX, CALLS_MAX};
use crate::wire::reply::Reply;

use super::outcome::{Failure, Outcome, Why};

/// What a core says about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime) enum Answer {
    /// The machine's reply.
    Executed(Reply),
    /// Nothing was executed.
    NotExecuted(Why, String),
    /// Nobody knows.
    Unknown(String),
}

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    Done(Answer),
    Taken,
}

/// Where a call and its answer meet.
#[derive(Debug)]
struct Slot {
    state: Mutex<State>,
    answered: Condvar,
}

impl Slot {
    fn new(state: State) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(state), answered: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, answer: Answer) {
        let before = std::mem::replace(&mut *self.lock(), State::Done(answer));
        self.answered.notify_all();
        // Outside the lock: a waker may run the task at once.
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

/// How many calls of one core are unanswered, and their bytes. One per core, shared with every client.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Desk {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

impl Desk {
    fn claim(&self, bytes: usize) -> bool {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if calls < CALLS_MAX && held + bytes <= CALL_BYTES_MAX {
            return true;
        }
        self.release(bytes);
        false
    }

    fn release(&self, bytes: usize) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// How the reply to a call is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) enum Kind {
    /// A read: it changes nothing, so whoever hears nothing may say "not executed".
    Read,
    /// A write of the machine.
    Write,
    /// The same in a session: request `seq` of session `id`.
    Request(crate::id::SessionId, u64),
    /// A command of the Redis protocol.
    Command,
}

/// The half of a call that goes to the core. It is answered when it is dropped, at the latest.
pub(in crate::runtime) struct Asked {
    slot: Arc<Slot>,
    desk: Arc<Desk>,
    bytes: usize,
    kind: Kind,
    /// The shard has it: it may be executed.
    begun: bool,
    answered: bool,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, kind, begun, .. } = self;
        write!(f, "Asked({kind:?}, {bytes} bytes, begun: {begun})")
    }
}

impl Asked {
    /// The shard is given the call: from now on it may be executed.
    pub(in crate::runtime) fn begin(&mut self) {
        self.begun = true;
    }

    /// The shard's reply.
    pub(in crate::runtime) fn reply(mut self, reply: Reply) {
        let answer = super::outcome::read(self.kind, reply);
        self.answer(answer);
    }

    /// Nothing was done, and this is why.
    pub(in crate::runtime) fn refuse(mut self, why: Why) {
        self.answer(Answer::NotExecuted(why, why.text().to_owned()));
    }

    fn answer(&mut self, answer: Answer) {
        if !std::mem::replace(&mut self.answered, true) {
            // The place first: whoever hears the answer may call again.
            self.desk.release(self.bytes);
            self.slot.answer(answer);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let changes = self.kind != Kind::Read;
        self.answer(if self.begun && changes {
            Answer::Unknown("the node stopped before there was an answer".into())
        } else {
            Answer::NotExecuted(Why::Stopped, Why::Stopped.text().to_owned())
        });
    }
}

/// A call under way: a future, for any executor, and for threads without one [`Call::wait`].
///
/// It is answered exactly once, also when the node stops or one of its cores dies. *Dropping it does not
/// cancel the call*: a write goes on and may be executed; only its outcome is lost.
#[must_use = "the outcome says whether anything was executed"]
pub struct Call {
    slot: Arc<Slot>,
    payload: Bytes,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("payload_bytes", &self.payload.len()).finish_non_exhaustive()
    }
}

impl Call {
    /// A call, and the half that a core answers; or one that is refused already, because the core has as many
    /// as it may.
    pub(in crate::runtime) fn new(
        desk: &Arc<Desk>,
        kind: Kind,
        payload: &Bytes,
    ) -> (Self, Option<Asked>) {
        let bytes = payload.len();
        if !desk.claim(bytes) {
            return (Self::refused(Why::Busy, payload.clone()), None);
        }
        let slot = Slot::new(State::Waiting(None));
        let (desk, begun, answered) = (Arc::clone(desk), false, false);
        let asked = Asked { slot: Arc::clone(&slot), desk, bytes, kind, begun, answered };
        (Self { slot, payload: payload.clone() }, Some(asked))
    }

    /// A call of which nothing was done.
    pub(in crate::runtime) fn refused(why: Why, payload: Bytes) -> Self {
        Self::answered(Answer::NotExecuted(why, why.text().to_owned()), payload)
    }

    pub(in crate::runtime) fn answered(answer: Answer, payload: Bytes) -> Self {
        Self { slot: Slot::new(State::Done(answer)), payload }
    }

    /// Wait for the outcome on this thread.
    ///
    /// Never on a thread that runs an executor, and above all not inside a state machine: it would hold up
    /// what it waits for.
    ///
    /// # Errors
    /// [`Failure`]: not executed, or unknown.
    pub fn wait(self) -> Outcome {
        let waiting = |state: &mut State| matches!(state, State::Waiting(_));
        let waited = self.slot.answered.wait_while(self.slot.lock(), waiting);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.taken().expect("it was answered")
    }

    /// Wait for the outcome on this thread, but no longer than `patience`; the call can be waited for again
    /// after that, and is given back.
    ///
    /// # Errors
    /// The call itself, if there is no outcome yet.
    pub fn wait_for(self, patience: Duration) -> Result<Outcome, Self> {
        let waiting = |state: &mut State| matches!(state, State::Waiting(_));
        let waited = self.slot.answered.wait_timeout_while(self.slot.lock(), patience, waiting);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.taken().ok_or(self)
    }

    fn taken(&self) -> Option<Outcome> {
        let mut state = self.slot.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(answer) => Some(self.outcome(answer)),
            State::Taken => panic!("a call's outcome was asked for after it was told"),
            waiting @ State::Waiting(_) => {
                *state = waiting;
                None
            }
        }
    }

    fn outcome(&self, answer: Answer) -> Outcome {
        let payload = self.payload.clone();
        match answer {
            Answer::Executed(reply) => Ok(reply),
            Answer::NotExecuted(why, text) => Err(Failure::NotExecuted { why, text, payload }),
            Answer::Unknown(text) => Err(Failure::Unknown { text, payload }),
        }
    }
}

impl Future for Call {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.taken() {
            return Poll::Ready(outcome);
        }
        let mut state = self.slot.lock();
        match &mut *state {
            State::Waiting(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                return Poll::Pending;
            }
            State::Done(_) | State::Taken => {}
        }
        drop(state);
        // It was answered between the two looks.
        self.taken().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use super::*;

    fn asked(desk: &Arc<Desk>, kind: Kind) -> (Call, Asked) {
        let (call, asked) = Call::new(desk, kind, &Bytes::from_static(b"pay"));
        (call, asked.expect("there is room"))
    }

    fn why(outcome: Outcome) -> Why {
        match outcome {
            Err(Failure::NotExecuted { why, payload, .. }) => {
                assert_eq!(payload, "pay", "it is given back");
                why
            }
            other => panic!("{other:?}"),
        }
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_reply_reaches_a_thread_and_a_task_alike() {
        let desk = Arc::new(Desk::default());
        let (call, answer) = asked(&desk, Kind::Write);
        let waits = std::thread::spawn(move || call.wait());
        answer.reply(Reply::Int(7));
        assert_eq!(waits.join().expect("it ends"), Ok(Reply::Int(7)));

        let (mut call, answer) = asked(&desk, Kind::Write);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        assert_eq!(Pin::new(&mut call).poll(&mut context), Poll::Pending);
        answer.reply(Reply::Int(8));
        assert!(woken.0.load(Ordering::SeqCst));
        assert_eq!(Pin::new(&mut call).poll(&mut context), Poll::Ready(Ok(Reply::Int(8))));
    }

    #[test]
    fn whoever_is_dropped_answers() {
        let desk = Arc::new(Desk::default());
        for (kind, begun, expected) in [
            (Kind::Write, false, Some(Why::Stopped)),
            (Kind::Write, true, None),
            (Kind::Command, true, None),
            (Kind::Read, true, Some(Why::Stopped)),
        ] {
            let (call, mut answer) = asked(&desk, kind);
            if begun {
                answer.begin();
            }
            drop(answer);
            match (call.wait_for(Duration::ZERO).expect("answered"), expected) {
                (Err(Failure::Unknown { .. }), None) => {}
                (outcome, Some(expected)) => assert_eq!(why(outcome), expected),
                (outcome, None) => panic!("{kind:?}: {outcome:?}"),
            }
        }
        assert_eq!(desk.calls.load(Ordering::Relaxed), 0);
        assert_eq!(desk.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_core_holds_no_more_calls_and_bytes_than_it_may() {
        let desk = Arc::new(Desk::default());
        let held: Vec<_> = (0..CALLS_MAX).map(|_| asked(&desk, Kind::Read)).collect();
        let (call, none) = Call::new(&desk, Kind::Read, &Bytes::from_static(b"pay"));
        assert!(none.is_none());
        assert_eq!(why(call.wait()), Why::Busy);
        drop(held);
        drop(asked(&desk, Kind::Read));

        let large = Bytes::from(vec![0; CALL_BYTES_MAX - 2]);
        let (_call, held) = Call::new(&desk, Kind::Write, &large);
        let (call, none) = Call::new(&desk, Kind::Read, &Bytes::from_static(b"pay"));
        assert!(held.is_some() && none.is_none());
        assert_eq!(why(call.wait()), Why::Busy);
    }

    #[test]
    fn a_call_that_was_waited_for_in_vain_can_be_waited_for_again() {
        let desk = Arc::new(Desk::default());
        let (call, answer) = asked(&desk, Kind::Write);
        let call = call.wait_for(Duration::ZERO).expect_err("nobody has answered");
        answer.reply(Reply::Ok);
        assert_eq!(call.wait_for(Duration::ZERO).expect("answered"), Ok(Reply::Ok));
    }

    #[test]
    fn a_call_that_nobody_waits_for_is_answered_all_the_same() {
        let desk = Arc::new(Desk::default());
        let (call, answer) = asked(&desk, Kind::Write);
        drop(call);
        answer.reply(Reply::Ok);
        assert_eq!(desk.calls.load(Ordering::Relaxed), 0);
    }
}
