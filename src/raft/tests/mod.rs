//! A cluster in memory, and what it must never do.
//!
//! [`harness`] holds the nodes, their disks and the wire, and watches safety after every event;
//! `asks`, `contract`, `elections`, `follows`, `invariants`, `loop_order`, `paper`, `mistakes`, `membership`, `lease`, `snapshot`,
//! `appends`, `recall` and `rest` are stories told to it one delivery at a time; `random` tells it thousands that
//! nobody thought of, and `nonsense` thousands that cannot be.

mod appends;
mod asks;
mod contract;
mod elections;
mod follows;
mod harness;
mod invariants;
mod lease;
mod loop_order;
mod membership;
mod mistakes;
mod nonsense;
mod paper;
mod random;
mod recall;
mod rest;
mod snapshot;
