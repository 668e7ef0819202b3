//! Index and reader against a model that keeps everything.

use fastrand::Rng;

use super::*;

/// Per group, the payloads that are in the log now; index 1 first.
type Model = BTreeMap<u64, Vec<Vec<u8>>>;

fn check(log: &mut Log, index: &LogIndex, model: &Model, rng: &mut Rng) {
    for (group, payloads) in model {
        let count = payloads.len() as u64;
        assert_eq!(index.find(GroupId(*group), Index(count + 1)), None);
        assert_eq!(index.find(GroupId(*group), Index(0)), None);
        let mut next = 1;
        while next <= count {
            let span = index.find(GroupId(*group), Index(next)).expect("in the log");
            assert!(span.first.0 <= next && next <= span.last.0 && span.last.0 <= count);
            let file = log.disk.file(span.location.segment.0);
            let bytes_max = if rng.bool() { 1 << 20 } else { rng.usize(..2000) };
            let first = Index(next);
            let read = read_span(
                IDENTITY,
                file,
                span.location,
                GroupId(*group),
                first,
                span.last,
                bytes_max,
            )
            .unwrap_or_else(|damage| panic!("group {group} index {next}: {damage}"));
            let bytes: usize = read.iter().map(|entry| entry.payload.len()).sum();
            assert!(!read.is_empty() && (bytes <= bytes_max || read.len() == 1));
            for entry in read {
                assert_eq!(entry.payload, payloads[next as usize - 1], "group {group}/{next}");
                next += 1;
            }
        }
    }
}

#[test]
fn contract_row_54_the_index_finds_the_latest_of_each_entry() {
    for seed in 0..120 {
        let mut rng = Rng::with_seed(seed);
        let mut log = Log::new(160 * BLOCK_BYTES);
        let mut index = LogIndex::new();
        let mut model = Model::new();
        for _ in 0..rng.usize(1..250) {
            let mut batch = Batch::new();
            for _ in 0..rng.usize(1..5) {
                let group = rng.u64(..4);
                let payloads = model.entry(group).or_default();
                // Mostly go on; sometimes supersede the last few, also within this batch.
                if rng.u8(..) < 40 {
                    payloads.truncate(payloads.len().saturating_sub(rng.usize(..6)));
                }
                let first = payloads.len() as u64 + 1;
                for _ in 0..rng.usize(1..5) {
                    let bytes = if rng.u8(..) < 8 { rng.usize(..20_000) } else { rng.usize(..99) };
                    payloads.push((0..bytes).map(|_| rng.u8(..)).collect());
                }
                let new: Vec<&[u8]> =
                    payloads[first as usize - 1..].iter().map(Vec::as_slice).collect();
                batch.push(run(group, 1, first, &new));
            }
            let write = log.append(batch);
            write.locations().for_each(|(group, first, count, at)| {
                index.note(group, first, count, at);
            });
        }
        check(&mut log, &index, &model, &mut rng);

        // Recovery builds the same index.
        let mut rebuilt = LogIndex::new();
        let mut recovery = Recovery::with_segment_bytes(IDENTITY, log.segment_bytes);
        for (segment, bytes) in &log.disk.0 {
            let note = &mut |run: RecoveredRun<'_>| {
                rebuilt.note(run.group, run.first, run.count, run.location);
            };
            recovery.segment(*segment, bytes, note).unwrap();
        }
        assert_eq!(rebuilt.spans(), index.spans());
        check(&mut log, &rebuilt, &model, &mut rng);
    }
}

fn at(segment: u64, block: u64) -> Location {
    Location { segment: SegmentSeq(segment), offset: block * BLOCK_BYTES as u64 }
}

#[test]
fn spans_merge_while_they_are_near() {
    let (mut index, group) = (LogIndex::new(), GroupId(1));
    for step in 0..=64 {
        index.note(group, Index(1 + step), 1, at(1, 1 + step));
    }
    assert_eq!(index.spans(), 1);
    index.note(group, Index(66), 1, at(1, 66));
    assert_eq!(index.spans(), 2, "256 KiB further on");
    index.note(group, Index(67), 1, at(2, 1));
    assert_eq!(index.spans(), 3, "another segment");
    let span = index.find(group, Index(65)).unwrap();
    assert_eq!(span, Span { first: Index(1), last: Index(65), location: at(1, 1) });
    index.forget_before(group, Index(66));
    assert_eq!(index.find(group, Index(65)), None);
    assert_eq!(index.oldest_segment(group), Some(SegmentSeq(1)));
    index.forget_before(group, Index(67));
    assert_eq!(index.oldest_segment(group), Some(SegmentSeq(2)));
    index.forget(group);
    assert_eq!((index.spans(), index.oldest_segment(group)), (0, None));
}

#[test]
fn a_span_never_reaches_over_a_cut() {
    let (mut index, group) = (LogIndex::new(), GroupId(1));
    index.note(group, Index(1), 10, at(1, 1));
    index.note(group, Index(5), 3, at(1, 2));
    index.note(group, Index(8), 1, at(1, 3));
    index.note(group, Index(8), 0, at(1, 4));
    let span =
        |index: &LogIndex, of| index.find(group, Index(of)).map(|span| (span.first.0, span.last.0));
    assert_eq!((span(&index, 4), span(&index, 5)), (Some((1, 4)), Some((5, 8))));
    assert_eq!(span(&index, 9), None);
    // The middle is replaced whole: what follows must not merge with the first span either.
    index.note(group, Index(5), 1, at(1, 5));
    assert_eq!((span(&index, 4), span(&index, 5)), (Some((1, 4)), Some((5, 5))));
}

#[test]
fn an_entry_that_is_not_there_is_named() {
    let mut log = small_log(1, segment_bytes(2));
    let damage =
        read_span(IDENTITY, log.disk.file(1), at(1, 1), GroupId(3), Index(1), Index(1), 99)
            .unwrap_err();
    assert_eq!(damage.proof, Proof::ReadBack);
    assert!(damage.to_string().contains("0000000000000001.seg"), "{damage}");
}

/// The file of another node's core, whole in itself and of the same number, was put in this one's place while
/// the node runs.
#[test]
fn contract_row_57_entries_of_another_log_are_not_read_back() {
    let mut log = small_log(1, segment_bytes(2));
    let file = log.disk.file(1);
    let read = |whose| read_span(whose, file, at(1, 1), GroupId(2), Index(3), Index(4), 1 << 20);
    assert_eq!(read(IDENTITY).map(|entries| entries.len()), Ok(2));
    let (cluster, node, shard) = (IDENTITY.cluster, IDENTITY.node, IDENTITY.shard);
    for other in [
        Identity { cluster: ClusterId(cluster.0 + 1), ..IDENTITY },
        Identity { node: NodeId(node.0 + 1), ..IDENTITY },
        Identity { shard: ShardId(shard.0 + 1), ..IDENTITY },
    ] {
        let damage = read(other).expect_err("the file is not of the log that is read");
        assert_eq!(damage.segment, SegmentSeq(1));
        assert_eq!(damage.proof, Proof::Identity { expected: other, found: IDENTITY });
    }
}

#[test]
fn a_reader_looks_no_further_than_it_was_asked_to() {
    let mut log = Log::new(segment_bytes(80));
    for index in 1..=70 {
        log.append(batch([run(1, 1, index, &[b"value"])]));
    }
    let file = log.disk.file(1);
    let read = |file: &[u8], from: u64, first, last| {
        let read =
            read_span(IDENTITY, file, at(1, from), GroupId(1), Index(first), Index(last), 1 << 20);
        read.map(|entries| entries.len())
    };
    assert_eq!(read(file, 1, 1, 3), Ok(3));
    assert_eq!(read(file, 69, 69, 75), Ok(2), "the log ends there");
    assert_eq!(read(file, 1, 2, 1), Ok(0));
    // 256 KiB behind the place is within reach, a block more is not.
    assert_eq!(read(file, 1, 65, 65), Ok(1));
    let damage = read(file, 1, 66, 66).expect_err("out of reach");
    assert_eq!((damage.offset, damage.proof), (BLOCK_BYTES as u64, Proof::ReadBack));
    let fault = damage.fault;
    assert_eq!((fault.what, fault.expected), ("entry with this index", 66));
    // What is wrong behind the last entry is not this reader's business; what is wrong in front of it is.
    file[4 * BLOCK_BYTES + 64] ^= 1;
    assert_eq!(read(file, 1, 1, 3), Ok(3));
    let damage = read(file, 1, 1, 4).expect_err("the fourth batch is damaged");
    assert_eq!(damage.offset, 4 * BLOCK_BYTES as u64);
    assert_eq!(read(file, 5, 5, 6), Ok(2));
}

#[test]
fn a_span_never_reaches_over_a_gap_in_the_log() {
    let (mut index, group) = (LogIndex::new(), GroupId(1));
    index.note(group, Index(1), 2, at(1, 1));
    index.on_gap();
    index.note(group, Index(3), 1, at(1, 3));
    index.note(group, Index(4), 1, at(1, 4));
    let span = |of| index.find(group, Index(of)).map(|span| (span.first.0, span.last.0));
    assert_eq!((span(2), span(3)), (Some((1, 2)), Some((3, 4))), "behind it they merge again");
}

#[test]
fn a_reader_takes_the_entries_asked_for_whatever_else_a_batch_holds() {
    let mut log = Log::new(segment_bytes(4));
    // A hard state alone, behind an entry; then an entry behind a gap.
    log.append(batch([run(1, 1, 1, &[b"one"]), run(1, 2, 1, &[])]));
    log.append(batch([run(1, 2, 5, &[b"five"])]));
    let file = log.disk.file(1);
    let read = |from, first, last| {
        let read =
            read_span(IDENTITY, file, at(1, from), GroupId(1), Index(first), Index(last), 99);
        read.map(|entries| entries.iter().map(|entry| entry.payload.to_vec()).collect::<Vec<_>>())
    };
    assert_eq!(read(1, 1, 1), Ok(vec![b"one".to_vec()]));
    assert_eq!(read(2, 5, 5), Ok(vec![b"five".to_vec()]));
    assert!(read(2, 3, 5).is_err(), "5 is not taken for 3");
    let damage = read(3, 6, 6).expect_err("nothing lies there");
    assert_eq!(damage.fault.what, "batch magic");
}

#[test]
fn a_reader_takes_as_many_bytes_as_it_may() {
    let mut log = Log::new(segment_bytes(2));
    log.append(batch([run(1, 1, 1, &[&b"value"[..]; 3])]));
    let file = log.disk.file(1);
    for (bytes_max, count) in [(0, 1), (9, 1), (10, 2), (14, 2), (15, 3)] {
        let read = read_span(IDENTITY, file, at(1, 1), GroupId(1), Index(1), Index(3), bytes_max);
        assert_eq!(read.map(|entries| entries.len()), Ok(count), "{bytes_max}");
    }
}
