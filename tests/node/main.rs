//! The server from outside: the real `outrigger` binary, driven over TCP and by signals.
//!
//! ```text
//!  #[test] ──► client.rs ──RESP──►  outrigger serve ×3   ◄── cluster.rs starts, kills, restarts
//!                                   outrigger up
//! ```
//!
//! Nothing here but `embedded.rs` and `executors.rs`, which run nodes in their own process, and `tool.rs`, which
//! writes a log with the pure core, knows how the server works; every expectation is a promise made to the outside:
//! Redis' own behaviour, docs/commands.md, docs/operations.md, `--help`. Commands are told as transcripts
//! (`script.rs`) and share one cluster; whoever breaks things starts a cluster of their own.
//! No test asserts a speed: deadlines are generous, and only say when to stop waiting.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests from outside live in real time: they sleep, spawn threads and read the clock"
)]

mod client;
mod cluster;
mod info;
mod script;
mod shared;
mod wait;

mod admin;
mod backup;
mod clients;
mod cluster_protocol;
mod collections;
mod commands;
mod config;
mod crash;
mod damage;
mod embedded;
mod executors;
mod expiry;
mod explain;
mod faults;
mod full;
mod golden;
mod hello;
mod limits;
mod linearizable;
mod logs;
mod lookup;
mod members;
mod outsiders;
mod peers;
mod pipeline;
mod protocol;
mod quorum_loss;
mod refusal;
mod report;
mod scan;
mod security;
mod sessions;
mod snapshots;
mod stop;
mod tool;
mod transactions;
mod up;
mod users;
