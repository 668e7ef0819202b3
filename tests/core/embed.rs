//! A machine of an embedder's, in the simulator; and machines with mistakes that embedders make.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use outrigger::id::{Index, mix};
use outrigger::sim::Options;
use outrigger::sim::embed::{Check, Report};
use outrigger::store::batch::{Batch, Stop};
use outrigger::store::{Frozen, RestoreError, Restoring, StateMachine, Wanted, whole};
use outrigger::wire::reply::Reply;

/// What is wrong with a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// Each machine has another idea of where it lives, and lets it into its state.
    Address,
    /// A counter of the process takes part in replies.
    Counter,
    /// What is written is forgotten by a snapshot.
    Snapshot,
    /// On some replicas a read tells what was before the last command.
    OldReads,
    /// None, but every third entry it takes it gives back, and goes on at another turn.
    Yields,
    /// As [`Self::Yields`], and what it has done of such an entry can be seen.
    HalfDone,
    /// A reply tells the entry's place in its batch.
    Place,
    /// It cannot go on after a while.
    Stops,
}

/// Accounts: a command moves an amount from one to another, a read tells one.
#[derive(Clone)]
struct Accounts {
    of: BTreeMap<u8, i64>,
    before: BTreeMap<u8, i64>,
    mistake: Mistake,
    /// How many machines there have been before this one.
    number: u64,
    made: Rc<Cell<u64>>,
    /// Entries it was given, those that came again counted again.
    taken: u64,
}

impl Accounts {
    fn new(mistake: Mistake, made: &Rc<Cell<u64>>) -> Self {
        made.set(made.get() + 1);
        let (number, made) = (made.get(), Rc::clone(made));
        Self { of: BTreeMap::new(), before: BTreeMap::new(), mistake, number, made, taken: 0 }
    }
}

impl StateMachine for Accounts {
    fn apply(&mut self, _: Index, payload: &Bytes, _: Wanted) -> Reply {
        let &[from, to, amount] = &payload[..] else {
            return Reply::error("ERR", "no transfer");
        };
        self.before = self.of.clone();
        *self.of.entry(from).or_default() -= i64::from(amount);
        *self.of.entry(to).or_default() += i64::from(amount);
        match self.mistake {
            Mistake::Address if self.number.is_multiple_of(2) => {
                self.of.insert(255, 1);
            }
            Mistake::Counter => {
                self.made.set(self.made.get() + 1);
                return Reply::Int(self.made.get() as i64);
            }
            _ => {}
        }
        Reply::Int(self.of[&from])
    }

    fn apply_batch(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop> {
        let mut place = 0;
        while let Some(entry) = batch.next_entry() {
            self.taken += 1;
            let gives_back = self.taken.is_multiple_of(3);
            match self.mistake {
                Mistake::Yields if gives_back => return Ok(()),
                Mistake::HalfDone if gives_back => {
                    *self.of.entry(0).or_default() += 1;
                    return Ok(());
                }
                Mistake::Stops if 20 < self.taken => {
                    return Err(Stop::Group("its disk is full".into()));
                }
                _ => {}
            }
            let reply = self.apply(entry.index, entry.payload, entry.wanted);
            place += 1;
            batch.answer(if self.mistake == Mistake::Place { Reply::Int(place) } else { reply });
        }
        Ok(())
    }

    fn read(&self, payload: &Bytes) -> Reply {
        let is_old = self.mistake == Mistake::OldReads && self.number.is_multiple_of(2);
        let state = if is_old { &self.before } else { &self.of };
        Reply::Int(payload.first().and_then(|of| state.get(of)).copied().unwrap_or_default())
    }

    fn digest(&self) -> u64 {
        self.of.iter().fold(0, |sum, (of, has)| sum ^ mix(u64::from(*of) ^ mix(*has as u64)))
    }

    fn len(&self) -> u64 {
        self.of.len() as u64
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        let mut bytes = BytesMut::new();
        if self.mistake != Mistake::Snapshot {
            for (of, has) in &self.of {
                bytes.put_u8(*of);
                bytes.put_i64(*has);
            }
        }
        whole::frozen(bytes.freeze())
    }

    fn restoring(&self) -> Box<dyn Restoring> {
        Box::new(In(Self::new(self.mistake, &self.made), Vec::new()))
    }
}

struct In(Accounts, Vec<u8>);

impl Restoring for In {
    fn chunk(&mut self, chunk: &Bytes) -> Result<(), RestoreError> {
        self.1.extend_from_slice(chunk);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Box<dyn StateMachine>, RestoreError> {
        let mut rest = &self.1[..];
        while !rest.is_empty() {
            if rest.len() < 9 {
                return Err(RestoreError::CutShort { left: rest.len() });
            }
            let of = rest.get_u8();
            self.0.of.insert(of, rest.get_i64());
        }
        Ok(Box::new(self.0))
    }
}

fn check(mistake: Mistake, seeds: u64, shape: impl Fn(&mut Options) + 'static) -> Check {
    let made = Rc::new(Cell::new(0));
    Check::new(move || Box::new(Accounts::new(mistake, &made)))
        .writes(|rng| vec![rng.u8(..4), rng.u8(..4), rng.u8(1..)])
        .reads(|rng| vec![rng.u8(..4)])
        .seeds(0..seeds)
        .shape(shape)
}

fn fine(seeds: u64, shape: impl Fn(&mut Options) + 'static) -> Report {
    check(Mistake::None, seeds, shape).run().unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn a_machine_that_is_a_function_of_its_log_survives_everything() {
    let report = fine(6, |options| {
        options.chaos_ms = 2_000;
        options.session_clients = 3;
    });
    assert!(report.executed > 500 && report.read > 100, "{report:?}");
    assert!(report.faults > 50 && report.compared > 100 && report.retried > 5, "{report:?}");
}

#[test]
fn a_machine_survives_the_snapshots_of_a_log_that_is_cut_all_the_time() {
    let report = fine(6, |options| {
        options.cores = vec![1; 3];
        options.spares = 0;
        options.log_bytes = 0;
        options.segment_bytes = 128 << 10;
        options.think_us = 2_000;
        options.nodes.crash_every_ms = 800;
        options.nodes.down_ms = 1_000;
    });
    assert!(report.installed > 0, "{report:?}");
}

#[test]
fn a_machine_that_yields_is_a_function_of_its_log_too() {
    let report = check(Mistake::Yields, 6, |options| {
        options.chaos_ms = 2_000;
        options.session_clients = 3;
        options.spares = 0;
        options.log_bytes = 0;
        options.segment_bytes = 128 << 10;
    })
    .run()
    .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.executed > 500 && report.read > 100, "{report:?}");
    assert!(report.compared > 100 && report.retried > 5, "{report:?}");
}

#[test]
fn a_machine_that_shows_where_its_batches_end_is_caught() {
    for mistake in [Mistake::HalfDone, Mistake::Place] {
        let what = caught(mistake);
        assert!(what.contains("not deterministic"), "{mistake:?}: {what}");
    }
}

#[test]
fn a_machine_that_stops_its_group_ends_the_check_in_its_own_words() {
    let what = caught(Mistake::Stops);
    assert!(what.contains("stopped itself") && what.contains("its disk is full"), "{what}");
}

/// Runs until a world has found the mistake; what it says of it.
fn caught(mistake: Mistake) -> String {
    let quick = |options: &mut Options| options.chaos_ms = 1_500;
    let failure = check(mistake, 20, quick).run().expect_err("a machine with a mistake");
    failure.what.clone()
}

#[test]
fn a_machine_that_is_not_deterministic_is_caught() {
    for mistake in [Mistake::Address, Mistake::Counter] {
        let what = caught(mistake);
        assert!(what.contains("not deterministic"), "{mistake:?}: {what}");
    }
}

#[test]
fn a_machine_whose_snapshot_forgets_is_caught() {
    let what = caught(Mistake::Snapshot);
    assert!(what.contains("snapshot") || what.contains("not deterministic"), "{what}");
}

#[test]
fn a_machine_that_answers_from_the_past_is_caught() {
    let what = caught(Mistake::OldReads);
    assert!(what.contains("not linearizable"), "{what}");
}
