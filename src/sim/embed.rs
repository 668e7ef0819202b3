//! The simulator for embedders: whole clusters with faults, and *your* state machine in them.
//!
//! ```text
//!   factory ─────────► a machine per replica ─┐
//!   writes, reads ──► clients, some in sessions ├─► the same worlds as ours ─► checks
//!   seeds ──────────► faults                  ─┘
//! ```
//!
//! What is checked, beside everything that is checked of the product itself ([`super::safety`]):
//!
//! | check | what would break it |
//! |---|---|
//! | replicas that have applied the same entries have the same digest, at every index at which two were seen; also one that has restarted and replayed its log, and one that took a leader's snapshot | an `apply` that reads a clock, a random number, an address, the order of a hash map |
//! | all replies to one entry are the same | a reply that is no function of the log |
//! | what was executed, executed once more in log order by one machine alone, gives the same replies and digests | state outside the machine |
//! | every reply fits between its call and its return: the log's order is the order that clients saw (linearizability) | a read that changes the state, or is not a function of it |
//! | a machine frozen, cut into chunks and restored is the same machine | a `freeze` that leaves something out |
//! | a command is executed once, however often its session sent it | see [`crate::group::Sessions`] |
//! | once faults stop, every group answers, on every node | an `apply` that never returns |
//!
//! ```
//! use bytes::{Buf as _, Bytes};
//! use outrigger::id::Index;
//! use outrigger::sim::embed::Check;
//! use outrigger::store::{Frozen, RestoreError, Restoring, StateMachine, Wanted};
//! use outrigger::wire::reply::Reply;
//!
//! /// A sum that only grows.
//! struct Sum(u64);
//!
//! impl StateMachine for Sum {
//!     fn apply(&mut self, _: Index, payload: &Bytes, _: Wanted) -> Reply {
//!         self.0 += u64::from(payload[0]);
//!         Reply::Int(self.0 as i64)
//!     }
//!     fn read(&self, _: &Bytes) -> Reply {
//!         Reply::Int(self.0 as i64)
//!     }
//!     fn digest(&self) -> u64 {
//!         self.0
//!     }
//!     fn len(&self) -> u64 {
//!         1
//!     }
//!     fn freeze(&self) -> Box<dyn Frozen> {
//!         Box::new(State(Bytes::copy_from_slice(&self.0.to_be_bytes())))
//!     }
//!     fn restoring(&self) -> Box<dyn Restoring> {
//!         Box::new(State(Bytes::new()))
//!     }
//! }
//!
//! /// The state on its way out, and in.
//! struct State(Bytes);
//!
//! impl Frozen for State {
//!     fn next_chunk(&mut self, bytes_max: usize) -> Option<Bytes> {
//!         let bytes = bytes_max.min(self.0.len());
//!         (bytes > 0).then(|| self.0.split_to(bytes))
//!     }
//! }
//!
//! impl Restoring for State {
//!     fn chunk(&mut self, chunk: &Bytes) -> Result<(), RestoreError> {
//!         self.0 = [&self.0[..], &chunk[..]].concat().into();
//!         Ok(())
//!     }
//!     fn finish(mut self: Box<Self>) -> Result<Box<dyn StateMachine>, RestoreError> {
//!         let left = self.0.len();
//!         let sum = self.0.try_get_u64().map_err(|_| RestoreError::CutShort { left })?;
//!         Ok(Box::new(Sum(sum)))
//!     }
//! }
//!
//! // The test itself.
//! let report = Check::new(|| Box::new(Sum(0)))
//!     .writes(|rng| vec![rng.u8(1..)])
//!     .reads(|_| Vec::new())
//!     .seeds(0..3)
//!     .run()
//!     .unwrap_or_else(|failure| panic!("{failure}"));
//! assert!(report.executed > 100);
//! ```

use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use fastrand::Rng;

use crate::id::{GroupId, NodeId};
use crate::store::StateMachine;

use super::options::Options;
use super::outcome::Failure;
use super::world;

/// Makes an empty machine.
pub(super) type Machines = Rc<dyn Fn() -> Box<dyn StateMachine>>;
/// Opens the machine of a replica.
pub(super) type Opens = Rc<dyn Fn(NodeId, GroupId) -> Box<dyn StateMachine>>;
/// Makes the bytes of a command, or of a read.
pub(super) type Words = Rc<dyn Fn(&mut Rng) -> Vec<u8>>;

/// A check of one kind of machine; begins with a factory, ends with [`Check::run`].
///
/// ```
/// use outrigger::sim::embed::Check;
/// use outrigger::store::map::Map;
/// use outrigger::wire::resp::Command;
///
/// let check = Check::new(|| Box::new(Map::new()))
///     .writes(|rng| {
///         let by = rng.u8(1..).to_string();
///         Command::from_args(&[b"INCRBY", b"sum", by.as_bytes()]).raw.to_vec()
///     })
///     .reads(|_| Command::from_args(&[b"GET", b"sum"]).raw.to_vec())
///     // Five nodes of one core each, whatever the seed draws.
///     .shape(|options| options.cores = vec![1; 5])
///     .seeds(0..2);
/// // A failure names its seed: `seeds(seed..seed + 1)` is the same world again.
/// let report = check.run().unwrap_or_else(|failure| panic!("{failure}"));
/// assert_eq!(report.worlds, 2);
/// assert!(0 < report.executed && 0 < report.compared);
/// ```
#[derive(Clone)]
pub struct Check {
    pub(super) machines: Machines,
    pub(super) opens: Option<Opens>,
    pub(super) writes: Words,
    pub(super) reads: Option<Words>,
    seeds: Range<u64>,
    shape: Rc<dyn Fn(&mut Options)>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

/// What all worlds of a check have to show for themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Worlds.
    pub worlds: u64,
    /// Commands that the machine executed, counted once each.
    pub executed: u64,
    /// Reads that were answered.
    pub read: u64,
    /// Digests that were compared with another replica's, or with the same replica's before a restart.
    pub compared: u64,
    /// Commands that were answered after more than one attempt.
    pub retried: u64,
    /// Faults injected, single frames not counted.
    pub faults: u64,
    /// Snapshots from a leader that took the place of a machine.
    pub installed: u64,
}

impl Check {
    /// A check of the machines that this makes: empty ones, all alike.
    #[must_use]
    pub fn new(machines: impl Fn() -> Box<dyn StateMachine> + 'static) -> Self {
        Self {
            machines: Rc::new(machines),
            opens: None,
            writes: Rc::new(|_| Vec::new()),
            reads: None,
            seeds: 0..20,
            shape: Rc::new(|_| {}),
        }
    }

    /// Machines with storage of their own ([`StateMachine::durable`]): opens that of one node's replica of one group, at
    /// each of its starts. What was not durable there when its machine was dropped, it has lost: nodes crash. A node that loses
    /// its disk comes back under another id. [`Self::new`]'s are used to tell what is right. They begin empty for each seed if
    /// this clears them in [`Self::shape`].
    #[must_use]
    pub fn opens(self, opens: impl Fn(NodeId, GroupId) -> Box<dyn StateMachine> + 'static) -> Self {
        Self { opens: Some(Rc::new(opens)), ..self }
    }

    /// Commands to execute, from the dice of the world. Default: empty ones.
    #[must_use]
    pub fn writes(self, writes: impl Fn(&mut Rng) -> Vec<u8> + 'static) -> Self {
        Self { writes: Rc::new(writes), ..self }
    }

    /// Reads to ask. Default: none are asked.
    #[must_use]
    pub fn reads(self, reads: impl Fn(&mut Rng) -> Vec<u8> + 'static) -> Self {
        Self { reads: Some(Rc::new(reads)), ..self }
    }

    /// One world for each of these seeds. Default: 20.
    #[must_use]
    pub fn seeds(self, seeds: Range<u64>) -> Self {
        Self { seeds, ..self }
    }

    /// Changes what [`Options::swarm`] drew for a seed: which faults, and how hard.
    #[must_use]
    pub fn shape(self, shape: impl Fn(&mut Options) + 'static) -> Self {
        Self { shape: Rc::new(shape), ..self }
    }

    /// Runs all worlds.
    ///
    /// # Errors
    /// The first that went wrong: its seed, what is wrong, and the end of its story.
    pub fn run(&self) -> Result<Report, Box<Failure>> {
        let mut report = Report::default();
        for seed in self.seeds.clone() {
            let mut options = Options::swarm(seed);
            (self.shape)(&mut options);
            let (outcome, ledger) = world::run_embedded(seed, &options, self)?;
            report.worlds += 1;
            report.executed += ledger.executed();
            report.read += ledger.reads();
            report.compared += ledger.compared();
            report.retried += outcome.retried;
            report.faults += outcome.faults.total();
            report.installed += outcome.installed;
        }
        Ok(report)
    }
}
