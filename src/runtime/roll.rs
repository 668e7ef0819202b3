//! The table of users as this node knows it: written by the core that has the first group, read by all.
//!
//! ```text
//!   group 0's core ── applied ──► Roll ◄── before each command: still this version? ── connections
//! ```
//!
//! Asking is one load of a number. Only when it has changed is the lock taken and the table fetched.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::acl::Users;

/// One per node.
#[derive(Debug, Default)]
pub struct Roll {
    version: AtomicU64,
    users: Mutex<Arc<Users>>,
}

impl Roll {
    /// Changes whenever the table does.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The table, and its version. What is returned is at least as new as that version.
    #[must_use]
    pub fn users(&self) -> (u64, Arc<Users>) {
        let version = self.version();
        (version, Arc::clone(&self.users.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The table is this one from now on, for every command that is read after this.
    pub fn publish(&self, users: Arc<Users>) {
        *self.users.lock().unwrap_or_else(PoisonError::into_inner) = users;
        self.version.fetch_add(1, Ordering::Release);
    }
}
