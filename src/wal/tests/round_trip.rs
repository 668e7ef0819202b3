//! What is written is read back: the same runs, in the same order, and nothing else.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::entry::EntryKind;

use super::*;
use crate::wal::record::Layout;

fn any_entry() -> impl Strategy<Value = Entry> {
    let payload = prop_oneof![4 => vec(any::<u8>(), 0..200), 1 => vec(any::<u8>(), 3000..9000)];
    (0..=3_u8, payload).prop_map(|(kind, payload)| {
        let mut entry = Entry::command(payload.into());
        entry.kind = EntryKind::from_code(kind).unwrap();
        entry
    })
}

fn any_run() -> impl Strategy<Value = Run> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let place = (1..u64::MAX, 1..u64::MAX / 2);
    (numbers, place, vec(any_entry(), 0..40), any::<bool>()).prop_map(
        |(numbers, place, entries, is_forgetful)| Run {
            kind: RunKind::Log,
            is_forgetful,
            group: GroupId(numbers.0),
            hard_state: HardState {
                term: Term(numbers.1),
                vote: ReplicaId(numbers.2),
                commit: Index(numbers.3),
            },
            run_term: Term(place.0),
            first: Index(place.1),
            entries: entries.into(),
        },
    )
}

#[test]
fn runs_that_are_not_of_the_log_come_back_and_are_not_noted() {
    let mut log = Log::new(segment_bytes(3));
    let mut runs = vec![run(1, 4, 18, &[b"a"])];
    runs.extend(others(1, 4, 18));
    runs.push(run(1, 4, 19, &[b"b"]));
    let write = log.append(batch(runs.clone()));
    let noted: Vec<_> = write.locations().map(|(_, first, count, _)| (first.0, count)).collect();
    assert_eq!(noted, [(18, 1), (19, 1)]);
    assert_eq!(log.recover().unwrap().1, runs);
    // Nor does a reader take a piece for an entry.
    let entries = read_span(
        IDENTITY,
        log.disk.file(1),
        write.locations().next().unwrap().3,
        GroupId(1),
        Index(18),
        Index(19),
        1 << 20,
    );
    let payloads: Vec<_> = entries.unwrap().into_iter().map(|entry| entry.payload).collect();
    assert_eq!(payloads, [&b"a"[..], b"b"]);
}

#[test]
fn a_run_of_an_unknown_kind_or_shape_is_refused_by_name() {
    for (kind, lines, what) in [
        (15, 1, "entries in a run of this kind"),
        (5, 1, "entries in a run of this kind"),
        (1, 0, "entries in a run of this kind"),
        (1, 2, "entries in a run of this kind"),
        (2, 1, "entries in a run of this kind"),
        (3, 1, "entries in a run of this kind"),
    ] {
        let run = run(1, 4, 18, &vec![&b"a"[..]; lines]);
        let mut bytes = vec![0; run.bytes()];
        run.encode_into(0, &mut bytes);
        bytes[7] = kind << 4 | bytes[7] & 15;
        seal(&mut bytes, run.bytes() - lines);
        let refused = RunRef::parse(Layout::Packed, &bytes, 0, false).unwrap_err();
        assert_eq!(refused.what, what, "{kind} {lines}");
    }
}

/// Makes the checksum of a run hold, whose table ends there.
fn seal(bytes: &mut [u8], table_end: usize) {
    let crc = crc32fast::hash(&bytes[4..table_end]).to_le_bytes();
    bytes[..4].copy_from_slice(&crc);
}

#[test]
fn a_run_has_one_form_only() {
    let run = run(1, 4, 18, &[b"a"]);
    let mut bytes = vec![0; run.bytes()];
    run.encode_into(run.crc(), &mut bytes);
    let (found, rest) = RunRef::parse(Layout::Packed, &bytes, 0, false).unwrap();
    assert_eq!((found.count, rest.len()), (1, 0));
    // The same count in two bytes.
    let mut wider = bytes.clone();
    wider.insert(9, 0);
    wider[4] += 1;
    let table_end = wider.len() - 1;
    seal(&mut wider, table_end);
    let refused = RunRef::parse(Layout::Packed, &wider, 0, false).unwrap_err();
    assert_eq!((refused.what, refused.at), ("widths of a run's fields", 4));
    // A width that no field has.
    bytes[4] |= 15;
    assert!(RunRef::parse(Layout::Packed, &bytes, 0, false).is_err());
}

#[test]
fn any_numbers_fit_a_run() {
    let most = u64::MAX;
    for (term, vote, commit, run_term, first) in [
        (0, 0, 0, 0, 0),
        (most, most, most, most, most - 1),
        (1, 2, most, most, 3),
        (7, 0, 9, 8, 1),
    ] {
        let hard_state =
            HardState { term: Term(term), vote: ReplicaId(vote), commit: Index(commit) };
        let entry = EntryId { term: Term(run_term), index: Index(first) };
        for group in [0, 1, 255, 256, most] {
            let run = Run::mark(RunKind::Tombstone, GroupId(group), hard_state, entry);
            let mut bytes = vec![0; run.bytes()];
            assert_eq!(run.encode_into(run.crc(), &mut bytes), bytes.len());
            let (found, rest) = RunRef::parse(Layout::Packed, &bytes, 0, false).unwrap();
            assert!(rest.is_empty());
            assert_eq!((found.group, found.hard_state), (run.group, hard_state));
            assert_eq!((found.run_term, found.first), (run.run_term, run.first));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_batch_comes_back(batches in vec(vec(any_run(), 1..6), 1..8)) {
        let mut log = Log::new(4 << 20);
        for runs in batches {
            log.append(batch(runs));
        }
        let (recovered, runs) = log.recover().unwrap();
        prop_assert_eq!(&runs, &log.written);
        prop_assert_eq!(recovered.torn, None);
        prop_assert_eq!(recovered.runs, runs.len() as u64);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in vec(any::<u8>(), 0..3 * BLOCK_BYTES),
        at in 0..6 * BLOCK_BYTES,
        segment in 1..4_u64,
    ) {
        let mut log = small_log(3, segment_bytes(4));
        let file = log.disk.0.entry(SegmentSeq(segment)).or_default();
        file.resize(segment_bytes(4), 0);
        let end = file.len().min(at + bytes.len());
        file[at..end].copy_from_slice(&bytes[..end - at]);
        // Nothing that was not written may appear; what did appear is in order.
        if let Ok((_, runs)) = log.recover() {
            prop_assert!(log.written.starts_with(&runs));
        }
        let at = Location { segment: SegmentSeq(1), offset: BLOCK_BYTES as u64 };
        let _ = read_span(IDENTITY, log.disk.file(1), at, GroupId(2), Index(3), Index(9), 1 << 20);
    }
}

#[test]
fn contract_row_25_hard_state_alone_is_recorded() {
    let mut log = Log::new(segment_bytes(2));
    log.append(batch([run(9, 4, 18, &[])]));
    let (recovered, runs) = log.recover().unwrap();
    assert_eq!(runs, log.written);
    assert_eq!(runs[0].hard_state.commit, Index(17));
    assert_eq!((recovered.batches, recovered.runs), (1, 1));
}

#[test]
fn contract_row_52_a_segment_is_prepared_before_it_is_written() {
    let mut appender =
        Appender::with_segment_bytes(IDENTITY, Position::default(), segment_bytes(1));
    let one = || batch([run(1, 1, 1, &[b"x"])]);
    assert_eq!(appender.can_place(one().bytes()), Room::NoSpare);
    assert_eq!(appender.wants_spare(), Some(SegmentSeq(1)));
    appender.on_spare(SegmentSeq(1));
    assert_eq!(appender.wants_spare(), Some(SegmentSeq(2)));
    let first = appender.place(one());
    // The segment is full; the next waits for this one's flush, then for its file.
    assert_eq!((first.offset, first.bytes), (0, 2 * BLOCK_BYTES));
    assert_eq!(appender.can_place(one().bytes()), Room::Drain);
    appender.on_durable(first.ticket);
    assert_eq!(appender.can_place(one().bytes()), Room::NoSpare);
    appender.on_spare(SegmentSeq(2));
    assert_eq!(appender.can_place(one().bytes()), Room::Yes);
    assert_eq!(appender.place(one()).segment, SegmentSeq(2));
}

#[test]
fn every_byte_of_a_used_buffer_is_overwritten() {
    let mut log = Log::new(segment_bytes(4));
    for _ in 0..2 {
        let write = log.append(batch([run(1, 1, 1, &[b"abc"])]));
        let (mut ones, mut zeroes) = (vec![0xFF; write.bytes], vec![0; write.bytes]);
        write.encode_into(&mut ones);
        write.encode_into(&mut zeroes);
        assert!(ones == zeroes);
    }
}

#[test]
fn writes_in_flight_are_bounded_and_complete_in_order() {
    let mut log = Log::new(segment_bytes(9));
    let tickets: Vec<_> =
        (1..=4).map(|index| log.place(batch([run(1, 1, index, &[b"x"])])).ticket).collect();
    assert_eq!(log.appender.can_place(100), Room::Drain);
    assert!(log.appender.closing_write().is_none(), "nothing to close while writes are in flight");
    tickets.into_iter().for_each(|ticket| log.appender.on_durable(ticket));
    assert_eq!(log.appender.can_place(100), Room::Yes);
    assert_eq!(log.appender.durable().offset, 5 * BLOCK_BYTES as u64);
    log.close();
    assert!(log.appender.closing_write().is_none(), "once is enough");
}

#[test]
#[should_panic(expected = "in ticket order")]
fn a_completion_out_of_order_is_a_bug() {
    let mut log = Log::new(segment_bytes(4));
    log.place(batch([run(1, 1, 1, &[b"x"])]));
    let second = log.place(batch([run(1, 1, 2, &[b"y"])]));
    log.appender.on_durable(second.ticket);
}
