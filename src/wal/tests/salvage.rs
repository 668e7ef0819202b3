//! What recovery says of a damaged log to a caller that can get the rest elsewhere: nothing that was
//! written is missing without being named.

use super::*;
use crate::wal::{Checked, Found, Loss, Whose};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    Run(Run),
    Lost(Whose),
}

fn salvage(disk: &Disk, segment_bytes: usize) -> (Vec<Told>, Recovered) {
    salvage_from(SegmentSeq(0), disk, segment_bytes)
}

/// As `salvage`, after what lies in front of `first` was reclaimed.
pub(super) fn salvage_from(
    first: SegmentSeq,
    disk: &Disk,
    segment_bytes: usize,
) -> (Vec<Told>, Recovered) {
    salvage_with(first, disk, segment_bytes, |_, _, _| {})
}

/// With `before` for each segment before it is fed.
fn salvage_with(
    first: SegmentSeq,
    disk: &Disk,
    segment_bytes: usize,
    before: impl Fn(&mut Recovery, SegmentSeq, &[u8]),
) -> (Vec<Told>, Recovered) {
    let mut told = Vec::new();
    let recovery = Recovery::with_segment_bytes(IDENTITY, segment_bytes);
    let mut recovery = recovery.reclaimed_to(first);
    for (segment, bytes) in &disk.0 {
        let mut later = disk.0.range(segment.next()..);
        later.find_map(|(later, bytes)| recovery.look_ahead(*later, bytes));
        before(&mut recovery, *segment, bytes);
        recovery
            .salvage(*segment, bytes, &mut |found| {
                told.push(match found {
                    Found::Run(run) => Told::Run(seen(run).0),
                    Found::Lost(Loss { whose, .. }) => Told::Lost(whose),
                });
            })
            .expect("decay is salvaged");
    }
    (told, recovery.finish().expect("the end"))
}

/// Every run that was written was told in its place, or a loss that may have taken it was, before
/// anything that follows it.
pub(super) fn assert_nothing_is_missed(told: &[Told], written: &[Run], what: &str) {
    let mut missing = written.iter();
    let mut lost: Vec<&Whose> = Vec::new();
    let is_lost = |lost: &[&Whose], run: &Run| {
        lost.iter().any(|whose| match whose {
            Whose::Anybody => true,
            Whose::Groups(groups) => groups.contains(&run.group),
        })
    };
    for told in told {
        match told {
            Told::Lost(whose) => lost.push(whose),
            Told::Run(run) => loop {
                let expected =
                    missing.next().unwrap_or_else(|| panic!("{what}: {run:?} is made up"));
                if expected == run {
                    break;
                }
                assert!(is_lost(&lost, expected), "{what}: {expected:?} is missed");
            },
        }
    }
    for expected in missing {
        assert!(is_lost(&lost, expected), "{what}: {expected:?} is missed at the end");
    }
}

#[test]
fn contract_row_55_behind_damage_the_log_is_read_on_and_what_is_gone_is_named() {
    let mut log = small_log(4, segment_bytes(3));
    log.drop_spares();
    let (clean, position) = salvage(&log.disk, log.segment_bytes);
    assert_eq!(clean.len(), log.written.len());
    let end = 4 * BLOCK_BYTES;
    for at in 0..end {
        let bit = at % 8;
        log.disk.file(1)[at] ^= 1 << bit;
        let what = format!("bit {bit} of byte {at}");
        let (told, recovered) = salvage(&log.disk, log.segment_bytes);
        assert!(told.iter().any(|told| matches!(told, Told::Lost(_))), "{what} went unnoticed");
        assert_nothing_is_missed(&told, &log.written, &what);
        assert_eq!(recovered.position, position.position, "{what}");
        log.disk.file(1)[at] ^= 1 << bit;
    }
}

#[test]
fn a_bad_payload_is_its_own_groups_loss_alone() {
    let mut log = small_log(4, segment_bytes(3));
    log.drop_spares();
    // The payload of group 1 in the second batch.
    let payload = 2 * BLOCK_BYTES + 64 + before_payloads(&log.written[3]);
    log.disk.file(1)[payload] ^= 1;
    let (told, _) = salvage(&log.disk, log.segment_bytes);
    let lost: Vec<_> = told.iter().filter(|told| matches!(told, Told::Lost(_))).collect();
    assert_eq!(lost, [&Told::Lost(Whose::Groups(vec![GroupId(1)]))]);
    assert_eq!(told.len(), log.written.len());
}

#[test]
fn files_that_are_gone_or_cut_short_are_a_loss_and_the_rest_is_read() {
    for cut in [None, Some(0), Some(BLOCK_BYTES), Some(2 * BLOCK_BYTES + 100)] {
        let mut log = small_log(8, segment_bytes(3));
        log.drop_spares();
        match cut {
            None => _ = log.disk.0.remove(&SegmentSeq(2)),
            Some(bytes) => log.disk.file(2).truncate(bytes),
        }
        let (told, _) = salvage(&log.disk, log.segment_bytes);
        assert!(told.contains(&Told::Lost(Whose::Anybody)), "{cut:?}");
        assert_nothing_is_missed(&told, &log.written, &format!("{cut:?}"));
        let runs = told.iter().filter(|told| matches!(told, Told::Run(_))).count();
        assert!(3 * 5 <= runs, "{cut:?}: five batches lie in other files, {runs} runs were read");
    }
}

/// What is gone of a file that was cut lay behind what is left of it. Told in front of that, what is left would
/// seem to follow the gap, and nothing to be missing. (`tool sim --seed 102`, with files that are cut.)
#[test]
fn contract_row_55_what_is_cut_off_the_newest_file_is_lost_behind_what_is_left() {
    for blocks in 0..5 {
        for has_header in [true, false] {
            let mut log = small_log(4, segment_bytes(8));
            log.drop_spares();
            let file = log.disk.file(1);
            file.truncate(blocks * BLOCK_BYTES + 100);
            if !has_header {
                let length = file.len().min(BLOCK_BYTES);
                file[..length].fill(0);
            }
            let (told, recovered) = salvage(&log.disk, log.segment_bytes);
            let what = format!("{blocks} blocks, header: {has_header}");
            assert_eq!(told.last(), Some(&Told::Lost(Whose::Anybody)), "{what}");
            assert_nothing_is_missed(&told, &log.written, &what);
            let runs = told.iter().filter(|told| matches!(told, Told::Run(_))).count();
            assert!(has_header <= (runs + 3 >= 3 * blocks), "{what}: {runs} runs");
            // It is the only evidence, and stays.
            assert_eq!((recovered.spares, recovered.discard), (vec![], vec![]), "{what}");
            assert_eq!(recovered.position.next_segment, SegmentSeq(2), "{what}");
        }
    }
}

/// All that is left of a log is the note of where it begins. (`tool sim --seed 14`, with disks replaced.)
#[test]
fn contract_row_27_a_log_of_which_only_the_beginning_is_known_is_no_new_log() {
    let nothing = Disk::default();
    let refused = nothing.recover_from(SegmentSeq(3), segment_bytes(3)).expect_err("it is lost");
    assert!(matches!(refused.proof, Proof::Reclaimed { .. }), "{refused}");
    // A spare that was there when it was noted, and no write in it: nothing was, but numbers go on.
    let mut spare = Disk::default();
    spare.0.insert(SegmentSeq(3), vec![0; segment_bytes(3)]);
    let (recovered, runs) = spare.recover_from(SegmentSeq(3), segment_bytes(3)).expect("empty");
    assert_eq!((recovered.position.next_segment, runs), (SegmentSeq(3), vec![]));
    assert_eq!(recovered.spares, [SegmentSeq(3)]);
}

/// What was not proven durable is a torn tail as ever, also behind damage.
#[test]
fn a_torn_tail_behind_damage_stays_a_torn_tail() {
    let mut log = small_log(5, segment_bytes(8));
    log.drop_spares();
    log.disk.file(1)[2 * BLOCK_BYTES] ^= 1;
    log.disk.file(1)[5 * BLOCK_BYTES + 70] ^= 1;
    let (told, recovered) = salvage(&log.disk, log.segment_bytes);
    assert!(recovered.torn.is_some());
    let runs = told.iter().filter(|told| matches!(told, Told::Run(_))).count();
    assert_eq!(runs, 9, "of the batches 1, 3 and 4");
}

/// One misdirected write does this: the last block of a segment went where the next one's header was.
#[test]
fn a_lost_end_whose_only_witness_is_lost_as_well_is_named() {
    let mut log = small_log(8, segment_bytes(3));
    log.drop_spares();
    log.disk.file(1)[3 * BLOCK_BYTES..4 * BLOCK_BYTES].fill(0);
    log.disk.file(2)[..BLOCK_BYTES].fill(0xa5);
    let (told, _) = salvage(&log.disk, log.segment_bytes);
    assert_nothing_is_missed(&told, &log.written, "both");
}

/// A start was not shown the newest segment, and began the next behind the one before it. What is read again is
/// given back, and that something is missing behind it is said. (`cargo planted HeaderNotCovered --from 114`)
#[test]
fn contract_row_55_a_segment_its_successor_was_not_shown_is_read_and_the_gap_is_named() {
    for batches in [2, 4] {
        let mut log = small_log(batches, segment_bytes(2));
        log.append(batch([run(1, 9, 9, &[b"more"])]));
        let newest = SegmentSeq(batches / 2 + 1);
        log.disk.0.retain(|segment, _| *segment <= newest);
        let (whole, written) = (log.disk.0[&newest].clone(), log.written.clone());
        let file = log.disk.file(newest.0);
        file[..BLOCK_BYTES].fill(0);
        file.truncate(2 * BLOCK_BYTES + 100);
        let (told, recovered) = salvage(&log.disk, log.segment_bytes);
        assert_eq!(told.last(), Some(&Told::Lost(Whose::Anybody)), "{batches}");

        let mut log = Log::reopen(log.disk, recovered.position, log.segment_bytes);
        log.append(batch([run(1, 10, 9, &[b"second life"])]));
        log.disk.0.insert(newest, whole);
        let (told, _) = salvage(&log.disk, log.segment_bytes);
        let mut expected: Vec<_> = written.into_iter().map(Told::Run).collect();
        expected.push(Told::Lost(Whose::Anybody));
        expected.extend(log.written.into_iter().map(Told::Run));
        assert_eq!(told, expected, "{batches}");
        let fault = log.disk.recover(log.segment_bytes).unwrap_err().fault;
        let before = newest.0 - 1;
        assert_eq!(fault, Fault::authentic("previous segment", 48, newest.0, before));
    }
}

/// A start was not shown a batch in front of the torn one with which it began the next segment, and what lies
/// in front of that is gone. It is shown later: the header names the end that is found then.
/// (`cargo tool sim --seed 454769`)
#[test]
fn contract_row_55_what_a_start_was_not_shown_in_front_of_the_end_may_be_shown_later() {
    for gone in [2, 3, 4] {
        let mut log = small_log(5, segment_bytes(8));
        log.disk.file(1)[gone * BLOCK_BYTES..(gone + 1) * BLOCK_BYTES].fill(0);
        log.disk.file(1)[5 * BLOCK_BYTES + 70] ^= 1;
        let shown = log.disk.file(1).clone();
        log.disk.file(1)[gone * BLOCK_BYTES..5 * BLOCK_BYTES].fill(0);
        let (_, recovered) = salvage(&log.disk, log.segment_bytes);
        assert_eq!(recovered.position.next_batch, 5, "{gone}: the torn one's number");

        let written: Vec<_> = log.written.into_iter().take(4 * 3).collect();
        let mut log = Log::reopen(log.disk, recovered.position, log.segment_bytes);
        log.append(batch([run(1, 10, 9, &[b"second life"])]));
        let written = [written, log.written].concat();
        let (told, _) = salvage(&log.disk, log.segment_bytes);
        assert_nothing_is_missed(&told, &written, "not shown");
        *log.disk.file(1) = shown;
        let (told, recovered) = salvage(&log.disk, log.segment_bytes);
        assert_nothing_is_missed(&told, &written, "shown");
        let runs = told.iter().filter(|told| matches!(told, Told::Run(_))).count();
        assert_eq!(runs, 3 * 3 + 1, "{gone}: all but what is gone");
        assert_eq!(recovered.position.next_batch, 6, "{gone}");
    }
}

/// A header that belongs elsewhere is decay; a file that does was renamed.
#[test]
fn a_later_header_in_place_of_ones_own_is_decay_unless_the_batches_say_so_too() {
    let mut log = small_log(8, segment_bytes(3));
    log.drop_spares();
    let other = log.disk.file(2)[..BLOCK_BYTES].to_vec();
    log.disk.file(1)[..BLOCK_BYTES].copy_from_slice(&other);
    let (told, _) = salvage(&log.disk, log.segment_bytes);
    assert_nothing_is_missed(&told, &log.written, "a header");
    let whole = log.disk.file(2).clone();
    log.disk.file(1).copy_from_slice(&whole);
    let mut recovery = Recovery::with_segment_bytes(IDENTITY, log.segment_bytes);
    let refused = recovery.salvage(SegmentSeq(1), log.disk.file(1), &mut |_| {});
    assert_eq!(refused.expect_err("renamed").fault.what, "segment number");
}

/// What recovery says of a log of which every segment was checked beforehand.
fn salvage_checked(disk: &Disk, segment_bytes: usize) -> (Vec<Told>, Recovered) {
    salvage_with(SegmentSeq(0), disk, segment_bytes, |recovery, segment, bytes| {
        recovery.trust(Checked::new(IDENTITY, segment, bytes, bytes.len() as u64));
    })
}

#[test]
fn checksums_taken_beforehand_change_nothing() {
    let mut log = small_log(4, segment_bytes(3));
    log.close();
    log.drop_spares();
    let whole = salvage(&log.disk, log.segment_bytes);
    assert_eq!(salvage_checked(&log.disk, log.segment_bytes), whole);
    for at in 0..4 * BLOCK_BYTES {
        let bit = 1 << (at % 8);
        log.disk.file(1)[at] ^= bit;
        let plain = salvage(&log.disk, log.segment_bytes);
        assert_eq!(salvage_checked(&log.disk, log.segment_bytes), plain, "byte {at}");
        log.disk.file(1)[at] ^= bit;
    }
}

#[test]
fn what_was_found_whole_elsewhere_is_checked_all_the_same() {
    let mut log = small_log(4, segment_bytes(3));
    log.drop_spares();
    let clean: BTreeMap<_, _> = log.disk.0.clone();
    log.disk.file(1)[BLOCK_BYTES + 64] ^= 1;
    let (told, _) =
        salvage_with(SegmentSeq(0), &log.disk, log.segment_bytes, |recovery, segment, _| {
            let bytes = &clean[&segment];
            recovery.trust(Checked::new(IDENTITY, segment, bytes, bytes.len() as u64));
        });
    assert_eq!(told, salvage(&log.disk, log.segment_bytes).0);
}

#[test]
fn what_was_found_whole_of_another_segment_in_the_same_place_is_checked_all_the_same() {
    let mut log = small_log(4, segment_bytes(1));
    log.drop_spares();
    log.disk.file(2)[BLOCK_BYTES + 64] ^= 1;
    let expected = salvage(&log.disk, log.segment_bytes).0;
    assert!(expected.iter().any(|told| matches!(told, Told::Lost(_))), "{expected:?}");
    // Both segments are read into the same memory; only of the first somebody looked.
    let mut memory = vec![0; log.segment_bytes];
    let mut recovery = Recovery::with_segment_bytes(IDENTITY, log.segment_bytes);
    let mut told = Vec::new();
    for (segment, bytes) in &log.disk.0 {
        memory.copy_from_slice(bytes);
        let mut later = log.disk.0.range(segment.next()..);
        later.find_map(|(later, bytes)| recovery.look_ahead(*later, bytes));
        if *segment == SegmentSeq(1) {
            recovery.trust(Checked::new(IDENTITY, *segment, &memory, memory.len() as u64));
        }
        let on = &mut |found: Found<'_>| {
            told.push(match found {
                Found::Run(run) => Told::Run(seen(run).0),
                Found::Lost(Loss { whose, .. }) => Told::Lost(whose),
            });
        };
        recovery.salvage(*segment, &memory, on).expect("decay is salvaged");
    }
    assert_eq!(told, expected);
}

#[test]
fn what_was_found_whole_beforehand_is_not_looked_at_again_where_it_lies() {
    let log = small_log(2, segment_bytes(3));
    let mut bytes = log.disk.0[&SegmentSeq(1)].clone();
    let checked = || Checked::new(IDENTITY, SegmentSeq(1), &bytes, bytes.len() as u64);
    let (here, elsewhere) = (checked(), checked());
    // A payload of the last batch decays in between.
    bytes[2 * BLOCK_BYTES + 64 + before_payloads(&log.written[3])] ^= 1;
    let found = |checked, bytes: &[u8]| {
        let mut recovery = Recovery::with_segment_bytes(IDENTITY, log.segment_bytes);
        recovery.trust(checked);
        let mut runs = 0;
        recovery.segment(SegmentSeq(1), bytes, &mut |_| runs += 1).expect("nothing is proven");
        (runs, recovery.finish().expect("nothing is proven").torn.is_some())
    };
    assert_eq!(found(here, &bytes), (6, false));
    assert_eq!(found(elsewhere, &bytes.clone()), (3, true), "other bytes");
}

#[test]
fn only_a_header_of_this_log_with_the_files_own_number_is_looked_ahead_to() {
    let log = small_log(4, segment_bytes(3));
    let block = &log.disk.0[&SegmentSeq(2)][..BLOCK_BYTES];
    let ahead = |identity, segment| {
        let mut recovery = Recovery::with_segment_bytes(identity, log.segment_bytes);
        recovery.look_ahead(SegmentSeq(segment), block)
    };
    let end = Location { segment: SegmentSeq(1), offset: 4 * BLOCK_BYTES as u64 };
    assert_eq!(ahead(IDENTITY, 2), Some(end));
    assert_eq!(ahead(IDENTITY, 3), None, "the file was renamed");
    assert_eq!(ahead(Identity { node: NodeId(9), ..IDENTITY }, 2), None);
}

#[test]
fn a_segment_whose_header_is_gone_is_counted_like_any_other() {
    let mut log = small_log(4, segment_bytes(3));
    log.drop_spares();
    log.disk.file(1)[..BLOCK_BYTES].fill(0);
    let (_, recovered) = salvage(&log.disk, log.segment_bytes);
    assert_eq!((recovered.segments, recovered.batches), (2, 4));
}

/// What was reclaimed lies in front of the first segment, which is missed like any other.
#[test]
fn contract_row_27_the_first_segment_of_a_log_is_missed_though_those_before_it_are_not() {
    let mut log = small_log(8, segment_bytes(3));
    log.drop_spares();
    log.disk.0.retain(|segment, _| *segment == SegmentSeq(3));
    let damage = log.disk.recover_from(SegmentSeq(2), log.segment_bytes).expect_err("2 is gone");
    assert_eq!((damage.segment, damage.fault.what), (SegmentSeq(2), "segment file"));
    let (recovered, _) = log.disk.recover_from(SegmentSeq(3), log.segment_bytes).expect("whole");
    assert_eq!(recovered.batches, 2);
}

#[test]
fn a_segment_that_follows_itself_or_a_later_one_is_refused() {
    for previous in [2, 3] {
        let at = Location { segment: SegmentSeq(previous), offset: BLOCK_BYTES as u64 };
        let header = SegmentHeader {
            version: FORMAT_VERSION,
            identity: IDENTITY,
            segment_bytes: segment_bytes(3) as u32,
            segment: SegmentSeq(2),
            previous: End { at, chain: 0 },
            first_batch: 1,
        };
        let mut disk = Disk::default();
        disk.0.insert(SegmentSeq(2), vec![0; segment_bytes(3)]);
        header.encode_into(&mut disk.file(2)[..BLOCK_BYTES]);
        let damage = disk.recover(segment_bytes(3)).expect_err("nobody wrote that");
        assert_eq!(damage.fault, Fault::authentic("previous segment", 48, 1, previous));
    }
}

/// Of the first segment that is there the header is gone, too, and nothing was written behind that (`tool sim --seed 1200337`:
/// a file gone and the next one put back, with a log that began with the first of them).
#[test]
fn contract_row_27_the_first_segment_is_missed_though_the_next_has_no_header() {
    let previous =
        End { at: Location { segment: SegmentSeq(3), offset: BLOCK_BYTES as u64 }, chain: 0 };
    let header = SegmentHeader {
        version: FORMAT_VERSION,
        identity: IDENTITY,
        segment_bytes: segment_bytes(3) as u32,
        segment: SegmentSeq(4),
        previous,
        first_batch: 1,
    };
    let mut disk = Disk::default();
    for segment in [3, 4] {
        disk.0.insert(SegmentSeq(segment), vec![0; segment_bytes(3)]);
    }
    header.encode_into(&mut disk.file(4)[..BLOCK_BYTES]);
    for (first, whose) in [(2, Whose::Anybody), (3, Whose::Groups(Vec::new()))] {
        let (told, _) = salvage_from(SegmentSeq(first), &disk, segment_bytes(3));
        assert_eq!(told, [Told::Lost(whose)], "it begins with {first}");
    }
}
