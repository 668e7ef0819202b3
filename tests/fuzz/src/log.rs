//! Logs made by choice, and the same bytes written by hand: a second opinion on the format.

use outrigger::entry::Entry;
use outrigger::id::{ClusterId, EntryId, GroupId, Index, NodeId, ReplicaId, ShardId, Term};
use outrigger::raft::HardState;
use outrigger::wal::{EntryRef, Identity, Run, RunKind, SegmentHeader};

use super::choices::{Choices, below, byte, number, rarely, some};

pub(crate) const BLOCK: usize = outrigger::limits::BLOCK_BYTES;
pub(crate) const IDENTITY: Identity =
    Identity { cluster: ClusterId(0xC1), node: NodeId(2), shard: ShardId(3) };

/// A run that may be written, its payloads at most `payload_max` bytes each.
pub(crate) fn run(choices: &mut Choices<'_>, payload_max: usize) -> Run {
    let group = GroupId(number(choices));
    let hard_state = HardState {
        term: Term(number(choices)),
        vote: ReplicaId(number(choices)),
        commit: Index(number(choices)),
    };
    let entry = EntryId {
        term: Term(number(choices).max(1)),
        index: Index(number(choices).clamp(1, u64::MAX - 64)),
    };
    // A snapshot stands for what is committed.
    let covered = HardState { commit: hard_state.commit.max(entry.index), ..hard_state };
    let choice = byte(choices);
    let run = match choice % 8 {
        0 => Run::piece(group, hard_state, entry, payload(choices, payload_max).into()),
        1 => Run::mark(RunKind::SnapshotTaken, group, covered, entry),
        2 => Run::mark(RunKind::SnapshotInstalled, group, covered, entry),
        3 => Run::mark(RunKind::Tombstone, group, hard_state, EntryId::default()),
        _ => {
            let count = below(choices, 5);
            let entries = (0..count).map(|_| {
                let payload = payload(choices, payload_max);
                match byte(choices) % 4 {
                    0 => Entry::empty(),
                    1 => Entry::config(payload.into()),
                    2 => Entry::session(payload.into()),
                    _ => Entry::command(payload.into()),
                }
            });
            let entries = entries.collect();
            Run { entries, ..Run::mark(RunKind::Log, group, hard_state, entry) }
        }
    };
    Run { is_forgetful: choice >= 128, ..run }
}

/// A few bytes of the input, or many of one kind.
fn payload(choices: &mut Choices<'_>, max: usize) -> Vec<u8> {
    if rarely(choices, 4) {
        vec![byte(choices); below(choices, max + 1)]
    } else {
        some(choices, max.min(40)).to_vec()
    }
}

/// Whether these entries are those of `run`.
pub(crate) fn same<'a>(run: &Run, entries: impl ExactSizeIterator<Item = EntryRef<'a>>) -> bool {
    entries.len() == run.entries.len()
        && entries.zip(&run.entries).all(|(found, written)| {
            (found.kind, found.crc, found.payload)
                == (written.kind, written.crc, &written.payload[..])
        })
}

/// A segment header's first 80 bytes as `wal/segment.rs` draws them.
pub(crate) fn segment_header(header: &SegmentHeader) -> [u8; 80] {
    let mut out = Out::default();
    out.bytes(b"OUTRWAL\0").u32(0).u32(header.version);
    out.u64(header.identity.cluster.0).u64(header.identity.node.0);
    out.u32(header.identity.shard.0.into()).u32(header.segment_bytes);
    out.u64(header.segment.0);
    out.u64(header.previous.at.segment.0).u64(header.previous.at.offset);
    out.u32(header.previous.chain).u32(0).u64(header.first_batch);
    let mut bytes = out.0.try_into().expect("80 bytes");
    checksum_segment_header(&mut bytes);
    bytes
}

/// Sets the checksum of a segment header.
pub(crate) fn checksum_segment_header(bytes: &mut [u8; 80]) {
    let crc = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// What seeds the checksums of this log's batch headers.
pub(crate) fn salt(identity: &Identity) -> u32 {
    let mut out = Out::default();
    out.u64(identity.cluster.0).u64(identity.node.0).bytes(&identity.shard.0.to_le_bytes());
    crc32fast::hash(&out.0)
}

/// Little-endian numbers, one after the other.
#[derive(Default)]
pub(crate) struct Out(pub(crate) Vec<u8>);

impl Out {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }
}
