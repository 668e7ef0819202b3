//! Outrigger: a multi-raft storage node for Linux. Many small replicated logs, one executor per core
//! on io_uring, one durable log per core, spoken to with the Redis protocol.
//!
//! ```text
//!  client                                                                   peers
//!    │ request                                                        frames ▲ │
//!    ▼                                                                       │ ▼
//! ┌─ runtime/ ── one thread per core · glommio · the only folder that waits ────────────┐
//! │  client_conn ─┐            ┌─► wal_writer ──► disk (O_DIRECT, one log per shard)    │
//! │  peer_link  ──┼─ events ─┐ ├─► peer_link                                            │
//! │  ring       ──┘          │ └─► client_conn (replies)                                │
//! │                          ▼ │                                                        │
//! ├────────────────────── shard_loop ───────────────────────────────────────────────────┤
//! │            Shard::on_event(now, event) …   Shard::turn(now, &mut Effects)           │
//! └──────────────────────────┬──────────────────────────────────────────────────────────┘
//!    PURE: no clock, no disk, no await; the same inputs always give the same outputs
//!    ┌───────────┐     ┌───────────┐     ┌───────────┐      bytes: wal/  wire/
//!    │  shard/   │ ──► │  group/   │ ──► │   raft/   │      data:  store/ (the state machine)
//!    │ many      │     │ one       │     │ one       │
//!    │ groups,   │     │ replica:  │     │ log       │      sim/ drives the same Shard with a
//!    │ one core  │     │ who waits │     │ agreement │      seed instead of a kernel
//!    └───────────┘     └───────────┘     └───────────┘
//! ```
//!
//! # The seam
//!
//! Everything that decides is a plain function of what it is told; everything that waits obeys. A
//! driver hands a [`shard::Shard`] what happened, calls [`shard::Shard::turn`] once, and does what
//! [`shard::Effects`] asks: writes, frames, replies. Here is a whole driver, for one node that is
//! its own quorum, with a `Vec` in place of a disk. Note where the answer comes from: there is none
//! before the write that holds the command has been reported durable. The write is sent twice, as a
//! client would that heard nothing the first time; because it is sent in a session, it is executed
//! once.
//!
//! ```
//! use outrigger::id::{ClusterId, ConnId, Incarnation, NodeId, ShardId, Tick};
//! use outrigger::shard::event::Request;
//! use outrigger::shard::{Config, Effects, Event, Recovering};
//! use outrigger::store::connection::Manner;
//! use outrigger::wire::reply::Reply;
//! use outrigger::wire::resp::Command;
//!
//! let config = Config {
//!     cluster: ClusterId(1),
//!     node: NodeId(1),
//!     incarnation: Incarnation(1),
//!     shard: ShardId(0),
//!     cores: 1,
//!     groups: 1,
//!     nodes: vec![NodeId(1)],
//!     addresses: Vec::new(),
//!     election_ms: 100,
//!     heartbeat_ms: 10,
//!     priority: 100,
//!     request_ms: 1_000,
//!     flushes_in_flight: 2,
//!     flush_joins_bytes: outrigger::limits::FLUSH_JOINS_BYTES,
//!     leases: outrigger::shard::Leases::default(),
//!     log_cache_bytes: 1 << 20,
//!     log_bytes: 1 << 30,
//!     snapshot_bytes_per_s: 64 << 20,
//!     seed: 7,
//! };
//! // An empty log is a new shard.
//! let (mut shard, _) = Recovering::new(config).finish(Tick(0))?;
//! let mut disk = Vec::new();
//! let mut fx = Effects::default();
//!
//! // What to say, and what was answered; one after the other.
//! let mut session = String::new();
//! let mut answers = Vec::new();
//! let mut asked = 0;
//! for now in (0..1_000).map(Tick) {
//!     if shard.replicas()[0].status().leader_ready && asked == answers.len() {
//!         let words: String = match asked {
//!             0 => "SET greeting hello".into(),
//!             1 => "CLIENT SESSION OPEN".into(),
//!             2 | 3 => format!("CLIENT SESSION RUN {session} 1 APPEND greeting !"),
//!             4 => "GET greeting".into(),
//!             _ => break,
//!         };
//!         asked += 1;
//!         let args: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
//!         let command = Command::from_args(&args);
//!         let (conn, seq, manner) = (ConnId(1), 0, Manner::default());
//!         let request = Request { conn, seq, command, after_writes: false, manner };
//!         shard.on_event(now, Event::Request(request));
//!     }
//!     shard.turn(now, &mut fx);
//!     if let Some(segment) = fx.spare.take() {
//!         shard.on_event(now, Event::SpareReady(segment));
//!     }
//!     for reply in fx.replies.drain(..) {
//!         if let (2, Reply::Int(id)) = (asked, &reply.reply) {
//!             session = id.to_string();
//!         }
//!         answers.push(reply.reply);
//!     }
//!     for write in fx.writes.drain(..) {
//!         assert!(asked != 1 || answers.is_empty(), "answered before it was durable");
//!         let mut bytes = vec![0; write.bytes];
//!         write.encode_into(&mut bytes);
//!         disk.push(bytes);
//!         shard.on_event(now, Event::Flushed(write.ticket));
//!     }
//! }
//! assert_eq!(answers[0], Reply::Ok);
//! assert_eq!(answers[2..4], [Reply::Int(6), Reply::Int(6)], "the second time, the first answer");
//! assert_eq!(answers[4], Reply::bulk("hello!"), "executed once");
//! assert!(disk.iter().flatten().count() > 0);
//! # Ok::<(), outrigger::shard::RecoverError>(())
//! ```
//!
//! # Embedding
//!
//! With the feature `runtime`, four names are the paved path: a [`Node`] is started with a [`Config`] and a
//! factory of [`StateMachine`]s, and a [`Client`] calls it. `docs/embedding.md` is the guide, `examples/` has four
//! programs.
//!
//! # Reading order
//!
//! The modules below stand in the order in which a write travels: from its names and bounds, through
//! the bytes on the wire, the core that owns its group, agreement, the log, the state machine, and
//! last the two drivers. `docs/life-of-a-write.md` walks the same path file by file.
//!
//! # Features
//!
//! `runtime` (default) brings glommio, sockets, files and the server. Without it the crate is exactly
//! the part that can be replayed, simulator included, and builds on any operating system. `tool` is part of `runtime`, and
//! alone adds to that what looks at the log that a node left (`outrigger tool`).

pub mod entry;
pub mod id;
pub mod limits;
pub mod planted;

pub mod wire;

pub mod shard;

pub mod group;

pub mod raft;

pub mod wal;

pub mod store;

pub mod sim;

#[cfg(feature = "tool")]
#[doc(hidden)]
pub mod tool;

#[cfg(feature = "runtime")]
pub mod config;
#[cfg(feature = "runtime")]
pub mod runtime;

pub use store::StateMachine;

#[cfg(feature = "runtime")]
pub use config::Config;
#[cfg(feature = "runtime")]
pub use runtime::{Client, Node};
