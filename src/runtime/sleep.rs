//! How a core waits: in its own ring, until a socket is ready, mail arrives, a disk write ends or the
//! next tick is due.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::mailbox::Mailbox;
use super::poller::{Interest, Poller, Token};
use super::ring::Ring;

/// One per core.
#[derive(Debug)]
pub struct Sleeper<T> {
    mailbox: Arc<Mailbox<T>>,
}

impl<T> Sleeper<T> {
    /// Sleeps until `poller` or `mailbox` has something; the mailbox's bell is put into the poller's set.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new(poller: &Poller, mailbox: Arc<Mailbox<T>>) -> io::Result<Self> {
        poller.add(mailbox.bell(), Token::Bell.into(), Interest::READ)?;
        Ok(Self { mailbox })
    }

    /// Wait, no longer than `timeout`. Spurious returns are possible.
    ///
    /// # Errors
    /// See [`Ring::wait`].
    pub fn sleep(&self, ring: &mut Ring, timeout: Duration) -> io::Result<()> {
        self.mailbox.prepare_to_sleep();
        let woken = ring.wait(timeout);
        self.mailbox.awake();
        woken
    }
}
