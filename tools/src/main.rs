//! `cargo tool …`; everything is in the library beside it.

use std::process::ExitCode;

/// Simulated worlds allocate for every frame and every write, as the nodes in them would once each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tools::run()
}
