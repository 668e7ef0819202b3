//! What goes in comes out, however the stream is cut, and where it lay.

use std::fmt::Write;

use expect_test::expect;

use crate::limits::COMMAND_BYTES_MAX;

use super::*;

proptest! {
    /// One builder and one reader serve a whole link: what one frame leaves behind must not show
    /// in the next.
    #[test]
    fn frames_say_what_was_said_however_the_stream_is_cut(
        frames in prop::collection::vec(said(), 1..5),
        cuts in prop::collection::vec(1..3000usize, 1..20),
    ) {
        let mut builder = FrameBuilder::new();
        let mut stream = Vec::new();
        for said in &frames {
            let frame = said.compose(&mut builder);
            prop_assert!(builder.is_empty() && builder.payload_bytes() == 0);
            prop_assert_eq!(frame.bytes(), frame.to_bytes().len());
            prop_assert!(frame.payload.iter().all(|slice| !slice.is_empty()));
            stream.extend_from_slice(&frame.to_bytes());
        }

        let (mut reader, mut heard, mut rest) = (FrameReader::new(), Vec::new(), &stream[..]);
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            reader.feed(now);
            rest = later;
            while let Some(frame) = reader.next().expect("nothing is wrong with it") {
                prop_assert_eq!(frame.header.route, ROUTE);
                prop_assert_eq!(frame.header.lane, Lane::Append);
                heard.push(Said::of(&frame));
            }
            prop_assert!(0 < reader.needed());
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(heard, frames);
    }
}

#[test]
fn payloads_are_slices_of_the_receive_buffer_and_large_ones_of_the_senders() {
    let payload = Bytes::from(vec![7; 10_000]);
    let mut said = sample();
    said.messages[0].2[1] = Entry::command(payload.clone());
    let out = said.compose(&mut FrameBuilder::new());
    assert!(out.payload.iter().any(|slice| slice.as_ptr() == payload.as_ptr()));

    let mut reader = FrameReader::new();
    reader.feed(&out.to_bytes());
    let frame = reader.next().expect("sound").expect("whole");
    let (first, last) = (frame.meta().as_ptr().addr(), frame.bytes());
    for (_, _, entries) in frame.messages() {
        for entry in entries {
            let at = entry.payload.as_ptr().addr() - first;
            assert!(at < last, "a payload was copied on the way in");
        }
    }
}

/// The largest entry arrives in a buffer made once, for exactly its frame.
#[test]
fn room_for_a_long_frame_is_made_once() {
    let entry = Entry::command(Bytes::from(vec![1; COMMAND_BYTES_MAX]));
    let mut message = append(1, 1, &[b""]).1;
    message.count = 1;
    let mut builder = FrameBuilder::new();
    builder.message(GroupId(1), &message, [&entry]);
    assert!(builder.is_full());
    let bytes = builder.finish(&ROUTE, Lane::Bulk).to_bytes();

    let mut reader = FrameReader::new();
    reader.feed(&bytes[..1000]);
    assert!(reader.next().expect("sound so far").is_none());
    assert_eq!(reader.needed(), bytes.len() - 1000);
    let place = reader.space().as_ptr();
    assert_eq!(reader.space().len(), bytes.len() - 1000);
    for chunk in bytes[1000..].chunks(100_000) {
        reader.space()[..chunk.len()].copy_from_slice(chunk);
        reader.filled(chunk.len());
    }
    let frame = reader.next().expect("sound").expect("whole");
    let got = frame.messages().next().expect("one message").2.next().expect("one entry");
    assert_eq!(got, entry);
    let head = bytes.len() - COMMAND_BYTES_MAX;
    let (payload, place) = (got.payload.as_ptr().addr(), place.addr());
    assert_eq!(payload - head, place - 1000, "the buffer moved");
}

#[test]
fn an_entry_is_not_hashed_again_so_the_leaders_damage_is_found_by_the_follower() {
    let (group, message, mut entries) = append(3, 1, &[b"good", b"soon damaged"]);
    entries[1].payload = Bytes::from_static(b"soom damaged");
    let mut builder = FrameBuilder::new();
    builder.message(group, &message, &entries);
    let error = read(&builder.finish(&ROUTE, Lane::Append).to_bytes()).expect_err("damaged");
    assert!(
        matches!(error, FrameError::PayloadDamaged { part: "entry", number: 1, of: 3, .. }),
        "{error}"
    );
}

#[test]
#[should_panic(expected = "entries of")]
fn a_message_without_the_entries_it_names_is_a_bug() {
    let (group, message, entries) = append(3, 1, &[b"a", b"b"]);
    FrameBuilder::new().message(group, &message, &entries[1..]);
}

/// The bytes themselves. If this changes, old and new nodes cannot talk: raise a version.
#[test]
fn the_golden_frame() {
    let (group, mut message, entries) = append(9, 100, &[b"SET a 1"]);
    message.commit = Index(99);
    let mut builder = FrameBuilder::new();
    builder.message(group, &message, &entries);
    builder.answer(Answer { id: 12, body: Bytes::from_static(b"+OK\r\n") });
    let frame = builder.finish(&ROUTE, Lane::Append).to_bytes();
    expect![[r#"
        000: 4f 54 52 57 87 cb 73 19  01 00 01 00 03 00 00 00
        010: c1 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00
        020: 02 00 00 00 00 00 00 00  07 00 00 00 00 00 00 00
        030: a8 00 00 00 0c 00 00 00  81 48 ab c9 00 00 00 00
        040: 14 00 00 00 00 00 00 00  0c 00 10 00 04 00 08 00
        050: 00 00 0c 00 0c 00 00 00  34 00 00 00 20 00 00 00
        060: 04 00 00 00 01 00 00 00  0c 00 00 00 00 00 00 00
        070: 05 00 00 00 11 54 f0 9a  00 00 00 00 01 00 00 00
        080: 07 00 00 00 31 f4 2a 30  01 00 00 00 01 00 00 00
        090: 09 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00
        0a0: 02 00 00 00 00 00 00 00  05 00 00 00 00 00 00 00
        0b0: 04 00 00 00 00 00 00 00  64 00 00 00 00 00 00 00
        0c0: 63 00 00 00 00 00 00 00  05 00 00 00 00 00 00 00
        0d0: 00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
        0e0: 01 00 00 00 05 00 00 00  53 45 54 20 61 20 31 2b
        0f0: 4f 4b 0d 0a
    "#]]
    .assert_eq(&hex(&frame));
}

/// As above, for snapshots.
#[test]
fn the_golden_frame_of_a_piece_and_an_ack() {
    let mut builder = FrameBuilder::new();
    builder.piece(&piece(1, b"the end"));
    builder.ack(&ack(2));
    let frame = builder.finish(&ROUTE, Lane::Bulk).to_bytes();
    expect![[r#"
        000: 4f 54 52 57 ab f2 19 4d  01 00 02 00 03 00 00 00
        010: c1 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00
        020: 02 00 00 00 00 00 00 00  07 00 00 00 00 00 00 00
        030: b8 00 00 00 07 00 00 00  b7 97 d2 1b 00 00 00 00
        040: 18 00 00 00 00 00 00 00  10 00 0c 00 00 00 00 00
        050: 00 00 00 00 04 00 08 00  10 00 00 00 50 00 00 00
        060: 04 00 00 00 01 00 00 00  09 00 00 00 00 00 00 00
        070: 01 00 00 00 00 00 00 00  02 00 00 00 00 00 00 00
        080: 05 00 00 00 00 00 00 00  03 00 00 00 00 00 07 00
        090: 04 00 00 00 00 00 00 00  63 00 00 00 00 00 00 00
        0a0: 02 00 00 00 00 00 00 00  00 00 00 00 01 00 00 00
        0b0: 09 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00
        0c0: 02 00 00 00 00 00 00 00  05 00 00 00 00 00 00 00
        0d0: 03 00 00 00 00 00 07 00  04 00 00 00 00 00 00 00
        0e0: 63 00 00 00 00 00 00 00  01 00 00 00 07 00 00 00
        0f0: d1 1b b1 6f 01 00 00 00  74 68 65 20 65 6e 64
    "#]]
    .assert_eq(&hex(&frame));
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (row, chunk) in bytes.chunks(16).enumerate() {
        write!(out, "{:03x}:", row * 16).expect("a string takes all");
        for (at, byte) in chunk.iter().enumerate() {
            let gap = if at == 8 { "  " } else { " " };
            write!(out, "{gap}{byte:02x}").expect("a string takes all");
        }
        out.push('\n');
    }
    out
}
