//! One batch with its runs and entries: `batch_at`, and `read_span` over the same bytes.

use outrigger::entry::EntryKind;
use outrigger::id::{Index, SegmentSeq};
use outrigger::limits::APPEND_ENTRIES_MAX;
use outrigger::wal::{
    Appender, Batch, BatchRef, End, FORMAT_VERSION, Location, Position, Run, RunKind,
    SegmentHeader, batch_at, read_span,
};

use super::choices::{Choices, below, byte, flip, number, rarely, rest};
use super::log::{self, BLOCK, IDENTITY, Out};

const AT: Location = Location { segment: SegmentSeq(1), offset: BLOCK as u64 };
const SEGMENT_BYTES: usize = 8 * BLOCK;
const BATCH_HEADER_BYTES: usize = 64;
const LINE_BYTES: usize = 8;

/// One input.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match byte(&mut choices) % 4 {
        0 | 1 => written(&mut choices),
        2 => checksummed(&mut choices),
        _ => {
            let mut image = segment();
            image.extend_from_slice(rest(&mut choices));
            image.resize(image.len().next_multiple_of(BLOCK), 0);
            judge(&image);
        }
    }
}

/// The header block of a segment.
fn segment() -> Vec<u8> {
    let header = SegmentHeader {
        version: FORMAT_VERSION,
        identity: IDENTITY,
        segment_bytes: SEGMENT_BYTES as u32,
        segment: AT.segment,
        previous: End::default(),
        first_batch: 1,
    };
    let mut image = log::segment_header(&header).to_vec();
    image.resize(BLOCK, 0);
    image
}

/// The bytes of a segment that begins with these runs.
fn encoded(runs: &[Run]) -> Vec<u8> {
    let mut batch = Batch::new();
    runs.iter().for_each(|run| batch.push(run.clone()));
    let mut appender = Appender::with_segment_bytes(IDENTITY, Position::default(), SEGMENT_BYTES);
    appender.on_spare(AT.segment);
    appender.place(batch).to_vec()
}

/// What is written reads back, and no bit of it may change.
fn written(choices: &mut Choices<'_>) {
    let count = 1 + below(choices, 4);
    let runs: Vec<Run> = (0..count).map(|_| log::run(choices, 1200)).collect();
    let mut image = encoded(&runs);
    let batch = batch_at(&image, AT.offset).expect("as it was written");
    assert_eq!(image[..BLOCK], segment(), "the segment's header");
    assert_eq!(batch.runs().count(), runs.len());
    for (run, found) in runs.iter().zip(batch.runs()) {
        let found = found.expect("as it was written");
        let (kind, group, state) = (found.kind, found.group, found.hard_state);
        assert_eq!((kind, group, state), (run.kind, run.group, run.hard_state));
        assert_eq!(found.is_forgetful, run.is_forgetful);
        assert_eq!((found.run_term, found.first), (run.run_term, run.first));
        assert!(log::same(run, found.entries()), "other entries than were written");
    }
    read_back(&image, &runs);
    flip(choices, &mut image);
    assert!(batch_at(&image, AT.offset).is_err(), "flipped bits went unnoticed");
    read_back(&image, &runs);
}

/// Whatever a reader finds is what was written, whether or not bits were flipped.
fn read_back(image: &[u8], runs: &[Run]) {
    for run in runs.iter().filter(|run| run.kind == RunKind::Log && !run.entries.is_empty()) {
        let last = run.first.plus(run.entries.len() as u64 - 1);
        let found = read_span(IDENTITY, image, AT, run.group, run.first, last, 1 << 20);
        for (at, entry) in found.into_iter().flatten().enumerate() {
            let index = run.first.plus(at as u64);
            let mut own = runs.iter().filter(|it| (it.kind, it.group) == (RunKind::Log, run.group));
            let was_written = own.any(|it| {
                let place = index.0.checked_sub(it.first.0);
                place.and_then(|at| it.entries.get(at as usize)) == Some(&entry)
            });
            assert!(was_written, "an entry that nobody wrote");
        }
    }
}

/// Runs of any fields, under checksums that hold; in the layout of today or of the first versions.
fn checksummed(choices: &mut Choices<'_>) {
    let is_wide = rarely(choices, 3);
    let mut body = Vec::new();
    let mut crcs = Vec::new();
    for _ in 0..=below(choices, 3) {
        any_run(choices, is_wide, &mut body, &mut crcs);
    }
    let at = if rarely(choices, 8) { number(choices) } else { AT.offset };
    let bytes = if rarely(choices, 8) {
        number(choices) as u32
    } else {
        (BATCH_HEADER_BYTES + body.len()) as u32
    };
    let runs = if rarely(choices, 8) { number(choices) as u32 } else { crcs.len() as u32 / 4 };
    let (durable, durable_at) =
        if rarely(choices, 4) { (number(choices), number(choices)) } else { (0, 0) };
    let mut fields = Out::default();
    fields.u64(AT.segment.0).u64(at).u64(number(choices)).u32(bytes).u32(runs);
    fields.u32(number(choices) as u32).u32(crc32fast::hash(&crcs)).u64(durable).u64(durable_at);
    let mut crc = crc32fast::Hasher::new_with_initial(log::salt(&IDENTITY));
    let magic = if is_wide { b"OBAT" } else { b"ORUN" };
    if !is_wide {
        crc.update(magic);
    }
    crc.update(&fields.0);
    let mut batch = Out::default();
    batch.bytes(magic).u32(crc.finalize()).bytes(&fields.0).bytes(&body);
    let mut image = segment();
    image.extend_from_slice(&batch.0);
    image.resize(image.len().next_multiple_of(BLOCK), 0);
    judge(&image);
}

/// Appends a run whose fields may contradict each other, and its checksum.
fn any_run(choices: &mut Choices<'_>, is_wide: bool, body: &mut Vec<u8>, crcs: &mut Vec<u8>) {
    let mut table = Out::default();
    let mut payloads = Vec::new();
    let lines = below(choices, 4);
    for _ in 0..lines {
        let payload = super::choices::some(choices, 30);
        payloads.extend_from_slice(payload);
        let length =
            if rarely(choices, 16) { number(choices) as u32 } else { payload.len() as u32 };
        let crc = crc32fast::hash(payload) ^ u32::from(rarely(choices, 16));
        let kind = u32::from(byte(choices) % 8);
        match is_wide {
            true => table.u32(length).u32(crc).u32(kind),
            false => table.u32(length & 0xff_ffff | kind << 24).u32(crc),
        };
    }
    let count = if rarely(choices, 16) { number(choices) as u32 } else { lines as u32 };
    let mut run = Out::default();
    let kind = u32::from(byte(choices) % 8);
    if is_wide {
        let length =
            if rarely(choices, 16) { number(choices) as u32 } else { payloads.len() as u32 };
        run.u32(count);
        (0..6).for_each(|_| _ = run.u64(number(choices)));
        run.u32(length).u32(kind);
    } else {
        let mut fields = Out::default();
        let mut widths = kind << 28;
        for field in 0..7 {
            let value = if field == 0 { u64::from(count) } else { number(choices) };
            let tight = (u64::BITS - value.leading_zeros()).div_ceil(8);
            let width = if rarely(choices, 32) { u32::from(byte(choices) % 9) } else { tight };
            widths |= width << (4 * field);
            fields.bytes(&value.to_le_bytes()[..width as usize]);
        }
        run.u32(widths).bytes(&fields.0);
    }
    run.bytes(&table.0);
    let crc = crc32fast::hash(&run.0).to_le_bytes();
    crcs.extend_from_slice(&crc);
    body.extend_from_slice(&crc);
    body.extend_from_slice(&run.0);
    body.extend_from_slice(&payloads);
}

/// What is believed can be read to the end, and is written again as the same bytes.
fn judge(image: &[u8]) {
    let Ok(batch) = batch_at(image, AT.offset) else {
        // What lies in a batch that is refused may be looked at all the same.
        _ = read_span(IDENTITY, image, AT, outrigger::id::GroupId(1), Index(1), Index(9), 1 << 20);
        return;
    };
    assert_eq!(batch.header.at, AT);
    assert!(batch.header.durable <= AT, "a watermark beyond its batch");
    assert_eq!(batch.aligned(), (batch.header.bytes as usize).next_multiple_of(BLOCK));
    let runs: Vec<Run> = batch.runs().map(|run| whole(&run.expect("believed"))).collect();
    assert_eq!(runs.len(), batch.header.runs as usize);
    read_back(image, &runs);
    if runs.is_empty() || !runs.iter().all(is_writable) {
        return;
    }
    if image[BLOCK..].starts_with(b"OBAT") {
        // It is never written again as it was.
        return;
    }
    let again = encoded(&runs);
    let end = BLOCK + batch.header.bytes as usize;
    assert_eq!(again[BLOCK + BATCH_HEADER_BYTES..end], image[BLOCK + BATCH_HEADER_BYTES..end]);
    reread(&again, &batch);
}

/// The runs of a batch that was written again.
fn reread(again: &[u8], batch: &BatchRef<'_>) {
    let again = batch_at(again, AT.offset).expect("as it was written");
    assert_eq!((again.header.bytes, again.header.body), (batch.header.bytes, batch.header.body));
}

fn whole(run: &outrigger::wal::RunRef<'_>) -> Run {
    let entries: Vec<_> = run.entries().map(|entry| entry.to_entry()).collect();
    assert_eq!(entries.len(), run.count as usize);
    assert!(entries.iter().all(|entry| entry.is_intact()), "believed without its checksum");
    assert_eq!(run.last(), run.first.plus(u64::from(run.count)).prev());
    let bytes: usize = entries.iter().map(|entry| entry.payload.len()).sum();
    let written = Run {
        kind: run.kind,
        is_forgetful: run.is_forgetful,
        group: run.group,
        hard_state: run.hard_state,
        run_term: run.run_term,
        first: run.first,
        entries: entries.into_iter().collect(),
    };
    let lines = written.entries.len();
    let header = written.bytes() - LINE_BYTES * lines - bytes;
    assert!((8..=64).contains(&header), "a header of {header} bytes");
    written
}

/// What [`Batch::push`] demands of its callers, who never break it.
fn is_writable(run: &Run) -> bool {
    let has_entries = !run.entries.is_empty();
    let is_end = matches!(run.kind, RunKind::SnapshotTaken | RunKind::SnapshotInstalled);
    run.entries.len() <= APPEND_ENTRIES_MAX as usize
        && (!has_entries || (run.first.0 > 0 && run.run_term.0 > 0))
        && (!is_end || run.first <= run.hard_state.commit)
        && run.entries.iter().all(|entry| entry.kind != EntryKind::Empty || entry.is_intact())
}
