//! Driver one: a cluster, a seed, no kernel.
//!
//! The same [`Shard`](crate::shard::Shard) that `runtime/` drives with glommio is driven here by a
//! queue of events in virtual time: three or five nodes, clients, a network that delays, loses,
//! repeats and garbles, disks that tear what was not flushed, nodes that crash at any moment. Every
//! run ends with the question whether what clients saw can be explained by one copy of the data,
//! and all the way the properties of the Raft paper are checked ([`safety`]).
//!
//! ```text
//!  seed ─► Options::swarm ─► which faults, how hard
//!    │                          │
//!    └────► dice ───────────► World: queue ─► Shard ─► effects ─► queue …   trace hash
//!                                              │            │
//!                                           safety       history ─► linear
//! ```
//!
//! # How determinism is kept
//!
//! - One generator, seeded with the seed, makes every choice; time is a number in the world.
//! - Everything that happens goes through one queue, ordered by time and then by a coin.
//! - No hash maps, no clocks, no threads in anything that runs here (`.clippy.toml` sees to it).
//! - A rolling hash covers every event and effect with the bytes it carries. Two runs of one seed
//!   must end with the same hash; `tests/core/seeds.rs` checks it.
//!
//! # How to replay
//!
//! A failure names its seed: `cargo tool sim --seed S --trace` runs it again and tells its story.
//! `cargo tool sim --seeds 1000` runs a range. A seed stands for its story only at one commit: when
//! the code asks for one more random number, all the dice fall differently.
//!
//! # Your own state machine
//!
//! [`embed`] runs the same worlds with a machine of yours in them.
//!
//! ```
//! use outrigger::sim::{self, Options};
//!
//! let options = Options { chaos_ms: 1_000, ..Options::swarm(7) };
//! let outcome = sim::run(7, &options).expect("nothing acknowledged is ever lost");
//! assert!(outcome.acked > 0);
//! // The same seed, the same world: the same to the last bit.
//! assert_eq!(sim::run(7, &options).expect("as before"), outcome);
//! // Another seed, another world.
//! assert_ne!(sim::run(8, &options).expect("fine too").trace_hash, outcome.trace_hash);
//! ```

mod alone;
pub mod appends;
mod clients;
pub mod crash_points;
mod decay;
pub mod disk;
pub mod embed;
mod embedded;
mod everywhere;
mod finish;
mod focus;
mod foreign;
pub mod history;
pub mod knobs;
mod ledger;
pub mod linear;
pub mod minimise;
mod nemesis;
pub mod net;
mod node;
mod operator;
mod options;
mod outcome;
mod perform;
mod power;
mod promises;
mod queue;
mod rehearsal;
mod replace;
pub mod safety;
mod sessions;
mod strikes;
pub mod trace;
mod workload;
mod world;

#[cfg(test)]
mod tests;

pub use crash_points::CrashPoint;
pub use options::Options;
pub use outcome::{Failure, Faults, Outcome};
pub use strikes::Strike;
pub use world::{narrate, run, try_once};
