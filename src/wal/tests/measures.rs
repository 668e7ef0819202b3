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
}

#[test]
fn a_damaged_payload_is_named_by_the_place_at_which_it_begins() {
    let log = batch([run(1, 1, 1, &[b"one", b"three"])]);
    let second = log.bytes() - 5;
    let fault = fault_of(|_| {}, &[b"one", b"three"], Some(second));
    assert_eq!((fault.what, fault.at), ("payload checksum", (BLOCK_BYTES + second) as u64));
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
        the file belongs to cluster 193 node 9 shard 3, this log to cluster 193 node 2 shard 3. Check the data directory, the node id and the number of cores; nothing was changed
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
