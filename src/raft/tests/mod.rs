//! A cluster in memory, and what it must never do.
//!
//! [`harness`] holds the nodes, their disks and the wire, and watches safety after every event;
//! `contract`, `paper` and `mistakes` are stories told to it one delivery at a time; `random` tells
//! it thousands that nobody thought of.

mod contract;
mod harness;
mod mistakes;
mod paper;
mod random;
