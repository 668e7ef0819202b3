//! Messages to a core from elsewhere: from its siblings, and from the threads that wait for the
//! disk on its behalf.
//!
//! ```text
//!  core 1 ──┐ put                                  take: the whole batch, once per turn
//!  core 2 ──┼────► Mutex<Vec<T>> ──────────────────────────────────────► core 0
//!  threads ─┘            │ only if core 0 sleeps
//!                        └──► bell (eventfd in core 0's epoll set)
//! ```
//!
//! A sender rings only when the receiver has said that it is going to sleep, and only the first one
//! does: a busy core is never interrupted, and a batch costs one wake-up however long it is. The
//! bell is an eventfd of ours, not glommio's foreign wake-up, which can be lost (docs/decisions/0003-glommio-fenced.md).
//!
//! # Why no wake-up is lost
//!
//! The receiver marks itself asleep, *then* looks into the box. The sender puts, *then* looks at
//! the mark. The box's lock orders the two: either the receiver's look comes after the put and
//! finds the message, or the put comes after the look and finds the mark.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;

/// One core's box. One per core, shared by everyone who writes to it.
#[derive(Debug)]
pub struct Mailbox<T> {
    messages: Mutex<Vec<T>>,
    bound: usize,
    bell: OwnedFd,
    asleep: AtomicBool,
    /// The receiver has ended. Set and read under the lock of the messages.
    closed: AtomicBool,
}

impl<T> Mailbox<T> {
    /// An empty box that refuses new work past `bound` messages.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new(bound: usize) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            messages: Mutex::new(Vec::new()),
            bound,
            bell: rustix::event::eventfd(0, flags)?,
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    /// Put new work in.
    ///
    /// # Errors
    /// Gives the message back when the box is full or closed: the caller tells whoever asked.
    pub fn offer(&self, message: T) -> Result<(), T> {
        let mut messages = self.lock();
        if self.bound <= messages.len() || self.is_closed() {
            return Err(message);
        }
        messages.push(message);
        drop(messages);
        self.ring();
        Ok(())
    }

    /// Put in something that was asked for. There is always room: whoever asked holds a slot for
    /// the answer, and those are bounded (`limits::REQUESTS_MAX`). A closed box drops it.
    pub fn deliver(&self, message: T) {
        let mut messages = self.lock();
        if self.is_closed() {
            // Outside the lock: what is dropped may tell somebody so.
            drop(messages);
            return drop(message);
        }
        messages.push(message);
        drop(messages);
        self.ring();
    }

    /// The receiver has ended: what it has not taken is given back, and nothing is taken in from now on.
    pub fn close(&self) -> Vec<T> {
        let mut messages = self.lock();
        self.closed.store(true, Ordering::SeqCst);
        std::mem::take(&mut *messages)
    }

    /// Whether the receiver has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Move everything into `into`, which must be empty; its memory is left in the box.
    pub fn take(&self, into: &mut Vec<T>) {
        debug_assert!(into.is_empty(), "the batch before was not used up");
        let mut messages = self.lock();
        if !messages.is_empty() {
            std::mem::swap(&mut *messages, into);
        }
    }

    /// Whether there is such a message; it stays.
    #[must_use]
    pub fn holds(&self, wanted: impl Fn(&T) -> bool) -> bool {
        self.lock().iter().any(wanted)
    }

    /// The receiver is about to sleep. If there is mail already, the bell rings at once.
    pub fn prepare_to_sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        if !self.lock().is_empty() {
            self.ring();
        }
    }

    /// The receiver is awake.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Becomes readable when a message arrives while the receiver sleeps.
    #[must_use]
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Ring without a message: the next sleep returns at once, but only after the reactor has run.
    pub fn nudge(&self) {
        // It can only fail when the counter is about to overflow: it rings already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Stop the bell from ringing.
    pub fn silence(&self) {
        let mut count = [0; 8];
        // Nothing to read means that it was not ringing.
        let _ = rustix::io::read(&self.bell, &mut count);
    }

    fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.nudge();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        // A sender that panicked while it held the lock was inside `Vec::push`, which leaves the
        // vector whole.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_full_box_gives_new_work_back_and_takes_answers() {
        let mailbox = Mailbox::new(2).unwrap();
        mailbox.offer(1).unwrap();
        mailbox.offer(2).unwrap();
        assert_eq!(mailbox.offer(3), Err(3));
        mailbox.deliver(4);
        let mut batch = Vec::new();
        mailbox.take(&mut batch);
        assert_eq!(batch, [1, 2, 4]);
        mailbox.offer(5).unwrap();
    }

    #[test]
    fn a_closed_box_gives_back_what_is_in_it_and_takes_nothing() {
        let mailbox = Mailbox::new(2).unwrap();
        mailbox.offer(1).unwrap();
        assert_eq!(mailbox.close(), [1]);
        assert_eq!(mailbox.offer(2), Err(2));
        mailbox.deliver(3);
        assert!(mailbox.close().is_empty());
    }

    #[test]
    fn only_a_sleeper_is_rung_and_only_once() {
        let mailbox = Mailbox::new(10).unwrap();
        let rung = |mailbox: &Mailbox<u32>| {
            let mut count = [0; 8];
            rustix::io::read(mailbox.bell(), &mut count).is_ok_and(|_| count[0] == 1)
        };
        mailbox.deliver(1);
        assert!(!rung(&mailbox), "the receiver was awake");
        mailbox.prepare_to_sleep();
        assert!(rung(&mailbox), "it has mail");
        mailbox.take(&mut Vec::new());
        mailbox.prepare_to_sleep();
        mailbox.deliver(2);
        mailbox.deliver(3);
        assert!(rung(&mailbox));
        assert!(!rung(&mailbox));
    }

    /// docs/decisions/0003-glommio-fenced.md: two executors and a shared channel of glommio's own hung in 6 of 12 runs. Ours
    /// must pass more messages than any run of those did, sleeping and waking all the while.
    #[test]
    fn two_cores_pass_a_million_messages() {
        use super::super::poller::{Poller, Token};
        use super::super::ring::Ring;
        use super::super::sleep::Sleeper;
        use std::time::Duration;

        const COUNT: u64 = 1_000_000;
        const WINDOW: u64 = 64;
        let boxes: Vec<_> = (0..2).map(|_| Arc::new(Mailbox::new(1 << 20).unwrap())).collect();
        let cores: Vec<_> = [0usize, 1]
            .into_iter()
            .map(|core| {
                let (ours, theirs) = (Arc::clone(&boxes[core]), Arc::clone(&boxes[1 - core]));
                std::thread::spawn(move || {
                    let mut poller = Poller::new().unwrap();
                    let sleeper = Sleeper::new(&poller, Arc::clone(&ours)).unwrap();
                    let mut ring = Ring::new(&poller, Duration::ZERO).unwrap();
                    let (mut ready, mut batch, mut next) = (Vec::new(), Vec::new(), 0);
                    let mut done = Vec::new();
                    if core == 0 {
                        (0..WINDOW).for_each(|message| theirs.deliver(message));
                    }
                    while next < COUNT {
                        // Nothing but the bell ends this sleep: a wake-up that is lost hangs the test.
                        sleeper.sleep(&mut ring, Duration::from_secs(3600)).unwrap();
                        ring.take(&mut done);
                        assert!(done.is_empty());
                        poller.poll(&mut ready).unwrap();
                        for report in ready.drain(..) {
                            assert_eq!(Token::from_number(report.token), Some(Token::Bell));
                            ours.silence();
                        }
                        ours.take(&mut batch);
                        for message in batch.drain(..) {
                            assert_eq!(message, next, "order was lost");
                            next += 1;
                            // Core 1 echoes; core 0 answers an echo with the next number.
                            match core {
                                1 => theirs.deliver(message),
                                _ if message + WINDOW < COUNT => theirs.deliver(message + WINDOW),
                                _ => {}
                            }
                        }
                    }
                    next
                })
            })
            .collect();
        for core in cores {
            assert_eq!(core.join().unwrap(), COUNT);
        }
    }
}
