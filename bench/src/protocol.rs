//! What a protocol has to say to be driven by [`crate::driver_epoll`]: how a connection begins, how
//! requests are written, how replies are stepped over.
//!
//! A connection's replies come in the order of its requests. That holds for the Redis protocol and
//! for ZooKeeper, and it is all the driver needs in order to pair them.

use crate::access::Login;
use std::io::{self, Read, Write};

/// What one reply was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Done, or found.
    Good,
    /// There is no such key.
    Nil,
    /// Refused, and in which words.
    Refused(String),
}

/// Bytes that are no reply. The connection cannot be used any further.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Garbage;

/// How connections of this run begin and what their writes mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Reads may be answered by the node a connection goes to.
    pub(crate) readonly: bool,
    /// Writes make keys that may not be there yet: the run that fills.
    pub(crate) creating: bool,
}

/// One connection's side of a protocol. One value per connection, made anew when it reconnects.
pub(crate) trait Protocol {
    /// What the protocol is called in messages.
    const NAME: &'static str;
    /// What is said before a connection is closed in order; may be nothing.
    const GOODBYE: &'static [u8];

    /// The state of a fresh connection.
    fn new(manner: Manner) -> Self;

    /// Says a password and waits for the answer. `stream` is blocking.
    fn login<S: Read + Write>(stream: &mut S, login: &Login) -> io::Result<()>;

    /// Says what has to be said next and waits for the answer. `stream` is blocking.
    fn hello<S: Read + Write>(stream: &mut S, manner: Manner) -> io::Result<()>;

    /// Appends a read of one key.
    fn push_read(&mut self, out: &mut Vec<u8>, key: u64);

    /// Appends a read of `keys` neighbouring keys, the first of which is `key`. The command line allows it only where
    /// [`crate::args::Target::scans`] does.
    fn push_scan(&mut self, out: &mut Vec<u8>, key: u64, keys: u64);

    /// Appends a write of one key, which may be `fresh`: not there yet. `push_value` appends the `value_bytes` bytes of
    /// the value itself.
    fn push_write(
        &mut self,
        out: &mut Vec<u8>,
        key: u64,
        fresh: bool,
        value_bytes: usize,
        push_value: impl FnOnce(&mut Vec<u8>),
    );

    /// Steps over the reply at the start of `input`: the bytes it takes and what it was, or `None`
    /// while it is incomplete.
    fn take_reply(&mut self, input: &[u8]) -> Result<Option<(usize, Reply)>, Garbage>;
}
