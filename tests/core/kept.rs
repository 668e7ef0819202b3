//! A machine with storage of its own, in the simulator: nodes crash, the log is cut all the time, and what is not durable in
//! that storage is lost.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use outrigger::id::{GroupId, Index, NodeId, mix};
use outrigger::sim::Options;
use outrigger::sim::embed::{Check, Report};
use outrigger::store::batch::{Batch, Stop};
use outrigger::store::{Frozen, RestoreError, Restoring, StateMachine, Wanted, whole};
use outrigger::wire::reply::Reply;

/// The state, and the last entry in it.
#[derive(Clone, Default)]
struct Saved {
    counts: BTreeMap<u8, u64>,
    through: Index,
}

/// What is durable of every replica, and how often something became so.
#[derive(Default)]
struct Disk {
    saved: BTreeMap<(NodeId, GroupId), Saved>,
    flushes: u64,
    /// Replicas that were opened and found something.
    found: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// It says that it is durable before it is.
    TooEarly,
    /// It executes again what it has in its storage.
    Again,
}

/// Counts: a command counts under a name, and is answered by the name, whatever there is.
struct Kept {
    place: (NodeId, GroupId),
    now: Saved,
    /// What is being made durable, and how often that is asked for until it is.
    flushing: RefCell<Option<(Saved, u32)>>,
    disk: Rc<RefCell<Disk>>,
    mistake: Mistake,
}

impl Kept {
    fn open(place: (NodeId, GroupId), disk: &Rc<RefCell<Disk>>, mistake: Mistake) -> Self {
        let found = disk.borrow().saved.get(&place).cloned();
        disk.borrow_mut().found += u64::from(found.is_some());
        let (now, disk) = (found.unwrap_or_default(), Rc::clone(disk));
        Self { place, now, flushing: RefCell::new(None), disk, mistake }
    }

    fn save(&self, saved: Saved) {
        let mut disk = self.disk.borrow_mut();
        disk.flushes += 1;
        disk.saved.insert(self.place, saved);
    }
}

impl StateMachine for Kept {
    fn apply_batch(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop> {
        while let Some(entry) = batch.next_entry() {
            let name = entry.payload.first().copied().unwrap_or_default();
            if self.now.through < entry.index || self.mistake == Mistake::Again {
                *self.now.counts.entry(name).or_default() += 1;
                self.now.through = entry.index;
            }
            batch.answer(Reply::Int(name.into()));
        }
        Ok(())
    }

    fn apply(&mut self, _: Index, _: &Bytes, _: Wanted) -> Reply {
        unreachable!("`apply_batch` is called")
    }

    fn read(&self, payload: &Bytes) -> Reply {
        let count = payload.first().and_then(|name| self.now.counts.get(name));
        Reply::Int(count.map_or(0, |count| *count as i64))
    }

    fn digest(&self) -> u64 {
        let counts = self.now.counts.iter();
        counts.fold(0, |sum, (name, count)| sum ^ mix(u64::from(*name) ^ mix(*count)))
    }

    fn len(&self) -> u64 {
        self.now.counts.len() as u64
    }

    fn durable(&self) -> Option<Index> {
        let mut flushing = self.flushing.borrow_mut();
        if self.mistake == Mistake::TooEarly {
            return Some(self.now.through);
        }
        if let Some((saved, left)) = flushing.take() {
            if left == 0 {
                self.save(saved);
            } else {
                *flushing = Some((saved, left - 1));
            }
        }
        let disk = self.disk.borrow();
        Some(disk.saved.get(&self.place).map_or(Index(0), |saved| saved.through))
    }

    fn flush(&mut self, through: Index) {
        // Entries that are not for it end with this one too.
        self.now.through = self.now.through.max(through);
        *self.flushing.borrow_mut() = Some((self.now.clone(), 20));
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        let mut bytes = BytesMut::new();
        bytes.put_u64(self.now.through.0);
        for (name, count) in &self.now.counts {
            bytes.put_u8(*name);
            bytes.put_u64(*count);
        }
        whole::frozen(bytes.freeze())
    }

    fn restoring(&self) -> Box<dyn Restoring> {
        let (place, disk, mistake) = (self.place, Rc::clone(&self.disk), self.mistake);
        let (now, flushing) = (Saved::default(), RefCell::new(None));
        Box::new(In(Self { place, now, flushing, disk, mistake }, Vec::new()))
    }
}

struct In(Kept, Vec<u8>);

impl Restoring for In {
    fn chunk(&mut self, chunk: &Bytes) -> Result<(), RestoreError> {
        self.1.extend_from_slice(chunk);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Box<dyn StateMachine>, RestoreError> {
        let mut rest = &self.1[..];
        let cut_short = |left: &[u8]| RestoreError::CutShort { left: left.len() };
        self.0.now.through = Index(rest.try_get_u64().map_err(|_| cut_short(rest))?);
        while !rest.is_empty() {
            if rest.len() < 9 {
                return Err(cut_short(rest));
            }
            let name = rest.get_u8();
            self.0.now.counts.insert(name, rest.get_u64());
        }
        // It takes the place of what was there.
        self.0.save(self.0.now.clone());
        Ok(Box::new(self.0))
    }
}

/// Runs worlds whose logs are cut all the time and whose nodes crash; `disk` is the last world's in the end.
fn run(mistake: Mistake, seeds: u64) -> (Result<Report, String>, Rc<RefCell<Disk>>, u64) {
    let disk = Rc::new(RefCell::new(Disk::default()));
    let (opened, shaped) = (Rc::clone(&disk), Rc::clone(&disk));
    let found = Rc::new(Cell::new(0));
    let counted = Rc::clone(&found);
    let ran = Check::new(move || {
        let disk = Rc::default();
        Box::new(Kept::open((NodeId(0), GroupId(0)), &disk, Mistake::None))
    })
    .opens(move |node, group| Box::new(Kept::open((node, group), &opened, mistake)))
    .writes(|rng| vec![rng.u8(..4)])
    .reads(|rng| vec![rng.u8(..4)])
    .seeds(0..seeds)
    .shape(move |options: &mut Options| {
        counted.set(counted.get() + shaped.borrow().found);
        *shaped.borrow_mut() = Disk::default();
        options.cores = vec![1; 3];
        options.spares = 0;
        options.log_bytes = 0;
        options.segment_bytes = 128 << 10;
        options.think_us = 2_000;
        options.session_clients = 2;
        options.nodes.crash_every_ms = 800;
        options.nodes.down_ms = 1_000;
    })
    .run()
    .map_err(|failure| failure.what.clone());
    let found = found.get() + disk.borrow().found;
    (ran, disk, found)
}

#[test]
fn a_machine_with_storage_of_its_own_survives_crashes_and_a_log_that_does_not_hold_its_state() {
    let (ran, disk, found) = run(Mistake::None, 8);
    let report = ran.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.executed > 500 && report.read > 100 && report.compared > 100, "{report:?}");
    assert!(report.installed > 0, "others get the state itself: {report:?}");
    assert!(found > 20, "starts that found something: {found}");
    assert!(disk.borrow().flushes > 10, "flushes: {}", disk.borrow().flushes);
}

#[test]
fn a_machine_that_says_too_early_that_it_is_durable_is_caught() {
    let (ran, ..) = run(Mistake::TooEarly, 20);
    let what = ran.expect_err("its state is lost");
    assert!(what.contains("own storage") || what.contains("not linearizable"), "{what}");
}

#[test]
fn a_machine_that_executes_again_what_it_holds_is_caught() {
    let (ran, ..) = run(Mistake::Again, 20);
    let what = ran.expect_err("it counts twice");
    assert!(what.contains("not deterministic") || what.contains("not linearizable"), "{what}");
}
