//! A disk with a volatile cache, and everything that can be wrong with it.
//!
//! ```text
//!             write                    sync                    power cut
//!   reader ◄── current ◄── volatile ────────► durable ◄── some of volatile, by mode and seed
//!                          (in order)                          │
//!                             └─────────── the rest is gone ───┘
//!
//!   power   On ──cut──► Dark ──off──► Off ──crash, on──► On
//!                       nothing       everything
//!                       is answered   fails
//! ```
//!
//! A cut comes in two steps, so that no process sees an error before it is dead: in the dark nothing is
//! answered any more, then the processes are killed, and only then do their requests fail.
//!
//! *A sync that failed forgets*: what was volatile then is not made durable by a later sync that
//! succeeds. So kernels and devices have behaved (fsyncgate), and whoever repeats a failed fsync and
//! believes it, loses data here.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tools::rounds::cluster::{now, pause};

use crate::image::{Image, is_zero};

/// What is written whole or not at all, in bytes.
pub(crate) const SECTOR_BYTES: usize = 512;

/// What becomes of volatile writes when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// All are gone.
    Lose,
    /// Each write is there or gone, whatever was written before or after it.
    Random,
    /// Parts of writes are there: some sectors, or the front.
    Torn,
    /// All are there.
    Keep,
}

impl Mode {
    /// One by dice: half of all cuts tear.
    pub(crate) fn any(random: &mut Rng) -> Self {
        match random.u8(..10) {
            0 => Self::Keep,
            1 => Self::Lose,
            2..=3 => Self::Random,
            _ => Self::Torn,
        }
    }
}

/// The error a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// EIO.
    Failed,
    /// ENOSPC.
    Full,
}

/// What a crash did.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Crash {
    /// Writes that were volatile.
    pub(crate) writes: u64,
    /// Of these, those of which something is gone.
    pub(crate) lost: u64,
    /// Of these, those of which something is there, too.
    pub(crate) torn: u64,
    /// Sectors that are gone.
    pub(crate) sectors_lost: u64,
}

/// Counted since the disk was made.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Stats {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
    /// Requests that failed because they were told to.
    pub(crate) failed: u64,
}

/// What is wrong with a disk just now. All of it may be switched at any time.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Faults {
    /// So many writes fail.
    pub(crate) fail_writes: u32,
    /// So many syncs succeed before any fails.
    pub(crate) good_syncs: u32,
    /// So many syncs fail, and forget.
    pub(crate) fail_syncs: u32,
    /// Every write is refused for want of space.
    pub(crate) no_space: bool,
    /// Reads and writes are answered so much later.
    pub(crate) delay: Duration,
    /// Syncs are made so much later.
    pub(crate) sync_delay: Duration,
    /// Requests are answered one after another, so far apart.
    pub(crate) gap: Duration,
    /// Nothing is answered.
    pub(crate) stalled: bool,
    /// Syncs succeed and do nothing.
    pub(crate) lies: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    Dark,
    Off,
}

/// One disk. Any number of threads may use it at once.
#[derive(Debug)]
pub(crate) struct Disk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    power: Power,
    /// How often it was switched on: a request of an earlier life is not answered in the next.
    life: u64,
    durable: Image,
    current: Image,
    volatile: VecDeque<Volatile>,
    next: u64,
    faults: Faults,
    /// When the last request that came is answered, by a disk with a gap.
    answers_at: Option<Instant>,
    stats: Stats,
    /// When a request was first failed since `arm`.
    failed_at: Option<Instant>,
}

#[derive(Debug)]
struct Volatile {
    /// Numbers ascend.
    number: u64,
    offset: u64,
    bytes: usize,
    /// `None` is zeros.
    data: Option<Box<[u8]>>,
    /// A sync that covered it has failed: no later one makes it durable.
    forgotten: bool,
}

impl Disk {
    /// A disk of zeros, switched on.
    pub(crate) fn new(bytes: u64) -> Self {
        let image = Image::new(bytes);
        Self {
            state: Mutex::new(State {
                power: Power::On,
                life: 0,
                durable: image.clone(),
                current: image,
                volatile: VecDeque::new(),
                next: 0,
                faults: Faults::default(),
                answers_at: None,
                stats: Stats::default(),
                failed_at: None,
            }),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.state().durable.bytes()
    }

    // What a driver asks for.

    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Fault> {
        let (state, life) = self.enter()?;
        let mut state = self.wait(state, life, |faults| faults.delay)?;
        state.stats.reads += 1;
        state.current.read(offset, into);
        Ok(())
    }

    /// After this returns, a read sees it and a sync will cover it. A cut may find it before.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<(), Fault> {
        let (mut state, life) = self.enter()?;
        if state.faults.no_space {
            state.failed_now();
            return Err(Fault::Full);
        }
        if state.must_fail(|faults| &mut faults.fail_writes) {
            return Err(Fault::Failed);
        }
        state.stats.writes += 1;
        state.put(offset, data);
        self.wait(state, life, |faults| faults.delay).map(drop)
    }

    /// What was written before is durable after this.
    pub(crate) fn sync(&self) -> Result<(), Fault> {
        let (mut state, life) = self.enter()?;
        if !state.is_good_still() && state.must_fail(|faults| &mut faults.fail_syncs) {
            state.volatile.iter_mut().for_each(|write| write.forgotten = true);
            return Err(Fault::Failed);
        }
        let covered = state.next;
        let mut state = self.wait(state, life, |faults| faults.sync_delay)?;
        state.stats.syncs += 1;
        if !state.faults.lies {
            state.settle(covered);
        }
        Ok(())
    }

    /// Waits out the dark and stalls.
    fn enter(&self) -> Result<(MutexGuard<'_, State>, u64), Fault> {
        let state = self.state();
        let life = state.life;
        let state = self.changed.wait_while(state, |state| state.holds(life));
        let state = state.expect("no holder of this lock panics");
        if state.power == Power::Off || state.life != life {
            return Err(Fault::Failed);
        }
        Ok((state, life))
    }

    /// Takes the time it is told to, and then may be answered.
    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        life: u64,
        which: fn(&Faults) -> Duration,
    ) -> Result<MutexGuard<'a, State>, Fault> {
        let mut state = state;
        let delay = which(&state.faults) + state.turn();
        if !delay.is_zero() {
            drop(state);
            pause(delay);
            state = self.state();
        }
        let state = self.changed.wait_while(state, |state| state.holds(life));
        let state = state.expect("no holder of this lock panics");
        if state.power == Power::Off || state.life != life {
            return Err(Fault::Failed);
        }
        Ok(state)
    }

    // What the rig does.

    /// Changes what is wrong.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Faults)) {
        let mut state = self.state();
        change(&mut state.faults);
        self.changed.notify_all();
    }

    /// Changes what is wrong, and forgets when a request was failed last.
    pub(crate) fn arm(&self, change: impl FnOnce(&mut Faults)) {
        let mut state = self.state();
        state.failed_at = None;
        change(&mut state.faults);
    }

    /// When a request was first failed since `arm`.
    pub(crate) fn failed_at(&self) -> Option<Instant> {
        self.state().failed_at
    }

    pub(crate) fn stats(&self) -> Stats {
        self.state().stats
    }

    /// From now on nothing is answered, and nothing that comes is taken.
    pub(crate) fn cut(&self) {
        self.state().power = Power::Dark;
    }

    /// From now on everything fails, what waits included.
    pub(crate) fn off(&self) {
        self.state().power = Power::Off;
        self.changed.notify_all();
    }

    /// Decides what of the volatile writes is there. The disk is off.
    pub(crate) fn crash(&self, mode: Mode, seed: u64) -> Crash {
        let mut state = self.state();
        assert_eq!(state.power, Power::Off, "a disk crashes when its power is off");
        state.crash(mode, &mut Rng::with_seed(seed))
    }

    /// Switches it on, with nothing wrong.
    pub(crate) fn on(&self) {
        let mut state = self.state();
        state.power = Power::On;
        state.life += 1;
        state.faults = Faults::default();
        state.failed_at = None;
    }

    /// What a power cut now, that loses everything, would leave.
    pub(crate) fn durable(&self) -> Image {
        self.state().durable.clone()
    }

    /// Other content; nobody uses the disk.
    pub(crate) fn load(&self, image: &Image) {
        let mut state = self.state();
        state.durable = image.clone();
        state.current = image.clone();
        state.volatile.clear();
    }

    /// Keeps what is durable in a file.
    pub(crate) fn save(&self, path: &Path) -> std::io::Result<()> {
        self.state().durable.save(path)
    }
}

impl State {
    fn holds(&self, life: u64) -> bool {
        self.life == life
            && match self.power {
                Power::On => self.faults.stalled,
                Power::Dark => true,
                Power::Off => false,
            }
    }

    /// How long until a request that comes now has its turn.
    fn turn(&mut self) -> Duration {
        let (gap, now) = (self.faults.gap, now());
        if gap.is_zero() {
            self.answers_at = None;
            return Duration::ZERO;
        }
        let at = self.answers_at.map_or(now, |before| before.max(now)) + gap;
        self.answers_at = Some(at);
        at - now
    }

    /// Whether a sync is one of those that are to succeed first.
    fn is_good_still(&mut self) -> bool {
        let left = self.faults.good_syncs;
        self.faults.good_syncs = left.saturating_sub(1);
        0 < left
    }

    fn must_fail(&mut self, which: fn(&mut Faults) -> &mut u32) -> bool {
        let left = which(&mut self.faults);
        if *left == 0 {
            return false;
        }
        *left -= 1;
        self.failed_now();
        true
    }

    fn failed_now(&mut self) {
        self.stats.failed += 1;
        self.failed_at.get_or_insert_with(now);
    }

    fn put(&mut self, offset: u64, data: &[u8]) {
        let data = if is_zero(data) {
            self.current.zero(offset, data.len());
            (None, data.len())
        } else {
            self.current.write(offset, data);
            (Some(data.into()), data.len())
        };
        self.volatile.push_back(Volatile {
            number: self.next,
            offset,
            bytes: data.1,
            data: data.0,
            forgotten: false,
        });
        self.next += 1;
    }

    /// Makes durable what was written before number `covered`, in order.
    fn settle(&mut self, covered: u64) {
        let count = self.volatile.partition_point(|write| write.number < covered);
        let later = self.volatile.split_off(count);
        let covered = std::mem::replace(&mut self.volatile, later);
        let (forgotten, settled): (Vec<_>, Vec<_>) =
            covered.into_iter().partition(|write| write.forgotten);
        for write in settled {
            match &write.data {
                Some(data) => self.durable.write(write.offset, data),
                None => self.durable.zero(write.offset, write.bytes),
            }
        }
        for write in forgotten.into_iter().rev() {
            self.volatile.push_front(write);
        }
    }

    fn crash(&mut self, mode: Mode, random: &mut Rng) -> Crash {
        let mut crash = Crash::default();
        let volatile = std::mem::take(&mut self.volatile);
        for write in &volatile {
            let sectors = write.bytes.div_ceil(SECTOR_BYTES);
            let kept = kept(mode, sectors, random);
            let mut lost = 0;
            for (sector, kept) in kept.iter().enumerate() {
                if *kept {
                    write.apply(&mut self.durable, sector);
                } else {
                    lost += 1;
                }
            }
            crash.writes += 1;
            crash.lost += u64::from(0 < lost);
            crash.torn += u64::from(0 < lost && lost < sectors);
            crash.sectors_lost += lost as u64;
        }
        for write in &volatile {
            self.current.copy(&self.durable, write.offset, write.bytes);
        }
        crash
    }
}

impl Volatile {
    /// One sector of it.
    fn apply(&self, image: &mut Image, sector: usize) {
        let from = sector * SECTOR_BYTES;
        let to = (from + SECTOR_BYTES).min(self.bytes);
        let offset = self.offset + from as u64;
        match &self.data {
            Some(data) => image.write(offset, &data[from..to]),
            None => image.zero(offset, to - from),
        }
    }
}

/// Which sectors of one write are there.
fn kept(mode: Mode, sectors: usize, random: &mut Rng) -> Vec<bool> {
    match mode {
        Mode::Lose => vec![false; sectors],
        Mode::Keep => vec![true; sectors],
        Mode::Random => vec![random.bool(); sectors],
        Mode::Torn => match random.u8(..8) {
            0 => vec![true; sectors],
            1 => vec![false; sectors],
            // As a disk does that writes from the front to the back.
            2..=4 => {
                let end = random.usize(..=sectors);
                (0..sectors).map(|sector| sector < end).collect()
            }
            _ => (0..sectors).map(|_| random.bool()).collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SIZE: u64 = 1 << 20;
    const PAGE: usize = 4096;

    fn read(disk: &Disk, offset: u64, bytes: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes];
        disk.read(offset, &mut buffer).expect("it is on");
        buffer
    }

    fn holds(disk: &Disk, offset: u64, byte: u8) -> bool {
        read(disk, offset, PAGE) == [byte; PAGE]
    }

    /// A power cut, and on again.
    fn crash(disk: &Disk, mode: Mode, seed: u64) -> Crash {
        disk.cut();
        disk.off();
        assert_eq!(disk.read(0, &mut [0]), Err(Fault::Failed));
        assert_eq!(disk.write(0, b"x"), Err(Fault::Failed));
        assert_eq!(disk.sync(), Err(Fault::Failed));
        let crash = disk.crash(mode, seed);
        disk.on();
        crash
    }

    /// A disk with a durable page of ones and a volatile page of twos, and then zeros over a third.
    fn disk() -> Disk {
        let disk = Disk::new(SIZE);
        disk.write(0, &[1; PAGE]).expect("written");
        disk.write(2 * PAGE as u64, &[3; PAGE]).expect("written");
        disk.sync().expect("synced");
        disk.write(PAGE as u64, &[2; PAGE]).expect("written");
        disk.write(2 * PAGE as u64, &[0; PAGE]).expect("written");
        disk
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_is_as_the_mode_says() {
        let lost = disk();
        assert!(holds(&lost, PAGE as u64, 2), "a read sees what is volatile");
        let what = crash(&lost, Mode::Lose, 0);
        assert_eq!((what.writes, what.lost, what.torn, what.sectors_lost), (2, 2, 0, 16));
        assert!(holds(&lost, 0, 1) && holds(&lost, PAGE as u64, 0));
        assert!(holds(&lost, 2 * PAGE as u64, 3), "what was there before is there again");

        let kept = disk();
        assert_eq!(crash(&kept, Mode::Keep, 0).lost, 0);
        assert!(holds(&kept, PAGE as u64, 2) && holds(&kept, 2 * PAGE as u64, 0));
        assert_eq!(crash(&kept, Mode::Lose, 0).writes, 0, "a crash leaves nothing volatile");
    }

    #[test]
    fn some_are_lost_whole_and_some_are_torn_and_a_seed_repeats_it() {
        let (mut one_lost, mut torn) = (0, 0);
        for seed in 0..100 {
            let random = crash(&disk(), Mode::Random, seed);
            assert_eq!(random.torn, 0);
            one_lost += u32::from(random.lost == 1);

            let (first, second) = (disk(), disk());
            let (one, two) = (crash(&first, Mode::Torn, seed), crash(&second, Mode::Torn, seed));
            assert_eq!(one.sectors_lost, two.sectors_lost);
            let all = |disk: &Disk| read(disk, 0, 3 * PAGE);
            assert_eq!(all(&first), all(&second));
            assert!(holds(&first, 0, 1), "what was synced is never torn");
            torn += u32::from(0 < one.torn);
        }
        assert!((25..75).contains(&one_lost), "{one_lost} of 100");
        assert!(50 < torn, "{torn} of 100");
    }

    #[test]
    fn a_failed_sync_forgets_and_a_later_one_does_not_bring_back() {
        let disk = disk();
        disk.arm(|faults| faults.fail_syncs = 1);
        assert_eq!(disk.sync(), Err(Fault::Failed));
        assert!(disk.failed_at().is_some());
        disk.sync().expect("it fails once");
        disk.write(0, &[7; PAGE]).expect("written");
        disk.sync().expect("synced");
        crash(&disk, Mode::Lose, 0);
        assert!(holds(&disk, 0, 7), "what came after it is durable");
        assert!(holds(&disk, PAGE as u64, 0), "what it covered is not");
    }

    #[test]
    fn failed_and_refused_writes_write_nothing_and_a_liar_syncs_nothing() {
        let disk = disk();
        disk.set(|faults| faults.fail_writes = 1);
        assert_eq!(disk.write(0, &[7; PAGE]), Err(Fault::Failed));
        disk.set(|faults| faults.no_space = true);
        assert_eq!(disk.write(0, &[7; PAGE]), Err(Fault::Full));
        disk.set(|faults| faults.no_space = false);
        assert!(holds(&disk, 0, 1));
        disk.set(|faults| faults.lies = true);
        disk.sync().expect("it says so");
        crash(&disk, Mode::Lose, 0);
        assert!(holds(&disk, PAGE as u64, 0));
    }

    #[test]
    fn requests_to_a_slow_disk_take_their_turns() {
        let disk = disk();
        disk.set(|faults| faults.gap = Duration::from_millis(20));
        let started = now();
        std::thread::scope(|scope| {
            for page in 0..5 {
                let disk = &disk;
                scope.spawn(move || disk.write(page * PAGE as u64, &[9; PAGE]).expect("written"));
            }
        });
        assert!(Duration::from_millis(100) <= started.elapsed());
        disk.set(|faults| faults.gap = Duration::ZERO);
        disk.sync().expect("flushed");
    }

    #[test]
    fn a_stalled_disk_answers_later_and_a_dark_one_never() {
        let disk = disk();
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let (disk, late) = (&disk, tell.clone());
            disk.set(|faults| faults.stalled = true);
            scope.spawn(move || late.send(disk.sync()));
            assert!(told.recv_timeout(Duration::from_millis(100)).is_err());
            disk.set(|faults| faults.stalled = false);
            assert_eq!(told.recv_timeout(Duration::from_secs(9)), Ok(Ok(())));

            disk.set(|faults| faults.sync_delay = Duration::from_millis(50));
            disk.write(PAGE as u64, &[9; PAGE]).expect("written");
            scope.spawn(move || tell.send(disk.sync()));
            disk.cut();
            assert!(told.recv_timeout(Duration::from_millis(200)).is_err(), "it is dark");
            disk.off();
            assert_eq!(told.recv_timeout(Duration::from_secs(9)), Ok(Err(Fault::Failed)));
            disk.crash(Mode::Lose, 0);
            disk.on();
        });
        assert!(holds(&disk, PAGE as u64, 2), "a sync in the dark has done nothing");
    }
}
