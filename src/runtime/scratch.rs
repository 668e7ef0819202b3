//! What tests of the shell need: a directory that goes away with its test, and an executor as a core has.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

/// An empty directory on a real file system (O_DIRECT must work), removed when dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Not /tmp by choice but next to the build, which is never a memory file system.
        let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/scratch");
        let path = base.join(format!("{name}-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Runs a test as a core runs: in an executor that preempts nobody.
pub(super) fn run_on_executor<F: Future<Output = ()> + 'static>(
    test: impl FnOnce() -> F + Send + 'static,
) {
    LocalExecutorBuilder::new(Placement::Unbound)
        .preempt_timer(Duration::from_secs(3600))
        .spawn(move || async move { test().await })
        .unwrap()
        .join()
        .unwrap();
}
