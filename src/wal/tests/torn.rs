//! Power cuts: up to four writes in flight, each torn at any sector, over zeroed and over recycled
//! files, life after life.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::limits::FLUSHES_IN_FLIGHT_MAX;

use super::*;

const SECTOR: usize = 512;
const SEGMENT_BYTES: usize = 12 * BLOCK_BYTES;

/// What the next life of a log has to find.
struct World {
    seed: u64,
    rng: Rng,
    disk: Disk,
    /// Recycle files with their old content; the driver zeroes them, recovery must not rely on it.
    recycle: bool,
    /// Batches that are durable, or that a recovery has handed out, and where they lie.
    history: Vec<(SegmentSeq, Vec<Run>)>,
    /// Files that are no longer needed.
    retired: Vec<Vec<u8>>,
    /// Where the log begins.
    first: SegmentSeq,
    next_index: u64,
    tally: Tally,
}

/// What the seeds came across, so that a change to the test cannot quietly make it tame.
#[derive(Debug, Default)]
struct Tally {
    torn: u32,
    discarded: u32,
    rotated: u32,
    recycled: u32,
    lost: u32,
    kept: u32,
}

impl World {
    fn new(seed: u64, recycle: bool) -> Self {
        let rng = Rng::with_seed(seed);
        let (disk, history, retired) = (Disk::default(), Vec::new(), Vec::new());
        Self {
            seed,
            rng,
            disk,
            recycle,
            history,
            retired,
            first: SegmentSeq(0),
            next_index: 1,
            tally: Tally::default(),
        }
    }

    fn recover(&self) -> (Recovered, Vec<Run>) {
        self.disk
            .recover_from(self.first, SEGMENT_BYTES)
            .unwrap_or_else(|damage| panic!("seed {}: refused: {damage}", self.seed))
    }

    fn runs(&self) -> Vec<Run> {
        self.history.iter().flat_map(|(_, runs)| runs.iter().cloned()).collect()
    }

    /// Open, write for a while, lose power.
    fn life(&mut self) {
        self.reclaim();
        let (recovered, runs) = self.recover();
        assert_eq!(runs, self.runs(), "seed {}: opened twice, read differently", self.seed);
        self.tally.torn += u32::from(recovered.torn.is_some());
        self.tally.rotated += u32::from(recovered.segments > 1);
        for segment in recovered.discard {
            self.tally.discarded += 1;
            if self.rng.bool() {
                self.retired.extend(self.disk.0.remove(&segment));
            }
        }
        let mut appender =
            Appender::with_segment_bytes(IDENTITY, recovered.position, SEGMENT_BYTES);
        recovered.spares.into_iter().for_each(|spare| appender.on_spare(spare));
        let depth = self.rng.usize(1..=FLUSHES_IN_FLIGHT_MAX);
        let mut in_flight: VecDeque<(Write, Vec<Run>)> = VecDeque::new();
        for _ in 0..self.rng.usize(0..40) {
            self.prepare(&mut appender);
            if in_flight.len() < depth && self.rng.u8(..) < 170 {
                let batch = batch(random_runs(&mut self.rng, self.next_index));
                if appender.can_place(batch.bytes()) == Room::Yes {
                    self.next_index += 1;
                    let runs = batch.runs().to_vec();
                    in_flight.push_back((appender.place(batch), runs));
                }
            } else if let Some((write, runs)) = in_flight.pop_front() {
                self.disk.write(&write);
                appender.on_durable(write.ticket);
                self.history.push((write.segment, runs));
            } else if let Some(write) = appender.closing_write() {
                in_flight.push_back((write, Vec::new()));
            }
        }
        self.power_cut(in_flight.make_contiguous());
        let (recovered, runs) = self.recover();
        // All that was durable, then some of what was in flight, in order, and nothing else.
        let count = |history: &[(_, Vec<Run>)]| history.iter().map(|(_, runs)| runs.len()).sum();
        for (write, batch) in in_flight {
            let kept: usize = count(&self.history);
            if kept < runs.len() {
                self.history.push((write.segment, batch));
                self.tally.kept += 1;
            } else {
                self.tally.lost += 1;
            }
        }
        assert_eq!(runs, self.runs(), "seed {}", self.seed);
        assert_eq!(recovered.runs, runs.len() as u64);
    }

    /// Now and then the oldest segment is no longer needed.
    fn reclaim(&mut self) {
        let (Some((oldest, _)), Some((newest, _))) = (self.history.first(), self.history.last())
        else {
            return;
        };
        let oldest = *oldest;
        if oldest < *newest && self.rng.bool() {
            self.retired.extend(self.disk.0.remove(&oldest));
            self.history.retain(|(segment, _)| *segment != oldest);
            // Empty segments and discarded files in front of it go with it.
            self.disk.0.retain(|segment, _| oldest < *segment);
            self.first = oldest.next();
        }
    }

    fn prepare(&mut self, appender: &mut Appender) {
        // Now and then the disk is slow, and no spare is ready.
        while let Some(segment) = appender.wants_spare().filter(|_| self.rng.u8(..) < 200) {
            let file = if self.recycle && !self.retired.is_empty() {
                self.tally.recycled += 1;
                self.retired[self.rng.usize(..self.retired.len())].clone()
            } else {
                vec![0; SEGMENT_BYTES]
            };
            self.disk.0.insert(segment, file);
            appender.on_spare(segment);
        }
    }

    /// Each sector in flight is kept or lost.
    fn power_cut(&mut self, in_flight: &mut [(Write, Vec<Run>)]) {
        let odds = [0, 3, 128, 128, 252, 255];
        for (write, _) in in_flight {
            let odds = odds[self.rng.usize(..odds.len())];
            let bytes = write.to_vec();
            let file = self.disk.file(write.segment.0);
            for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                if self.rng.u8(..) < odds || odds == 255 {
                    let at = usize::try_from(write.offset).unwrap() + number * SECTOR;
                    file[at..at + SECTOR].copy_from_slice(sector);
                }
            }
        }
    }
}

/// One to three runs that name the batch they belong to, so that no two batches are alike.
fn random_runs(rng: &mut Rng, index: u64) -> Vec<Run> {
    (0..rng.u64(1..=3))
        .map(|group| {
            let count = rng.usize(0..4);
            let payloads: Vec<Vec<u8>> = (0..count)
                .map(|_| {
                    let bytes = if rng.u8(..) < 30 { rng.usize(..9000) } else { rng.usize(..300) };
                    (0..bytes).map(|_| rng.u8(..)).collect()
                })
                .collect();
            let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
            run(group, index, index * 10, &payloads)
        })
        .collect()
}

fn power_cuts(seeds: std::ops::Range<u64>, recycle: bool) {
    let mut sum = Tally::default();
    for seed in seeds {
        let mut world = World::new(seed, recycle);
        for _ in 0..6 {
            world.life();
        }
        sum.torn += world.tally.torn;
        sum.discarded += world.tally.discarded;
        sum.rotated += world.tally.rotated;
        sum.recycled += world.tally.recycled;
        sum.lost += world.tally.lost;
        sum.kept += world.tally.kept;
    }
    let seen = [sum.torn, sum.discarded, sum.rotated, sum.lost, sum.kept];
    assert!(seen.into_iter().all(|count| count > 50), "{sum:?}");
    assert_eq!(sum.recycled > 50, recycle, "{sum:?}");
}

#[test]
fn contract_row_55_power_cuts_over_zeroed_files() {
    power_cuts(0..600, false);
}

#[test]
fn contract_row_55_power_cuts_over_recycled_files() {
    power_cuts(10_000..10_600, true);
}

#[test]
fn contract_row_55_every_sector_of_one_write_alone() {
    // One durable batch and one of three blocks in flight: every prefix and suffix of it, every
    // sector kept alone, and every sector lost alone.
    let big = [7; 2 * BLOCK_BYTES];
    for recycled in [false, true] {
        let mut before = Log::new(segment_bytes(6));
        before.append(batch([run(1, 1, 1, &[b"durable"])]));
        if recycled {
            let old = before.disk.file(1)[..2 * BLOCK_BYTES].repeat(3);
            before.disk.file(1)[2 * BLOCK_BYTES..].copy_from_slice(&old);
        }
        let write = before.appender.place(batch([run(1, 1, 2, &[&big, b"tail"])]));
        let new = write.to_vec();
        let sectors = new.len() / SECTOR;
        let keeps: [&dyn Fn(usize, usize) -> bool; 4] =
            [&|s, n| s < n, &|s, n| s >= n, &|s, n| s == n, &|s, n| s != n];
        for keep in keeps {
            for cut in 0..=sectors {
                let mut disk = before.disk.clone();
                let mut whole = true;
                for (number, sector) in new.chunks(SECTOR).enumerate() {
                    let at = 2 * BLOCK_BYTES + number * SECTOR;
                    let place = &mut disk.file(1)[at..at + SECTOR];
                    if keep(number, cut) {
                        place.copy_from_slice(sector);
                    }
                    whole &= place == sector;
                }
                let (_, runs) = disk.recover(segment_bytes(6)).unwrap();
                assert_eq!(runs.len(), if whole { 2 } else { 1 }, "cut at sector {cut}");
            }
        }
    }
}
