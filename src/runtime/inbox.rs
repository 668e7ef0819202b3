//! Events from a core's own tasks to its shard loop, without locks: both live on one thread.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

use crate::shard::Event;

use super::fatal::Fatal;

/// One per core, shared by the loop and the tasks that wait for the disk for it.
#[derive(Debug, Default)]
pub struct Inbox {
    events: RefCell<Vec<Event>>,
    fatal: RefCell<Option<Fatal>>,
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Inbox {
    /// Tell the loop that something happened.
    pub fn push(&self, event: Event) {
        self.events.borrow_mut().push(event);
        self.wake();
    }

    /// Tell the loop that this node must stop. The first reason is the one that is told.
    pub fn fail(&self, fatal: Fatal) {
        self.fatal.borrow_mut().get_or_insert(fatal);
        self.wake();
    }

    /// Wake the loop: time has passed, or there is something for it to look at.
    pub fn wake(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Move all events to the end of `into`.
    pub fn take(&self, into: &mut Vec<Event>) {
        into.append(&mut self.events.borrow_mut());
    }

    /// Why the node must stop, if it must.
    pub fn fatal(&self) -> Option<Fatal> {
        self.fatal.borrow_mut().take()
    }

    /// Ready once after each [`wake`](Self::wake).
    pub fn poll_woken(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.rung.take() {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}
