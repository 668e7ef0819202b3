//! Each case of the rule in `wal/mod.rs`, one by one.

use super::*;

const BLOCK: usize = BLOCK_BYTES;

/// Three batches in flight at once: number 2 and 3 carry no watermark behind number 1.
fn in_flight() -> Log {
    let mut log = Log::new(segment_bytes(6));
    log.append(batch([run(1, 1, 1, &[b"acked"])]));
    for index in 2..=4 {
        log.place(batch([run(1, 1, index, &[b"in flight"])]));
    }
    log
}

#[test]
fn contract_row_54_zero_to_the_end_is_a_clean_end() {
    let (recovered, runs) = small_log(3, segment_bytes(5)).recover().unwrap();
    assert_eq!((recovered.torn, recovered.batches, runs.len()), (None, 3, 9));
    assert_eq!(recovered.position.next_segment, SegmentSeq(2));
    assert_eq!(recovered.position.next_batch, 4);
    assert_eq!(recovered.position.end.at.offset, 4 * BLOCK as u64);
    assert_eq!(recovered.spares, [SegmentSeq(2), SegmentSeq(3)]);
}

#[test]
fn contract_row_54_later_runs_come_later_and_gaps_are_visible() {
    let mut log = Log::new(segment_bytes(5));
    log.append(batch([run(1, 1, 1, &[b"a", b"b", b"c"])]));
    log.append(batch([run(1, 2, 2, &[b"B"]), run(1, 2, 9, &[b"gap"])]));
    let (_, runs) = log.recover().unwrap();
    let places: Vec<_> = runs.iter().map(|run| (run.first.0, run.entries.len())).collect();
    assert_eq!(places, [(1, 3), (2, 1), (9, 1)]);
}

#[test]
fn an_empty_log_opens() {
    let (recovered, runs) = Disk::default().recover(segment_bytes(2)).unwrap();
    assert_eq!((recovered.position, runs.len()), (Position::default(), 0));
    let (recovered, _) = Log::new(segment_bytes(2)).recover().unwrap();
    assert_eq!(recovered.position, Position::default());
    assert_eq!(recovered.spares, [SegmentSeq(1), SegmentSeq(2)]);
}

#[test]
fn contract_row_55_a_whole_batch_behind_a_torn_one_is_no_proof() {
    let mut log = in_flight();
    log.disk.file(1)[2 * BLOCK + 100] ^= 1;
    let (recovered, runs) = log.recover().unwrap();
    assert_eq!(runs, log.written[..1]);
    let torn = recovered.torn.unwrap();
    assert_eq!((torn.segment, torn.offset), (SegmentSeq(1), 2 * BLOCK as u64));

    // The log goes on in the next segment; what lies behind the trim stays out for ever.
    let mut log = Log::reopen(log.disk, recovered.position, log.segment_bytes);
    log.append(batch([run(1, 2, 2, &[b"second life"])]));
    let (recovered, runs) = log.recover().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[1], log.written[0]);
    assert_eq!((recovered.torn, recovered.segments), (None, 2));
}

#[test]
fn contract_row_55_a_watermark_behind_the_bad_spot_is_proof() {
    let mut log = small_log(3, segment_bytes(5));
    log.disk.file(1)[2 * BLOCK + 100] ^= 1;
    let damage = log.recover().unwrap_err();
    assert_eq!((damage.segment, damage.offset), (SegmentSeq(1), 2 * BLOCK as u64));
    let by = Location { segment: SegmentSeq(1), offset: 3 * BLOCK as u64 };
    assert_eq!(damage.proof, Proof::Durable { by });
    let text = damage.to_string();
    for part in ["0000000000000001.seg", "offset 8192", "run checksum", "expected", "Replace"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn contract_row_55_the_next_segment_proves_this_one_to_its_end() {
    for bad in [0, 50, BLOCK, 2 * BLOCK + 80, 3 * BLOCK + 8] {
        let mut log = small_log(4, segment_bytes(3));
        assert_eq!(log.appender.open_segment(), Some(SegmentSeq(2)));
        log.disk.file(1)[bad] ^= 1;
        let damage = log.recover().unwrap_err();
        assert_eq!(damage.segment, SegmentSeq(1));
        assert_eq!(damage.offset, (bad / BLOCK * BLOCK) as u64);
    }
}

#[test]
fn contract_row_55_the_last_batch_is_proven_by_the_closing_write() {
    for closed in [false, true] {
        let mut log = small_log(2, segment_bytes(5));
        if closed {
            log.close();
        }
        log.disk.file(1)[2 * BLOCK + 200] ^= 4;
        match log.recover() {
            Err(damage) => assert!(closed, "{damage}"),
            Ok((recovered, runs)) => {
                assert!(!closed && recovered.torn.is_some());
                assert_eq!(runs, log.written[..3]);
            }
        }
    }
}

#[test]
fn the_closing_write_fits_the_fullest_segment() {
    let mut log = small_log(3, segment_bytes(3));
    log.close();
    let (recovered, runs) = log.recover().unwrap();
    assert_eq!((recovered.batches, recovered.torn, runs.len()), (4, None, 9));
    log.append(batch([run(1, 9, 9, &[b"next"])]));
    assert_eq!(log.recover().unwrap().0.segments, 2);
}

#[test]
fn contract_row_57_a_segment_of_another_log_is_refused_by_name() {
    let log = small_log(1, segment_bytes(2));
    for other in [
        Identity { cluster: ClusterId(9), ..IDENTITY },
        Identity { node: NodeId(9), ..IDENTITY },
        Identity { shard: ShardId(9), ..IDENTITY },
    ] {
        let mut recovery = Recovery::with_segment_bytes(other, log.segment_bytes);
        let damage =
            recovery.segment(SegmentSeq(1), &log.disk.0[&SegmentSeq(1)], &mut |_| {}).unwrap_err();
        assert_eq!(damage.proof, Proof::Identity { expected: other, found: IDENTITY });
        assert!(damage.to_string().contains("cluster 00000000000000c1 node 2 shard 3"), "{damage}");
        assert!(format!("{IDENTITY:?}").contains("ClusterId(00000000000000c1)"), "{IDENTITY:?}");
    }
}

#[test]
fn contract_row_52_a_missing_segment_is_refused_by_name() {
    let mut log = small_log(5, segment_bytes(1));
    log.disk.0.remove(&SegmentSeq(3));
    let damage = log.recover().unwrap_err();
    assert_eq!(damage.segment, SegmentSeq(3));
    assert!(matches!(damage.proof, Proof::Sequence { by } if by.segment == SegmentSeq(4)));
    // At the front as well: what it held was promised.
    let mut log = small_log(5, segment_bytes(1));
    log.disk.0.remove(&SegmentSeq(1));
    let damage = log.recover().unwrap_err();
    assert_eq!(damage.segment, SegmentSeq(1));
    assert!(matches!(damage.proof, Proof::Sequence { by } if by.segment == SegmentSeq(2)));
    // Unless it was given up on purpose.
    let (_, runs) = log.disk.recover_from(SegmentSeq(2), log.segment_bytes).unwrap();
    assert_eq!(runs, log.written[3..]);
}

/// A write in flight at a kill -9 lands after the recovery that trimmed it: whole, in its place and
/// chained, but the log has gone on without it.
#[test]
fn contract_row_55_a_write_that_lands_after_recovery_is_not_part_of_the_log() {
    let mut log = Log::new(segment_bytes(6));
    log.append(batch([run(1, 1, 1, &[b"acked"])]));
    let before = log.disk.clone();
    let late = log.place(batch([run(1, 1, 2, &[b"late"])]));
    let (recovered, _) = before.recover(log.segment_bytes).unwrap();
    let mut log = Log::reopen(before, recovered.position, log.segment_bytes);
    log.append(batch([run(1, 2, 2, &[b"second life"])]));
    log.disk.write(&late);
    let (recovered, runs) = log.recover().unwrap();
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_eq!(runs[1], log.written[0]);
    assert_eq!((recovered.torn, recovered.segments), (None, 2));
}

#[test]
fn a_lost_segment_in_the_middle_is_damage_and_at_the_end_a_spare() {
    let mut log = small_log(3, segment_bytes(1));
    log.disk.file(2).fill(0);
    let damage = log.recover().unwrap_err();
    assert_eq!((damage.segment, damage.offset), (SegmentSeq(2), 0));
    log.disk.file(3).fill(0);
    let (recovered, runs) = log.recover().unwrap();
    assert_eq!(runs, log.written[..3]);
    assert_eq!(recovered.spares, (2..=5).map(SegmentSeq).collect::<Vec<_>>());
}

#[test]
fn a_cut_file_is_refused() {
    for (keep, segment) in [(3 * BLOCK, 1), (100, 1), (0, 1), (2 * BLOCK, 2), (BLOCK, 2)] {
        let mut log = small_log(4, segment_bytes(3));
        log.disk.file(segment).truncate(keep);
        match log.recover() {
            Err(damage) => assert_eq!(damage.segment, SegmentSeq(segment)),
            Ok(_) => panic!("segment {segment} cut to {keep} bytes was accepted"),
        }
    }
    // Nothing tells a spare that was cut from a segment that was.
    let mut log = small_log(1, segment_bytes(3));
    log.disk.file(2).truncate(0);
    assert_eq!(log.recover().unwrap_err().proof, Proof::Length);
}

#[test]
fn a_first_write_whose_header_is_torn_is_no_segment() {
    let mut log = small_log(1, segment_bytes(1));
    log.place(batch([run(1, 2, 2, &[b"unacknowledged"])]));
    log.disk.file(2)[..512].fill(0);
    let (recovered, runs) = log.recover().unwrap();
    assert_eq!(runs, log.written[..3]);
    assert_eq!(recovered.discard, [SegmentSeq(2)]);
    assert_eq!(recovered.position.next_segment, SegmentSeq(3));
    assert_eq!(recovered.spares, [SegmentSeq(3), SegmentSeq(4)]);

    // The discarded file may stay, be deleted, or be zeroed.
    let position = recovered.position;
    for fate in 0..3 {
        let mut log = Log::reopen(log.disk.clone(), position, log.segment_bytes);
        match fate {
            0 => {}
            1 => drop(log.disk.0.remove(&SegmentSeq(2))),
            _ => log.disk.file(2).fill(0),
        }
        log.append(batch([run(1, 3, 2, &[b"second life"])]));
        let (again, runs) = log.recover().unwrap();
        assert_eq!(runs.len(), 4);
        assert_eq!(again.segments, 2);
    }
}

#[test]
fn a_header_lost_after_it_was_durable_is_damage() {
    let mut log = small_log(3, segment_bytes(2));
    log.append(batch([run(1, 9, 9, &[b"more"])]));
    log.disk.file(2)[..512].fill(0);
    let damage = log.recover().unwrap_err();
    assert_eq!((damage.segment, damage.offset), (SegmentSeq(2), 0));
}

#[test]
fn a_torn_header_may_still_prove_the_segment_before() {
    let mut log = small_log(2, segment_bytes(2));
    log.place(batch([run(1, 9, 9, &[b"rotates"])]));
    log.disk.file(2)[..512].fill(0);
    log.disk.file(1)[2 * BLOCK + 64] ^= 1;
    let damage = log.recover().unwrap_err();
    assert_eq!((damage.segment, damage.offset), (SegmentSeq(1), 2 * BLOCK as u64));
}

#[test]
fn contract_row_53_a_batch_of_another_history_does_not_chain() {
    let ours = small_log(2, segment_bytes(4));
    let mut other = Log::new(segment_bytes(4));
    other.append(batch([run(1, 1, 1, &[b"another first batch"])]));
    other.append(batch([run(1, 1, 2, &[b"and its second"])]));
    let mut log = Log { disk: ours.disk.clone(), ..ours };
    log.disk.file(1)[2 * BLOCK..].copy_from_slice(&other.disk.file(1)[2 * BLOCK..]);
    let (recovered, runs) = log.recover().unwrap();
    assert_eq!(runs, log.written[..3]);
    let reason = recovered.torn.unwrap().reason;
    assert_eq!((reason.what, reason.at), ("chain to the batch before", 2 * BLOCK as u64 + 40));
    // A batch that was the second there would be the third here.
    let mut log = small_log(3, segment_bytes(4));
    let mut other = Log::new(segment_bytes(4));
    other.append(batch([run(1, 1, 1, &[&[1; BLOCK]])]));
    other.append(batch([run(1, 1, 2, &[b"its second"])]));
    log.disk.file(1)[3 * BLOCK..].copy_from_slice(&other.disk.file(1)[3 * BLOCK..]);
    let (recovered, runs) = log.recover().unwrap();
    assert_eq!(runs, log.written[..6]);
    let reason = recovered.torn.unwrap().reason;
    assert_eq!(reason, Fault::new("batch number", 3 * BLOCK as u64 + 24, 3, 2));
}

#[test]
fn contract_row_53_a_segment_of_another_history_does_not_chain() {
    let mut ours = small_log(2, segment_bytes(1));
    let mut other = Log::new(segment_bytes(1));
    other.append(batch([run(1, 1, 1, &[b"another first batch"])]));
    other.append(batch([run(1, 1, 2, &[b"and its second"])]));
    ours.disk.file(2).clone_from(other.disk.file(2));
    let damage = ours.recover().unwrap_err();
    assert_eq!(damage.fault.what, "chain to the segment before");
}

#[test]
fn a_misdirected_batch_is_not_believed() {
    let mut log = small_log(3, segment_bytes(4));
    let stray = log.disk.file(1)[2 * BLOCK..3 * BLOCK].to_vec();
    log.disk.file(1)[4 * BLOCK..5 * BLOCK].copy_from_slice(&stray);
    let (recovered, runs) = log.recover().unwrap();
    assert_eq!(runs, log.written);
    assert_eq!(recovered.torn.unwrap().reason.what, "batch's offset");
}

#[test]
fn an_older_life_of_the_file_is_not_believed() {
    let mut log = small_log(3, segment_bytes(2));
    let older = log.disk.file(1)[2 * BLOCK..3 * BLOCK].to_vec();
    log.disk.file(2)[2 * BLOCK..3 * BLOCK].copy_from_slice(&older);
    let (recovered, runs) = log.recover().unwrap();
    assert_eq!(runs, log.written);
    assert_eq!(recovered.torn, None, "an earlier life is no unfinished write");
}

#[test]
fn a_stale_run_inside_a_torn_batch_is_not_believed() {
    // Two lives of one place: same lengths, other content. The head of the new batch arrived, its
    // second run is still the old one, and whole.
    let filler = [b'f'; 600];
    let write = |second: &[u8]| {
        let mut log = Log::new(segment_bytes(2));
        log.append(batch([run(1, 1, 1, &[&filler]), run(2, 1, 1, &[second])]));
        log
    };
    let (mut new, mut old) = (write(b"new"), write(b"old"));
    let [first, bytes] = [0, 1].map(|run: usize| old.written[run].bytes());
    let second = BLOCK + 64 + first..BLOCK + 64 + first + bytes;
    let stale = old.disk.file(1)[second.clone()].to_vec();
    new.disk.file(1)[second].copy_from_slice(&stale);
    let (recovered, runs) = new.recover().unwrap();
    assert!(runs.is_empty());
    assert_eq!(recovered.torn.unwrap().reason.what, "checksum over the runs");
}

#[test]
fn another_format_version_is_refused_by_name() {
    let mut log = small_log(1, segment_bytes(2));
    let file = log.disk.file(1);
    file[12] = FORMAT_VERSION as u8 + 1;
    let crc = crc32fast::hash(&file[12..80]);
    file[8..12].copy_from_slice(&crc.to_le_bytes());
    let damage = log.recover().unwrap_err();
    assert_eq!((damage.fault.what, damage.proof), ("format version", Proof::Written));
}

#[test]
fn a_header_of_a_later_segment_is_a_lost_header_unless_all_else_is_of_that_segment_too() {
    let verdict = |from_later: usize, is_kept: bool| {
        let mut log = small_log(4, segment_bytes(3));
        let later = log.disk.file(2).clone();
        let file = log.disk.file(1);
        file[..from_later * BLOCK].copy_from_slice(&later[..from_later * BLOCK]);
        if !is_kept {
            file[from_later * BLOCK..].fill(0);
        }
        let damage = log.recover().unwrap_err();
        assert_eq!((damage.segment, damage.offset), (SegmentSeq(1), 0));
        assert_eq!(damage.fault, Fault::authentic("segment number", 40, 1, 2));
        damage.proof
    };
    let at = |segment| Location { segment: SegmentSeq(segment), offset: 0 };
    let (lost, renamed) = (Proof::Durable { by: at(2) }, Proof::Sequence { by: at(1) });
    assert_eq!([verdict(1, true), verdict(1, false), verdict(2, true)], [lost; 3]);
    assert_eq!(verdict(2, false), renamed);
}
