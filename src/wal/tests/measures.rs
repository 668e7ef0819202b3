//! What parts of the log say of themselves: lengths, places, what is left of what was forgotten.

use expect_test::expect;

use super::*;
use crate::wal::batch::Payloads;
use crate::wal::codec::first_non_zero;
use crate::wal::record::Layout;

#[test]
fn a_write_says_what_it_holds() {
    let mut log = Log::new(segment_bytes(4));
    let mut held = Vec::new();
    for (number, lead) in [(1, BLOCK_BYTES), (2, 0)] {
        let batch = batch([run(1, 1, number, &[b"SET k v"])]);
        let bytes = batch.bytes();
        let write = log.place(batch);
        assert_eq!(log.appender.in_flight(), number as usize);
        assert_eq!(write.runs(), &log.written[number as usize - 1..]);
        assert_eq!(write.padding_bytes(), BLOCK_BYTES - bytes);
        let mut unpadded = vec![0xFF; 3];
        write.encode_unpadded(&mut unpadded);
        assert_eq!(unpadded, write.to_vec()[..lead + bytes]);
        held.push(write.ticket);
    }
    held.into_iter().for_each(|ticket| log.appender.on_durable(ticket));
    assert_eq!(log.appender.in_flight(), 0);
}

#[test]
fn a_batch_that_was_cleared_is_as_new() {
    let mut used = batch([run(1, 1, 1, &[b"a"]), run(2, 1, 1, &[b"b"])]);
    assert!(!used.is_empty());
    used.clear();
    assert!(used.is_empty() && used.runs().is_empty());
    assert_eq!(used.bytes(), Batch::new().bytes());
    used.push(run(3, 1, 1, &[b"c"]));
    assert_eq!(used.body(), batch([run(3, 1, 1, &[b"c"])]).body());
}

#[test]
fn the_first_byte_that_is_not_zero_is_found_in_any_block() {
    assert_eq!(first_non_zero(&[0; 10_000]), None);
    for place in [0, 1, 4095, 4096, 4099, 8195, 9999] {
        let mut bytes = [0; 10_000];
        (bytes[place], bytes[9999]) = (7, 7);
        assert_eq!(first_non_zero(&bytes), Some((place, 7)));
    }
}

#[test]
fn room_is_what_the_open_segment_and_the_prepared_ones_still_take() {
    let mut log = Log::new(segment_bytes(3));
    let (whole, before) = (log.appender.segment_bytes(), log.appender.room());
    assert!(before > 0 && before.is_multiple_of(whole), "{before} bytes of prepared segments");
    for index in 1..=3 {
        let write = log.append(batch(vec![run(1, 1, index, &[b"a"])]));
        let end = write.offset + write.bytes as u64;
        assert_eq!(log.appender.room(), before + whole - end, "one is open, another prepared");
    }
}

#[test]
fn where_a_log_begins_is_noted_and_read_back() {
    for seq in [1, 42, u64::MAX].map(SegmentSeq) {
        assert_eq!(parse_first(&first_text(seq)), Some(seq));
    }
    let text = first_text(SegmentSeq(42));
    for other in ["", "000000000000002a", &text[..text.len() - 1], &text.replace('a', "b")] {
        assert_eq!(parse_first(other), None, "{other:?}");
    }
    let at = Location { segment: SegmentSeq(42), offset: 8192 };
    assert_eq!(at.to_string(), "000000000000002a.seg offset 8192");
}

#[test]
fn batches_that_were_checked_are_held_to_be_whole_and_no_others() {
    let mut log = small_log(2, segment_bytes(4));
    let bytes = log.disk.file(1).clone();
    let checked = Checked::new(IDENTITY, SegmentSeq(1), &bytes, u64::MAX);
    let block = BLOCK_BYTES as u64;
    let held: Vec<u64> = (0..6).filter(|number| checked.holds(number * block)).collect();
    assert_eq!(held, [1, 2]);
}

#[test]
fn entries_that_were_forgotten_are_not_found_and_the_first_left_is_told() {
    let at = |segment| Location { segment: SegmentSeq(segment), offset: BLOCK_BYTES as u64 };
    let mut index = LogIndex::new();
    for (group, segment, first) in [(1, 1, 1), (1, 2, 4), (1, 3, 7), (2, 1, 1), (3, 3, 1)] {
        index.note(GroupId(group), Index(first), 3, at(segment));
    }
    let first = |index: &LogIndex, from| index.first_from(GroupId(1), Index(from));
    assert_eq!([0, 1, 5, 9, 10].map(|from| first(&index, from)), [1, 1, 5, 9, 0].map(some_index));
    assert_eq!(index.first_from(GroupId(9), Index(1)), None);
    let mut told = Vec::new();
    index.forget_segments_before(SegmentSeq(3), |group, left| told.push((group.0, left)));
    assert_eq!(told, [(1, Some(Index(7))), (2, None)]);
    assert_eq!(index.oldest_segment(GroupId(1)), Some(SegmentSeq(3)));
    index.forget_from(GroupId(1), Index(8));
    assert_eq!(first(&index, 1), Some(Index(7)));
    assert_eq!(first(&index, 8), None);
    // Behind the last entry there is nothing to forget.
    index.forget_from(GroupId(1), Index(8));
    assert_eq!((index.spans(), first(&index, 7)), (2, Some(Index(7))));
    index.forget_from(GroupId(1), Index(7));
    assert_eq!((index.spans(), first(&index, 1)), (1, None), "nothing is left of it");
}

fn some_index(index: u64) -> Option<Index> {
    (index != 0).then_some(Index(index))
}

#[test]
fn only_so_many_retired_segments_are_kept() {
    let most = crate::limits::RETIRED_SEGMENTS_MAX;
    assert!(is_kept(0) && is_kept(most - 1));
    assert!(!is_kept(most) && !is_kept(most + 1));
}

/// A batch of one run at the second block of segment 1, and what is found wrong with it.
fn fault_of(edit: impl Fn(&mut BatchHeader), payloads: &[&[u8]], flip: Option<usize>) -> Fault {
    let at = Location { segment: SegmentSeq(1), offset: BLOCK_BYTES as u64 };
    let batch = batch([run(1, 1, 1, payloads)]);
    let mut header = BatchHeader {
        at,
        number: 1,
        bytes: batch.bytes() as u32,
        runs: 1,
        chain: 0,
        body: batch.body(),
        durable: Location::default(),
    };
    let mut file = vec![0; 3 * BLOCK_BYTES];
    batch.encode_into(&header, IDENTITY.salt(), &mut file[BLOCK_BYTES..2 * BLOCK_BYTES]);
    edit(&mut header);
    let head = header.encode(IDENTITY.salt()).0;
    file[BLOCK_BYTES..][..head.len()].copy_from_slice(&head);
    if let Some(flip) = flip {
        file[BLOCK_BYTES + flip] ^= 1;
    }
    let parsed = BatchRef::parse(&file, at, IDENTITY.salt());
    parsed.and_then(|batch| batch.verify(Payloads::Verify)).expect_err("a fault")
}

#[test]
fn a_fault_names_the_byte_at_which_it_stands() {
    let place = |edit: fn(&mut BatchHeader), flip| {
        let fault = fault_of(edit, &[b"one", b"two"], flip);
        (fault.what, fault.at - BLOCK_BYTES as u64)
    };
    assert_eq!(place(|_| {}, Some(0)), ("batch magic", 0));
    assert_eq!(place(|_| {}, Some(4)), ("batch header checksum", 4));
    assert_eq!(place(|header| header.at.segment.0 = 9, None), ("batch's segment", 8));
    assert_eq!(place(|header| header.at.offset = 9, None), ("batch's offset", 16));
    assert_eq!(place(|header| header.bytes = 1, None), ("batch bytes", 32));
    let late =
        |header: &mut BatchHeader| header.durable = Location { segment: SegmentSeq(2), offset: 0 };
    assert_eq!(place(late, None), ("durable watermark", 56));
    assert_eq!(place(|header| header.body ^= 1, None), ("checksum over the runs", 44));
    assert_eq!(place(|header| header.bytes += 8, None), ("bytes after the last run", 32));
    let padding = BLOCK_BYTES - 5;
    assert_eq!(place(|_| {}, Some(padding)), ("batch padding", padding as u64));
}

#[test]
fn a_damaged_payload_is_named_by_the_place_at_which_it_begins() {
    let log = batch([run(1, 1, 1, &[b"one", b"three"])]);
    let second = log.bytes() - 5;
    let fault = fault_of(|_| {}, &[b"one", b"three"], Some(second));
    assert_eq!((fault.what, fault.at), ("payload checksum", (BLOCK_BYTES + second) as u64));
}

#[test]
fn what_is_wrong_with_a_run_is_named_by_its_place_in_the_segment() {
    let runs =
        [run(1, 1, 1, &[b"one"]), run(2, 1, 1, &[b"two", b"three"]), run(3, 1, 1, &[b"four"])];
    let [first, second] =
        [0, 1].map(|number| 64 + runs[..number].iter().map(Run::bytes).sum::<usize>());
    let payloads = second + before_payloads(&runs[1]);
    let mut log = Log::new(segment_bytes(2));
    log.append(batch(runs));
    let fault = |flipped: usize| {
        let mut file = log.disk.0[&SegmentSeq(1)].clone();
        file[BLOCK_BYTES + flipped] ^= 1;
        let fault = batch_at(&file, BLOCK_BYTES as u64).expect_err("a fault");
        (fault.what, fault.at as usize - BLOCK_BYTES)
    };
    assert_eq!(fault(first), ("run checksum", first));
    assert_eq!(fault(second), ("run checksum", second));
    assert_eq!(fault(payloads), ("payload checksum", payloads));
    assert_eq!(fault(payloads + 7), ("payload checksum", payloads + 3), "its second payload");
    let file = &log.disk.0[&SegmentSeq(1)];
    let whole = batch_at(file, BLOCK_BYTES as u64).expect("whole");
    let groups: Vec<_> = whole.runs().map(|run| run.expect("whole").group.0).collect();
    assert_eq!(groups, [1, 2, 3]);
    let beyond = batch_at(file, 2 * BLOCK_BYTES as u64).expect_err("nothing lies there");
    assert_eq!((beyond.what, beyond.at), ("batch magic", 2 * BLOCK_BYTES as u64));
}

/// What is found wrong with a run at byte 1000, written as it is and sealed: what, where, expected, found.
fn refused(run: &Run, edit: impl Fn(&mut Vec<u8>)) -> Option<(&'static str, u64, u64, u64)> {
    let mut bytes = vec![0; run.bytes()];
    run.encode_into(0, &mut bytes);
    let payloads: usize = run.entries.iter().map(|entry| entry.payload.len()).sum();
    let table_end = bytes.len() - payloads;
    edit(&mut bytes);
    let crc = crc32fast::hash(&bytes[4..table_end]).to_le_bytes();
    bytes[..4].copy_from_slice(&crc);
    let fault = RunRef::parse(Layout::Packed, &bytes, 1000, false).err()?;
    assert_eq!(fault.authentic, fault.what != "room for payloads", "{fault}");
    Some((fault.what, fault.at, fault.expected, fault.found))
}

#[test]
fn a_run_whose_fields_make_no_sense_together_is_refused_though_its_checksum_holds() {
    let two = run(1, 4, 18, &[b"one", b"three"]);
    assert_eq!(refused(&two, |_| {}), None);
    let table = before_payloads(&two) - 2 * 8;
    let unknown = refused(&two, |bytes| bytes[table + 8 + 3] = 99);
    let last_kind = crate::entry::EntryKind::Session as u64;
    assert_eq!(unknown, Some(("entry kind", 1000 + table as u64 + 8, last_kind, 99)));
    let whole = two.bytes() as u64;
    let cut = refused(&two, |bytes| bytes.truncate(bytes.len() - 1));
    assert_eq!(cut, Some(("room for payloads", 1000, whole, whole - 1)));
    let again = refused(&two, |bytes| bytes[7] |= 15 << 4);
    assert_eq!(again, Some(("entries in a run of this kind", 1000, 0, 2)));
    // A run that holds anything says where it begins, and ends within all numbers.
    let at = |run: &Run, first: u64| {
        let mut run = run.clone();
        run.first = Index(first);
        refused(&run, |_| {})
    };
    let most = u64::MAX;
    let place = |expected, found| Some(("first index of a run", 1000, expected, found));
    assert_eq!([0, 1].map(|first| at(&two, first)), [place(1, 0), None]);
    assert_eq!(
        [most - 2, most - 1].map(|first| at(&two, first)),
        [None, place(most - 2, most - 1)]
    );
    let empty = run(1, 4, 18, &[]);
    assert_eq!([0, 1, most].map(|first| at(&empty, first)), [None; 3]);
    let [piece, taken, installed, tombstone] = others(1, 4, 18);
    for snapshot in [piece, taken, installed] {
        assert_eq!([0, 1].map(|first| at(&snapshot, first)), [place(1, 0), None]);
    }
    assert_eq!([0, 1].map(|first| at(&tombstone, first)), [None; 2]);
}

#[test]
fn every_kind_of_run_comes_back_as_it_was() {
    for kind in [
        RunKind::Log,
        RunKind::SnapshotTaken,
        RunKind::Tombstone,
        RunKind::SnapshotInstalled,
        RunKind::PromisesForgotten,
        RunKind::EntriesForgotten,
        RunKind::Recalled,
    ] {
        let hard_state = HardState { term: Term(4), vote: ReplicaId(7), commit: Index(18) };
        let entry = EntryId { term: Term(4), index: Index(18) };
        let whole = Run::mark(kind, GroupId(1), hard_state, entry);
        let not_whole = Run { is_forgetful: kind != RunKind::Recalled, ..whole.clone() };
        let mut log = Log::new(segment_bytes(1));
        log.append(batch([whole, not_whole]));
        assert_eq!(log.recover().expect("whole").1, log.written, "{kind:?}");
    }
}

#[test]
fn the_payload_bytes_that_an_earlier_version_said_must_be_those_of_its_entries() {
    for (said, is_right) in [(5_u32, true), (4, false), (6, false)] {
        // As `Layout::Wide` has it: one entry of five bytes.
        let mut bytes = vec![0; 64 + 12];
        bytes[4..8].copy_from_slice(&1_u32.to_le_bytes());
        for field in bytes[8..56].chunks_exact_mut(8) {
            field.copy_from_slice(&3_u64.to_le_bytes());
        }
        bytes[56..60].copy_from_slice(&said.to_le_bytes());
        bytes[64..68].copy_from_slice(&5_u32.to_le_bytes());
        bytes[72..76].copy_from_slice(&1_u32.to_le_bytes());
        let crc = crc32fast::hash(&bytes[4..]).to_le_bytes();
        bytes[..4].copy_from_slice(&crc);
        bytes.extend_from_slice(b"value");
        match RunRef::parse(Layout::Wide, &bytes, 1000, false) {
            Ok((run, rest)) => {
                assert!(is_right && rest.is_empty());
                assert_eq!((run.count, run.first, run.last()), (1, Index(3), Index(3)));
            }
            Err(fault) => {
                let expected = Fault::authentic("payload bytes of a run", 1056, 5, said.into());
                assert_eq!((fault, is_right), (expected, false));
            }
        }
    }
}

#[test]
fn a_batch_is_of_an_earlier_life_if_its_segment_had_a_lower_number() {
    let log = small_log(1, segment_bytes(2));
    let file = &log.disk.0[&SegmentSeq(1)];
    let is_earlier = |segment, block: usize, salt| {
        let at = Location { segment: SegmentSeq(segment), offset: (block * BLOCK_BYTES) as u64 };
        BatchRef::is_earlier_life(file, at, salt)
    };
    let salt = IDENTITY.salt();
    assert_eq!([0, 1, 2, 9].map(|seq| is_earlier(seq, 1, salt)), [false, false, true, true]);
    assert!(!is_earlier(2, 2, salt) && !is_earlier(2, 9, salt), "no batch lies there");
    assert!(!is_earlier(2, 1, salt ^ 1), "of another log");
    // Nor is it one where it was not written.
    let mut moved = vec![0; file.len()];
    moved[2 * BLOCK_BYTES..3 * BLOCK_BYTES].copy_from_slice(&file[BLOCK_BYTES..2 * BLOCK_BYTES]);
    let at = Location { segment: SegmentSeq(2), offset: 2 * BLOCK_BYTES as u64 };
    assert!(!BatchRef::is_earlier_life(&moved, at, salt));
}

#[test]
fn what_is_left_of_a_batch_is_skipped_run_by_run() {
    let runs = [run(1, 1, 1, &[b"one"]), run(2, 1, 1, &[b"two", b"three"])];
    let mut bytes = vec![0; runs.iter().map(Run::bytes).sum()];
    let second = runs[0].encode_into(runs[0].crc(), &mut bytes);
    runs[1].encode_into(runs[1].crc(), &mut bytes[second..]);
    let (crc, rest) = crate::wal::record::skip(Layout::Packed, &bytes).expect("whole");
    assert_eq!((crc, rest), (runs[0].crc(), &bytes[second..]));
    let (crc, rest) = crate::wal::record::skip(Layout::Packed, rest).expect("whole");
    assert_eq!((crc, rest.len()), (runs[1].crc(), 0));
}

#[test]
fn what_is_wrong_with_a_log_is_told_with_its_place() {
    let at = Location { segment: SegmentSeq(42), offset: 8192 };
    let unreadable = Damage::unreadable(at);
    assert_eq!((unreadable.segment, unreadable.offset), (at.segment, at.offset));
    assert_eq!(unreadable.proof, Proof::ReadBack);
    let reason = unreadable.fault;
    let torn = TornTail { segment: at.segment, offset: at.offset, reason }.to_string();
    for text in [unreadable.to_string(), torn] {
        assert!(text.contains("000000000000002a.seg") && text.contains("8192"), "{text}");
        assert!(text.contains(&reason.to_string()), "{text}");
    }
}

#[test]
fn damage_says_how_it_is_known_and_what_to_do() {
    let by = Location { segment: SegmentSeq(3), offset: 4096 };
    let found = Identity { node: NodeId(9), ..IDENTITY };
    let proofs = [
        Proof::Durable { by },
        Proof::Sequence { by },
        Proof::Reclaimed { by },
        Proof::Written,
        Proof::Length,
        Proof::Identity { expected: IDENTITY, found },
        Proof::ReadBack,
    ];
    let told = proofs.map(|proof| {
        let fault = Fault::new("batch magic", 8196, 10, 0);
        Damage { segment: SegmentSeq(2), offset: 8192, fault, proof }.to_string()
    });
    let place = "log segment 0000000000000002.seg, offset 8192: ";
    let fault = place.to_owned() + "batch magic at byte 8196: expected 0xa, found 0x0; ";
    let told = told.map(|told| told.strip_prefix(&fault).expect("the fault first").to_owned());
    expect![[r#"
        0000000000000003.seg offset 4096 proves that these bytes were durable, so they changed afterwards. Replace the disk if it reports errors
        0000000000000003.seg offset 4096 names another log in front of it. Put back the segment files that were moved or lost
        the log was noted to begin with 0000000000000003.seg offset 4096, and no file of it is left. Put back the segment files that were moved or lost, or start this node with an empty directory and a new --id
        the checksum over it holds, so it was written like this. Start the version of outrigger that wrote this log; if that is this one, report a bug and keep the file
        segments get their length before their name, and are never cut or extended. Put back the whole file
        the file belongs to cluster 00000000000000c1 node 9 shard 3, this log to cluster 00000000000000c1 node 2 shard 3. Check the data directory, the node id and the number of cores; nothing was changed
        the bytes were whole before. Replace the disk if it reports errors"#]]
    .assert_eq(&told.join("\n"));
}

#[test]
fn a_segment_header_that_nobody_wrote_like_this_is_named_by_its_field() {
    let header = SegmentHeader {
        version: FORMAT_VERSION,
        identity: IDENTITY,
        segment_bytes: 64 << 10,
        segment: SegmentSeq(42),
        previous: End { at: Location { segment: SegmentSeq(41), offset: 8192 }, chain: 7 },
        first_batch: 99,
    };
    let mut block = vec![0; BLOCK_BYTES];
    header.encode_into(&mut block);
    assert_eq!(SegmentHeader::decode(&block), Ok(header));
    let mut earlier = header;
    earlier.version = 1;
    earlier.encode_into(&mut block);
    assert_eq!(SegmentHeader::decode(&block), Ok(earlier), "earlier formats are read");
    // One byte is another, below a checksum that was taken before or after.
    let fault = |at: usize, byte: u8, is_written: bool| {
        let mut block = vec![0; BLOCK_BYTES];
        header.encode_into(&mut block);
        block[at] = byte;
        if is_written {
            let crc = crc32fast::hash(&block[12..80]);
            block[8..12].copy_from_slice(&crc.to_le_bytes());
        }
        let fault = SegmentHeader::decode(&block).expect_err("a fault");
        (fault.what, fault.at, fault.authentic)
    };
    assert_eq!(fault(7, 1, true), ("segment magic", 0, false));
    for covered in [12, 34, 68, 79] {
        assert_eq!(fault(covered, 1, false), ("segment header checksum", 8, false));
    }
    for version in [0, FORMAT_VERSION as u8 + 1] {
        assert_eq!(fault(12, version, true), ("format version", 12, true));
    }
    assert_eq!(fault(34, 1, true), ("segment header's zero", 34, true));
    assert_eq!(fault(68, 1, true), ("segment header's zero", 68, true));
    assert_eq!(fault(80, 1, true), ("segment header padding", 80, false));
    assert_eq!(fault(4095, 1, false), ("segment header padding", 4095, false));
    let short = Fault::new("length of the segment file", 0, 4096, 4095);
    assert_eq!(SegmentHeader::decode(&block[..4095]), Err(short));
}

#[test]
fn a_batch_takes_no_more_than_a_quarter_of_a_small_segment() {
    let soft = |bytes| {
        Appender::with_segment_bytes(IDENTITY, Position::default(), bytes).batch_bytes_soft()
    };
    assert_eq!(soft(8 * BLOCK_BYTES), 2 * BLOCK_BYTES);
    assert_eq!(soft(crate::limits::SEGMENT_BYTES), crate::limits::BATCH_BYTES_SOFT);
}

#[test]
fn a_batch_that_was_written_is_used_again_with_its_lists() {
    let mut log = Log::new(segment_bytes(2));
    let write = log.append(batch([run(1, 1, 1, &[&b"value"[..]; 9])]));
    let mut batch = write.into_batch();
    assert_eq!(batch.runs(), log.written);
    let list = batch.runs()[0].entries.as_ptr();
    batch.clear();
    assert_eq!(batch.lists().take(9).as_ptr(), list);
}

#[test]
fn a_run_of_an_earlier_version_that_is_cut_short_is_none() {
    for bytes in 0..64 {
        let short = Fault::new("room for a run header", 1000, 64, bytes);
        let cut = vec![0; bytes as usize];
        let run = RunRef::parse(Layout::Wide, &cut, 1000, false);
        assert_eq!(run.expect_err("too short"), short);
    }
}

#[test]
fn a_field_that_is_wider_than_it_has_to_be_is_refused() {
    let run = run(1, 4, 18, &[b"one"]);
    let mut bytes = vec![0; run.bytes()];
    run.encode_into(0, &mut bytes);
    assert!(RunRef::parse(Layout::Packed, &bytes, 1000, true).is_ok());
    // Two bytes for the group, which stands behind the count.
    bytes[4] = bytes[4] & 0x0f | 0x20;
    bytes.insert(10, 0);
    let fault = RunRef::parse(Layout::Packed, &bytes, 1000, true).expect_err("one would do");
    assert_eq!(fault, Fault::authentic("widths of a run's fields", 1004, 0, 0));
}

#[test]
fn a_kind_that_no_version_had_is_refused() {
    let mut bytes = vec![0; 64];
    bytes[60] = 9;
    let fault = RunRef::parse(Layout::Wide, &bytes, 1000, true).expect_err("unknown");
    assert_eq!(fault, Fault::authentic("run kind", 1004, RunKind::Recalled as u64, 9));
}
