//! The first block of a segment file: `SegmentHeader::decode`.

use outrigger::id::{ClusterId, NodeId, SegmentSeq, ShardId};
use outrigger::wal::{End, FORMAT_VERSION, Identity, Location, SegmentHeader};

use super::choices::{Choices, below, byte, flip, number, rest};
use super::log::{BLOCK, checksum_segment_header, segment_header};

/// One input.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match byte(&mut choices) % 4 {
        0 => written(&mut choices),
        1 => checksummed(rest(&mut choices)),
        2 => {
            let mut block = [0; BLOCK];
            let data = rest(&mut choices);
            let count = data.len().min(BLOCK);
            block[..count].copy_from_slice(&data[..count]);
            judge(&block);
        }
        _ => judge(rest(&mut choices)),
    }
}

/// What is written reads back, and no bit of it may change.
fn written(choices: &mut Choices<'_>) {
    let at = Location { segment: SegmentSeq(number(choices)), offset: number(choices) };
    let header = SegmentHeader {
        version: 1 + below(choices, FORMAT_VERSION as usize) as u32,
        identity: Identity {
            cluster: ClusterId(number(choices)),
            node: NodeId(number(choices)),
            shard: ShardId(number(choices) as u16),
        },
        segment_bytes: number(choices) as u32,
        segment: SegmentSeq(number(choices)),
        previous: End { at, chain: number(choices) as u32 },
        first_batch: number(choices),
    };
    let mut block = [0; BLOCK];
    block[..80].copy_from_slice(&segment_header(&header));
    assert_eq!(SegmentHeader::decode(&block), Ok(header));
    flip(choices, &mut block);
    assert!(SegmentHeader::decode(&block).is_err(), "flipped bits went unnoticed");
}

/// Any fields under a checksum that holds.
fn checksummed(data: &[u8]) {
    let mut bytes = [0; 80];
    bytes[..8].copy_from_slice(b"OUTRWAL\0");
    let count = data.len().min(80 - 12);
    bytes[12..12 + count].copy_from_slice(&data[..count]);
    checksum_segment_header(&mut bytes);
    let mut block = [0; BLOCK];
    block[..80].copy_from_slice(&bytes);
    judge(&block);
}

/// What is believed is what that header is written as, to the last byte.
fn judge(bytes: &[u8]) {
    if let Ok(header) = SegmentHeader::decode(bytes) {
        assert_eq!(bytes[..80], segment_header(&header), "read otherwise than written");
        assert!(bytes[80..BLOCK].iter().all(|byte| *byte == 0), "what means nothing is zero");
    }
}
