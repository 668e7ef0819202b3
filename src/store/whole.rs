//! Snapshots of a state that is small enough to be copied in one piece: counters, a few settings.
//!
//! What [`StateMachine::freeze`] copies here it copies while the core waits, so a machine with much data has a
//! [`Frozen`] of its own: a persistent map as in [`super::map`], or a read transaction of its engine.

use bytes::{Bytes, BytesMut};

use super::{Frozen, RestoreError, Restoring, StateMachine};

/// The state as it is now, in bytes that [`restoring`] understands: for [`StateMachine::freeze`].
#[must_use]
pub fn frozen(state: impl Into<Bytes>) -> Box<dyn Frozen> {
    Box::new(Whole(state.into()))
}

/// What makes a machine of those bytes again; `None` if they are not what a machine of this kind gives out. For
/// [`StateMachine::restoring`].
pub fn restoring(machine: fn(&[u8]) -> Option<Box<dyn StateMachine>>) -> Box<dyn Restoring> {
    Box::new(Parts { bytes: BytesMut::new(), machine })
}

struct Whole(Bytes);

impl Frozen for Whole {
    fn next_chunk(&mut self, bytes_max: usize) -> Option<Bytes> {
        let bytes = bytes_max.min(self.0.len());
        (bytes > 0).then(|| self.0.split_to(bytes))
    }
}

struct Parts {
    bytes: BytesMut,
    machine: fn(&[u8]) -> Option<Box<dyn StateMachine>>,
}

impl Restoring for Parts {
    fn chunk(&mut self, chunk: &Bytes) -> Result<(), RestoreError> {
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn StateMachine>, RestoreError> {
        let left = self.bytes.len();
        (self.machine)(&self.bytes).ok_or(RestoreError::CutShort { left })
    }
}
