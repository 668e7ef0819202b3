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

pub mod access;
pub mod admin;
pub mod asker;
pub mod backup;
pub mod book;
pub mod client;
pub mod clock;
pub mod ctl;
pub mod disk;
pub mod doctor;
pub mod explain;
pub mod fatal;
pub mod faults;
pub mod identity;
pub mod node;
pub mod preflight;
mod process;
pub mod quorum_loss;
pub mod roll;
pub mod roster;
pub mod serve;
pub mod start;
pub mod top;
pub mod up;
pub mod watch;

pub mod inbox;
pub mod mailbox;
pub mod poller;
pub mod provided;
pub mod ring;
pub mod shard_loop;
pub mod sleep;

pub mod buffers;
pub mod client_conn;
pub mod doorkeeper;
pub mod keyring;
pub mod lanes;
pub mod listener;
pub mod peer_link;
pub mod peer_port;
pub mod peer_stream;
pub mod slots;
pub mod socket;
pub mod tls;

pub mod log;
pub mod mapped;
pub mod metrics;
pub mod pulse;
pub mod recovery;
pub mod segments;
pub mod wal_reader;
pub mod wal_writer;

#[cfg(test)]
mod certificates;
#[cfg(test)]
mod scratch;

pub use client::Client;
pub use fatal::Fatal;
pub use node::{Machines, Node, Setup, Stopper};
