//! Outrigger: a multi-raft storage node for Linux.
#[cfg(feature = "runtime")]
pub mod config;
pub mod entry;
pub mod group;
pub mod id;
pub mod limits;
pub mod raft;
#[cfg(feature = "runtime")]
pub mod runtime;
pub mod shard;
pub mod sim;
pub mod store;
pub mod wal;
pub mod wire;
