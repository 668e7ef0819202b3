//! Every single bit: whatever flips, it is noticed, and what is handed out was written.

use super::*;

/// Flip each bit of segment 1 of `log` in turn. `unproven` names the bytes from which on a flip may
/// pass for a torn tail.
fn flip_every_bit(mut log: Log, unproven: usize) {
    log.drop_spares();
    let segment_bytes = log.segment_bytes;
    let (clean, _) = log.recover().unwrap();
    assert_eq!(clean.torn, None);
    for at in 0..segment_bytes {
        for bit in 0..8 {
            log.disk.file(1)[at] ^= 1 << bit;
            match log.recover() {
                Err(damage) => {
                    assert!(at < unproven, "bit {bit} of byte {at}: {damage}");
                    assert_eq!(damage.segment, SegmentSeq(1));
                    assert_eq!(damage.offset, (at / BLOCK_BYTES * BLOCK_BYTES) as u64);
                }
                Ok((recovered, runs)) => {
                    assert!(at >= unproven, "bit {bit} of byte {at} went unnoticed");
                    assert!(recovered.torn.is_some(), "bit {bit} of byte {at} went unnoticed");
                    assert!(log.written.starts_with(&runs), "bit {bit} of byte {at}: wrong data");
                    // Whatever was proven is there: three runs in each batch.
                    let proven = unproven / BLOCK_BYTES - 1;
                    assert!(runs.len() >= 3 * proven.min(3));
                }
            }
            log.disk.file(1)[at] ^= 1 << bit;
        }
    }
}

#[test]
fn contract_row_55_every_flipped_bit_of_an_open_log_is_noticed() {
    flip_every_bit(small_log(3, segment_bytes(3)), 3 * BLOCK_BYTES);
}

#[test]
fn contract_row_55_every_flipped_bit_of_a_closed_log_is_noticed() {
    let mut log = small_log(3, segment_bytes(4));
    log.close();
    flip_every_bit(log, 4 * BLOCK_BYTES);
}

#[test]
fn contract_row_55_every_flipped_bit_of_a_sealed_segment_is_damage() {
    let mut log = small_log(4, segment_bytes(3));
    log.drop_spares();
    // The reserve behind the last batch of a sealed segment holds nothing: a flip there is neither
    // damage nor a tail.
    let end = 4 * BLOCK_BYTES;
    for at in 0..log.segment_bytes {
        for bit in 0..8 {
            log.disk.file(1)[at] ^= 1 << bit;
            match log.recover() {
                Err(damage) => assert!(at < end && damage.segment == SegmentSeq(1)),
                Ok((_, runs)) => assert!(at >= end && runs == log.written),
            }
            log.disk.file(1)[at] ^= 1 << bit;
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed_by_a_reader() {
    let mut log = small_log(1, segment_bytes(2));
    let at = Location { segment: SegmentSeq(1), offset: BLOCK_BYTES as u64 };
    let read = |file: &[u8]| read_span(IDENTITY, file, at, GroupId(2), Index(3), Index(4), 1 << 20);
    let clean = read(log.disk.file(1)).unwrap();
    assert_eq!(clean, log.written[1].entries.to_vec());
    // The payload of group 1, which the reader passes over, is its own business.
    let payload = BLOCK_BYTES + 64 + before_payloads(&log.written[0]);
    let skipped = payload..payload + 7;
    for byte in (0..2 * BLOCK_BYTES).filter(|byte| !skipped.contains(byte)) {
        for bit in 0..8 {
            log.disk.file(1)[byte] ^= 1 << bit;
            assert!(read(log.disk.file(1)).is_err(), "bit {bit} of byte {byte}");
            log.disk.file(1)[byte] ^= 1 << bit;
        }
    }
}
