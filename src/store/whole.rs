//! Snapshots of a state that is small enough to be copied in one piece: counters, a few settings.
//!
//! What [`StateMachine::freeze`] copies here it copies while the core waits, so a machine with much data has a
//! [`Frozen`] of its own: a persistent map as in [`super::map`], or a read transaction of its engine.

use bytes::{Bytes, BytesMut};

use super::{Frozen, RestoreError, Restoring, StateMachine};

/// The state as it is now, in bytes that [`restoring`] understands: for [`StateMachine::freeze`].
///
/// ```
/// use outrigger::store::whole;
///
/// let sum: u64 = 42;
/// // What `freeze` returns for it. Later changes of the sum are not in it.
/// let mut frozen = whole::frozen(sum.to_be_bytes().to_vec());
/// // It is drained in chunks of at most so many bytes, and nothing says where they are cut.
/// let chunks = std::iter::from_fn(|| frozen.next_chunk(5));
/// assert_eq!(chunks.map(|chunk| chunk.len()).collect::<Vec<_>>(), [5, 3]);
/// ```
#[must_use]
pub fn frozen(state: impl Into<Bytes>) -> Box<dyn Frozen> {
    Box::new(Whole(state.into()))
}

/// What makes a machine of those bytes again; `None` if they are not what a machine of this kind gives out. For
/// [`StateMachine::restoring`].
///
/// ```
/// # use bytes::Bytes;
/// # use outrigger::{id::Index, store::Wanted, wire::reply::Reply};
/// use outrigger::store::{Frozen, Restoring, StateMachine, whole};
///
/// struct Sum(u64);
///
/// impl StateMachine for Sum {
///     fn freeze(&self) -> Box<dyn Frozen> {
///         whole::frozen(self.0.to_be_bytes().to_vec())
///     }
///     fn restoring(&self) -> Box<dyn Restoring> {
///         // Anything but eight bytes is no sum: the snapshot is refused.
///         whole::restoring(|bytes| Some(Box::new(Sum(u64::from_be_bytes(bytes.try_into().ok()?)))))
///     }
///     // …
/// #     fn apply(&mut self, _: Index, payload: &Bytes, _: Wanted) -> Reply {
/// #         self.0 += payload.len() as u64;
/// #         Reply::Int(self.0 as i64)
/// #     }
/// #     fn read(&self, _: &Bytes) -> Reply {
/// #         Reply::Int(self.0 as i64)
/// #     }
/// #     fn digest(&self) -> u64 {
/// #         self.0
/// #     }
/// #     fn len(&self) -> u64 {
/// #         1
/// #     }
/// }
///
/// // What becomes of a snapshot on a node that was away for too long:
/// let (mut frozen, mut restoring) = (Sum(42).freeze(), Sum(0).restoring());
/// while let Some(chunk) = frozen.next_chunk(5) {
///     restoring.chunk(&chunk)?;
/// }
/// assert_eq!(restoring.finish()?.digest(), 42);
/// assert!(Sum(0).restoring().finish().is_err(), "no bytes are no sum");
/// # Ok::<(), outrigger::store::RestoreError>(())
/// ```
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
