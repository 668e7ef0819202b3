//! How a core waits: inside glommio, until a socket is ready, mail arrives, a disk write ends or
//! the ticker strikes.
//!
//! It always goes *through* glommio's reactor, even when there is work already: the reactor alone
//! submits disk writes and takes their completions, and it runs only when no task can. A loop that
//! merely yielded would be run again at once and the disk would never hear of its writes.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::inbox::Inbox;
use super::mailbox::Mailbox;
use super::poller::{Interest, Poller, Token, Watch};

/// One per core.
#[derive(Debug)]
pub struct Sleeper<T> {
    watch: Watch,
    mailbox: Arc<Mailbox<T>>,
    inbox: Rc<Inbox>,
}

impl<T> Sleeper<T> {
    /// Sleeps until `poller`, `mailbox` or `inbox` has something; the mailbox's bell is put into
    /// the poller's set.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new(poller: &Poller, mailbox: Arc<Mailbox<T>>, inbox: Rc<Inbox>) -> io::Result<Self> {
        poller.add(mailbox.bell(), Token::Bell.into(), Interest::READ)?;
        Ok(Self { watch: poller.watch()?, mailbox, inbox })
    }

    /// Wait. Spurious returns are possible.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub async fn sleep(&mut self) -> io::Result<()> {
        self.mailbox.prepare_to_sleep();
        let woken = poll_fn(|cx| {
            if self.inbox.poll_woken(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            self.watch.poll_ready(cx)
        })
        .await;
        self.mailbox.awake();
        woken
    }
}
