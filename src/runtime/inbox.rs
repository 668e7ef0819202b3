//! What a core's own tasks tell its shard loop, without locks: both live on one thread.

use std::cell::RefCell;

use super::fatal::Fatal;

/// One per core, shared by the loop and the tasks that open and close files for it.
#[derive(Debug, Default)]
pub struct Inbox {
    fatal: RefCell<Option<Fatal>>,
}

impl Inbox {
    /// Tell the loop that this node must stop. The first reason is the one that is told.
    pub fn fail(&self, fatal: Fatal) {
        self.fatal.borrow_mut().get_or_insert(fatal);
    }

    /// Why the node must stop, if it must.
    pub fn fatal(&self) -> Option<Fatal> {
        self.fatal.borrow_mut().take()
    }
}
