//! The shell: driver two. The only folder that waits, and the only one that touches a clock, a
//! file or a socket.
//!
//! ```text
//!  main thread          binds ports once, starts cores, waits for signals and ends
//!  │
//!  ├─ core-N ── glommio executor, one queue, no preemption ────────────────────────────────┐
//!  │    shard_loop   the one task that thinks; owns the shard and every socket             │
//!  │      reap       ring ─► wal_writer: what the disk has done                            │
//!  │      gather     poller ─► clients, peer port, links    mailbox                        │
//!  │      think      Shard::on_event … Shard::turn                                         │
//!  │      perform    wal_writer ─► ring · links · siblings' mailboxes · clients · readers  │
//!  │      sleep      in the ring: a socket, the bell, a disk write, or 5 ms at most        │
//!  │    file tasks   open and close segments, off the path of a write                      │
//!  ├─ admin         HTTP for operators; asks the cores by mail, and only so often
//!  ├─ prep-N        makes log segments ahead of need ─► mailbox                            │
//!  └─ read-N        reads entries back from sealed segments ─► mailbox ────────────────────┘
//! ```
//!
//! # Promises
//!
//! - A flush is reported only when the device has everything it covers for good. After the
//!   first error nothing is reported any more, and the node ends with one line and a non-zero exit.
//! - A frame is handed to the kernel at most once.
//! - What was read from a socket in one turn is thought about in that turn, together.
//! - Nothing in a turn waits: not for a disk, a socket, a lock held across work, or another core.
//! - Everything that can fill up is bounded (`limits.rs`) and says so when it is full.
//!
//! # Assumes
//!
//! Its directory belongs to this process alone; memory maps and log files depend on it.
//!
//! # Never
//!
//! Decides anything about raft. There is no `if` about terms, votes or leaders here.
//!
//! # glommio, and what was put around it
//!
//! glommio runs each core's executor, and opens and closes files. Its faults, and how each is fenced,
//! are in `docs/decisions/0003-glommio-fenced.md`; the short of it: its preemption timer is set to an hour
//! and all queues are alike, because that timer is what loses wake-ups; files are whole before they are
//! opened, and closed by hand. Sockets (see [`poller`]), log writes and sleeping (see [`ring`]) are not
//! its business.
//!
//! One consequence is worth knowing: *glommio's tasks run only when the loop lets them.* It does so while
//! there are any, and only then.
//!
//! # The end, in order (contract row 60)
//!
//! ```text
//!  1  Stop        no new clients; turns go on
//!  2  idle        until snapshots stand for the log (`--checkpoint-ms`) and nothing is staged or in
//!                 flight, at most 5 s, or as long as the snapshots may take
//!  3  links, port closed: nothing new can arrive
//!  4  closing     one last write proves the last batch durable
//!  5  files       closed; the executor ends; the main thread returns
//! ```

#![allow(clippy::disallowed_methods, reason = "the shell is where time enters the system")]

// What a program builds on.
pub mod client;
pub mod fatal;
pub mod log;
pub mod metrics;
pub mod node;
pub mod segments;
pub mod watch;

// Parts of the `outrigger` binary, which our own benchmarks and tests take apart. No promise is made of them.
#[doc(hidden)]
pub mod access;
#[doc(hidden)]
pub mod admin;
#[doc(hidden)]
pub mod asker;
#[doc(hidden)]
pub mod backup;
#[doc(hidden)]
pub mod book;
#[doc(hidden)]
pub mod buffers;
#[doc(hidden)]
pub mod client_conn;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod ctl;
#[doc(hidden)]
pub mod disk;
#[doc(hidden)]
pub mod doctor;
#[doc(hidden)]
pub mod doorkeeper;
#[doc(hidden)]
pub mod explain;
#[doc(hidden)]
pub mod faults;
#[doc(hidden)]
pub mod identity;
#[doc(hidden)]
pub mod inbox;
#[doc(hidden)]
pub mod keyring;
#[doc(hidden)]
pub mod lanes;
#[doc(hidden)]
pub mod listener;
#[doc(hidden)]
pub mod mailbox;
#[doc(hidden)]
pub mod mapped;
#[doc(hidden)]
pub mod peer_link;
#[doc(hidden)]
pub mod peer_port;
#[doc(hidden)]
pub mod peer_stream;
#[doc(hidden)]
pub mod poller;
#[doc(hidden)]
pub mod preflight;
mod process;
#[doc(hidden)]
pub mod provided;
#[doc(hidden)]
pub mod pulse;
#[doc(hidden)]
pub mod quorum_loss;
#[doc(hidden)]
pub mod recovery;
#[doc(hidden)]
pub mod ring;
#[doc(hidden)]
pub mod roll;
#[doc(hidden)]
pub mod roster;
#[doc(hidden)]
pub mod serve;
#[doc(hidden)]
pub mod shard_loop;
#[doc(hidden)]
pub mod sleep;
#[doc(hidden)]
pub mod slots;
#[doc(hidden)]
pub mod socket;
#[doc(hidden)]
pub mod start;
#[doc(hidden)]
pub mod tls;
#[doc(hidden)]
pub mod top;
#[doc(hidden)]
pub mod up;
#[doc(hidden)]
pub mod validity;
#[doc(hidden)]
pub mod visitors;
#[doc(hidden)]
pub mod wal_reader;
#[doc(hidden)]
pub mod wal_writer;

mod private;

#[cfg(test)]
mod certificates;
#[cfg(test)]
mod scratch;

pub use client::Client;
pub use fatal::Fatal;
pub use node::{Machines, Node, Setup, Stopper};
