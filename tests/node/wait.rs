//! Waiting: for a condition, with a deadline that says what was waited for.

use std::time::{Duration, Instant};

/// No wait in these tests is shorter. It bounds a hang; it is never a measure of speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The first `Some` of `probe`, asked again and again.
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < give_up, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Returns once `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}
