//! Recovery over files that had an earlier life: what that left behind is never the log's, and never proof
//! of anything; what is damaged in this life is noticed and named as ever.

use super::salvage::{Told, assert_nothing_is_missed, salvage_from};
use super::*;
use crate::wal::{Proof, Whose};

const BLOCKS: usize = 12;
const SEGMENT: usize = BLOCKS * BLOCK_BYTES;

/// A log whose first segments were given up, and all of whose files since are those. The earlier life wrote
/// batches of one, two and three blocks, so that headers and the insides of batches lie at every place.
fn recycling(batches: u64) -> Log {
    let mut log = Log::new(SEGMENT);
    let mut index = 0;
    while log.appender.open_segment() != Some(SegmentSeq(6)) {
        index += 1;
        let payload = vec![index as u8; (index as usize % 3) * BLOCK_BYTES];
        log.append(batch([run(1, 1, index, &[&payload]), run(2, 1, index, &[b"old"])]));
    }
    // Spares, too, of the earlier life: 1 to 5 become 7 to 11.
    for seq in 1..=5 {
        let file = log.disk.0.remove(&SegmentSeq(seq)).expect("the earlier life filled it");
        log.disk.0.insert(SegmentSeq(seq + 6), file);
        log.appender.on_spare(SegmentSeq(seq + 6));
    }
    while log.appender.open_segment() != Some(SegmentSeq(7)) {
        index += 1;
        log.append(batch([run(1, 1, index, &[b"old"])]));
    }
    // What is asked of recovery is asked from segment 7 on.
    log.disk.0.remove(&SegmentSeq(6));
    let last = log.written.pop().expect("it opened segment 7");
    log.written = vec![last];
    for number in 1..batches {
        index += 1;
        let value = vec![number as u8; 100];
        log.append(batch([run(1, 2, index, &[&value]), run(2, 2, index, &[b"new"])]));
    }
    log
}

fn recover(disk: &Disk) -> Result<(Recovered, Vec<Run>), Damage> {
    disk.recover_from(SegmentSeq(7), SEGMENT)
}

fn salvage(disk: &Disk) -> Vec<Told> {
    salvage_from(SegmentSeq(7), disk, SEGMENT).0
}

fn block(at: usize) -> core::ops::Range<usize> {
    at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES
}

/// Where the batches of segment 7 begin, in blocks; each takes one.
fn batches_of_7(log: &Log) -> core::ops::Range<usize> {
    match log.appender.open_segment() {
        Some(SegmentSeq(7)) => 1..log.appender.durable().offset as usize / BLOCK_BYTES,
        _ => 1..BLOCKS - 1,
    }
}

#[test]
fn the_end_of_a_log_in_a_recycled_file_is_clean_and_its_spares_are_spares() {
    for batches in 1..10 {
        let log = recycling(batches);
        let (recovered, runs) = recover(&log.disk).unwrap();
        assert_eq!(runs, log.written, "{batches}");
        assert_eq!(recovered.segments, 1);
        // The last batch of the earlier life takes two blocks: in front of the second nobody can tell.
        assert_eq!(recovered.torn.is_some(), batches == 7, "{batches}: {:?}", recovered.torn);
        assert_eq!(recovered.spares, [8, 9, 10, 11].map(SegmentSeq));
        assert_eq!((recovered.discard.len(), recovered.position.next_segment.0), (0, 8));
        // The first write to the next one was torn: what is left has a header, or is nothing.
        for sector in 0..16 {
            let (mut disk, mut first) = (log.disk.clone(), recycling(batches));
            let position = recovered.position;
            first.appender = Appender::with_segment_bytes(IDENTITY, position, SEGMENT);
            first.appender.on_spare(SegmentSeq(8));
            let write = first.appender.place(batch([run(1, 2, 900, &[&[7; 1000]])]));
            let at = sector * 512;
            disk.file(8)[at..at + 512].copy_from_slice(&write.to_vec()[at..at + 512]);
            let (recovered, runs) = recover(&disk).unwrap();
            assert_eq!(runs, log.written, "{batches}, {sector}");
            // The header alone: an empty segment. The batch's header alone: a file of no use.
            let expected = if sector == 0 || sector == 8 { 9 } else { 8 };
            assert_eq!(recovered.position.next_segment.0, expected, "{batches}, {sector}");
            assert_eq!(recovered.discard.contains(&SegmentSeq(8)), sector == 8, "{sector}");
        }
    }
}

#[test]
fn contract_row_55_a_torn_write_over_an_earlier_life_is_trimmed() {
    for before in 1..7 {
        let log = recycling(before);
        let mut more = recycling(before);
        let payload = [7; 2 * BLOCK_BYTES];
        let write = more.appender.place(batch([run(1, 2, 900, &[&payload])]));
        let (start, new) = (usize::try_from(write.offset).unwrap(), write.to_vec());
        let sectors = new.len() / 512;
        for lost in 0..sectors {
            for only in [false, true] {
                let mut disk = log.disk.clone();
                for (number, sector) in new.chunks(512).enumerate() {
                    if (number == lost) == only {
                        let at = start + number * 512;
                        disk.file(7)[at..at + 512].copy_from_slice(sector);
                    }
                }
                let (recovered, runs) = recover(&disk).unwrap();
                let is_whole = recovered.bytes as usize > before as usize * BLOCK_BYTES;
                // The last sectors of it are zero, and so may those of the earlier life be.
                assert!(!is_whole || !only && lost >= sectors - 8, "{before} {lost} {only}");
                assert_eq!(runs.len() > log.written.len(), is_whole);
                let has_header = (lost == 0) == only;
                assert!(is_whole || !has_header || recovered.torn.is_some(), "{before} {lost}");
            }
        }
    }
}

/// The last batches of this life are damaged, each in its own way, and the earlier life goes on behind.
#[test]
fn contract_row_55_damage_in_front_of_an_earlier_life_is_named_if_it_was_proven() {
    // Ten batches and the reserve fill segment 7; with more of them, segment 8 proves its end.
    for batches in [4, 8, 14] {
        let whole = recycling(batches);
        let places = batches_of_7(&whole);
        let last = places.end - 1;
        for first_bad in places {
            for lost in [false, true] {
                let mut disk = whole.disk.clone();
                // From here to the end of segment 7 nothing of this life is left.
                let old = recycling(1).disk.file(7).clone();
                for bad in first_bad..=last {
                    match lost {
                        true if bad > 1 => {
                            disk.file(7)[block(bad)].copy_from_slice(&old[block(bad)]);
                        }
                        _ => disk.file(7)[bad * BLOCK_BYTES + 20] ^= 1,
                    }
                }
                let what = format!("{batches} batches, bad from {first_bad}, lost: {lost}");
                let is_proven = batches > 10;
                match recover(&disk) {
                    Ok((_, runs)) => {
                        assert!(!is_proven, "{what}: damage is trimmed in silence");
                        assert!(whole.written.starts_with(&runs), "{what}");
                    }
                    Err(damage) => {
                        assert!(is_proven, "{what}: {damage}");
                        assert!(matches!(damage.proof, Proof::Durable { .. }), "{what}");
                        assert_eq!(damage.offset as usize, first_bad * BLOCK_BYTES, "{what}");
                    }
                }
                if is_proven {
                    let told = salvage(&disk);
                    assert!(told.contains(&Told::Lost(Whose::Anybody)), "{what}");
                    assert_nothing_is_missed(&told, &whole.written, &what);
                    assert!(matches!(told.last(), Some(Told::Run(_))), "{what}: 8 is read");
                }
            }
        }
    }
}

/// One batch in the middle: a later one of this life proves it, those of the earlier life do not.
#[test]
fn contract_row_55_damage_in_the_middle_of_a_recycled_file_is_named() {
    let whole = recycling(7);
    let old = recycling(1).disk.file(7).clone();
    for bad in 1..=7 {
        for lost in [false, true] {
            let mut disk = whole.disk.clone();
            match lost {
                true if bad > 1 => disk.file(7)[block(bad)].copy_from_slice(&old[block(bad)]),
                _ => disk.file(7)[bad * BLOCK_BYTES + 20] ^= 1,
            }
            let told = salvage(&disk);
            if bad == 7 {
                let losses = told.iter().filter(|told| matches!(told, Told::Lost(_))).count();
                assert_eq!((losses, recover(&disk).unwrap().1.len()), (0, whole.written.len() - 2));
                continue;
            }
            assert_eq!(recover(&disk).unwrap_err().offset as usize, bad * BLOCK_BYTES);
            assert_nothing_is_missed(&told, &whole.written, &format!("block {bad}"));
        }
    }
}

/// The header of a segment is gone, by decay or because its write never arrived. The segment in front ends in
/// an earlier life, which casts no doubt on where: the batches are counted.
#[test]
fn a_header_lost_behind_a_recycled_file_costs_nobody_anything() {
    let whole = recycling(14);
    let header = recycling(1).disk.file(8)[block(0)].to_vec();
    for lost in [false, true] {
        let mut disk = whole.disk.clone();
        // Where nobody can tell whether it is of an earlier life.
        disk.file(7)[block(BLOCKS - 1)].fill(0x5a);
        match lost {
            true => disk.file(8)[block(0)].copy_from_slice(&header),
            false => disk.file(8)[30] ^= 1,
        }
        let told = salvage(&disk);
        let losses: Vec<_> = told.iter().filter(|told| matches!(told, Told::Lost(_))).collect();
        assert_eq!(losses, [&Told::Lost(Whose::Groups(Vec::new()))], "lost: {lost}");
        assert_nothing_is_missed(&told, &whole.written, "header");
        // If the last batch in front is gone as well, there is doubt.
        disk.file(7)[(BLOCKS - 2) * BLOCK_BYTES + 20] ^= 1;
        let told = salvage(&disk);
        assert!(told.contains(&Told::Lost(Whose::Anybody)), "lost: {lost}");
        assert_nothing_is_missed(&told, &whole.written, "header and end");
    }
}

/// Bits of sealed, recycled segments.
#[test]
fn contract_row_55_flipped_bits_of_a_recycled_segment_are_noticed() {
    let whole = recycling(14);
    let places = batches_of_7(&whole);
    for at in (0..places.end * BLOCK_BYTES).step_by(13) {
        let within = at % BLOCK_BYTES;
        if 700 < within && within < BLOCK_BYTES - 100 {
            continue;
        }
        let mut disk = whole.disk.clone();
        disk.file(7)[at] ^= 1 << (at % 8);
        assert!(recover(&disk).is_err(), "byte {at}");
        let told = salvage(&disk);
        assert_nothing_is_missed(&told, &whole.written, &format!("byte {at}"));
    }
    // Those behind its end are nobody's.
    for at in (places.end * BLOCK_BYTES..SEGMENT).step_by(101) {
        let mut disk = whole.disk.clone();
        disk.file(7)[at] ^= 1;
        assert_eq!(recover(&disk).unwrap().1, whole.written, "byte {at}");
    }
}

#[test]
fn what_clients_wrote_into_an_earlier_life_is_no_run_of_a_torn_batch() {
    // The second run of a batch begins in a block that never arrived. There lies what a client put there: the head
    // of a run that no run may have, under a checksum that holds.
    let first = |bytes: usize| run(1, 1, 1, &[&vec![b'f'; bytes]]);
    let fill = BLOCK_BYTES - 64 - before_payloads(&first(BLOCK_BYTES / 2));
    let mut log = Log::new(segment_bytes(3));
    log.append(batch([first(fill), run(2, 1, 1, &[b"second"])]));
    assert_eq!(log.recover().unwrap().1, log.written);
    let head = 0x1000_0000_u32.to_le_bytes();
    let mut pattern = crc32fast::hash(&head).to_le_bytes().to_vec();
    pattern.extend(head);
    for piece in log.disk.file(1)[2 * BLOCK_BYTES..3 * BLOCK_BYTES].chunks_mut(pattern.len()) {
        piece.copy_from_slice(&pattern);
    }
    let (recovered, runs) = log.recover().expect("a torn tail");
    assert!(runs.is_empty());
    assert_eq!(recovered.torn.expect("it is told").reason.what, "entries in a run of this kind");
}
