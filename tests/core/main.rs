//! What needs no kernel: whole clusters in the simulator. Runs anywhere, in seconds.

mod embed;
mod seeds;
