//! Bad bytes are expected: every one of them is an error with a name, and none is a panic.

use crate::limits::{
    APPEND_ENTRIES_MAX, COMMAND_BYTES_MAX, FRAME_BYTES_MAX, SNAPSHOT_PIECE_BYTES_MAX,
};
use crate::wire::Expect;
use crate::wire::frame::MAGIC;

use super::*;

fn sample_bytes() -> Vec<u8> {
    sample().compose(&mut FrameBuilder::new()).to_bytes().to_vec()
}

#[test]
fn every_flipped_bit_of_a_frame_is_seen() {
    let sound = sample_bytes();
    for at in 0..sound.len() {
        for bit in 0..8 {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            let result = read(&bytes);
            assert!(result.is_err(), "bit {bit} of byte {at}: {result:?}");
        }
    }
}

#[test]
fn a_frame_cut_short_anywhere_is_waited_for() {
    let sound = sample_bytes();
    for at in 0..sound.len() {
        let mut reader = FrameReader::new();
        reader.feed(&sound[..at]);
        assert!(matches!(reader.next(), Ok(None)), "cut at byte {at}");
        let whole = if at < HEADER_BYTES { HEADER_BYTES } else { sound.len() };
        assert_eq!(reader.needed(), whole - at);
        reader.feed(&sound[at..]);
        let frame = reader.next().expect("sound").expect("whole");
        assert_eq!(Said::of(&frame), sample(), "cut at byte {at}");
    }
}

#[test]
fn contract_row_49_a_frame_too_large_is_refused_before_room_is_made() {
    for (meta, payload) in [
        (u32::MAX, u32::MAX),
        (0, FRAME_BYTES_MAX as u32),
        ((FRAME_BYTES_MAX - HEADER_BYTES) as u32, 1),
    ] {
        let mut header = sample_bytes();
        header.truncate(HEADER_BYTES);
        header[48..52].copy_from_slice(&meta.to_le_bytes());
        header[52..56].copy_from_slice(&payload.to_le_bytes());
        resign(&mut header);
        let mut reader = FrameReader::new();
        reader.feed(&header);
        let error = reader.next().expect_err("too large");
        let bytes = HEADER_BYTES as u64 + u64::from(meta) + u64::from(payload);
        assert_eq!(error, FrameError::TooLarge { bytes, max: FRAME_BYTES_MAX as u64 });
        assert!(reader.space().len() <= 64 << 10, "room was made for a refused frame");
    }
}

#[test]
fn contract_row_49_the_largest_frame_allowed_is_waited_for() {
    let mut header = sample_bytes();
    header.truncate(HEADER_BYTES);
    header[48..52].copy_from_slice(&0u32.to_le_bytes());
    header[52..56].copy_from_slice(&((FRAME_BYTES_MAX - HEADER_BYTES) as u32).to_le_bytes());
    resign(&mut header);
    let mut reader = FrameReader::new();
    reader.feed(&header);
    assert!(matches!(reader.next(), Ok(None)));
    assert_eq!(reader.needed(), FRAME_BYTES_MAX - HEADER_BYTES);
}

/// etcd#17078: a switch delivered frames to the wrong node, which believed them.
#[test]
fn contract_row_49_wrong_addresses_are_refused_by_the_header_alone() {
    let right = Expect {
        cluster: ROUTE.cluster,
        from: ROUTE.from,
        to: ROUTE.to,
        incarnation: ROUTE.incarnation,
    };
    let (cluster, node, incarnation) = (ClusterId(1000), NodeId(1000), Incarnation(1000));
    let cases = [
        (
            Expect { cluster, ..right },
            FrameError::Cluster { expected: cluster, found: ROUTE.cluster },
        ),
        (Expect { to: node, ..right }, FrameError::Receiver { expected: node, found: ROUTE.to }),
        (Expect { from: node, ..right }, FrameError::Sender { expected: node, found: ROUTE.from }),
        (
            Expect { incarnation, ..right },
            FrameError::Incarnation { expected: incarnation, found: ROUTE.incarnation },
        ),
    ];
    let bytes = sample_bytes();
    for (expect, error) in cases {
        let mut reader = FrameReader::new();
        reader.expect(expect);
        // Not a byte of the body is needed to refuse it.
        reader.feed(&bytes[..HEADER_BYTES]);
        assert_eq!(reader.next().expect_err("not for us"), error);
        reader.feed(&bytes[HEADER_BYTES..]);
        assert_eq!(reader.next().expect_err("a failed link stays failed"), error);
    }
    let mut reader = FrameReader::new();
    reader.expect(right);
    reader.feed(&bytes);
    assert!(reader.next().expect("sound").is_some());
}

#[test]
fn an_unknown_header_names_what_is_unknown() {
    let edit = |at: usize, byte: u8| {
        let mut bytes = sample_bytes();
        bytes[at] = byte;
        resign(&mut bytes);
        read(&bytes).expect_err("unknown").to_string()
    };
    assert_eq!(
        edit(8, 2),
        "frame header of version 2, this node knows 1: run the same release on both nodes"
    );
    assert_eq!(edit(10, 3), "frame header: lane is 3, which means nothing in this version");
    assert_eq!(edit(11, 9), "frame header: content is 9, which means nothing in this version");
    assert_eq!(edit(14, 1), "frame header: bytes 14..16 is 1, which means nothing in this version");
    assert_eq!(edit(60, 1), "frame header: bytes 60..64 is 1, which means nothing in this version");
    let http = read(&[b"GET / HTTP/1.1\r\n".as_slice(), &[b' '; 64]].concat()).expect_err("http");
    assert_eq!(http, FrameError::Magic { found: u32::from_le_bytes(*b"GET ") });
    assert_ne!(MAGIC, u32::from_le_bytes(*b"GET "));
}

fn raft_message() -> RaftMessage {
    RaftMessage::new(9, 1, 2, 5, 4, 100, 99, 5, 0, 0, 0, MessageKind::Append as u8, 0)
}

/// What `read` says about one message and entries of these kinds and lengths.
fn verdict(message: RaftMessage, entries: &[(u8, usize)]) -> FrameError {
    let payload: Vec<u8> = vec![b'x'; entries.iter().map(|(_, bytes)| bytes).sum()];
    let entries = entries
        .iter()
        .map(|(kind, bytes)| {
            EntryHead::new(*bytes as u32, crc32fast::hash(&payload[..*bytes]), *kind)
        })
        .collect();
    let raw = Raw { messages: vec![message], entries, payload, ..Raw::default() };
    read(&raw.bytes()).expect_err("malformed")
}

#[test]
fn contract_row_12_message_kinds_that_mean_nothing_between_nodes_are_refused() {
    for kind in [0, 16, 200, 255] {
        let mut message = raft_message();
        message.set_kind(kind);
        let error = verdict(message, &[]);
        assert_eq!(error.to_string(), format!("group 9: the message kind is {kind}"));
    }
}

#[test]
fn a_message_that_breaks_a_rule_is_refused() {
    type Edit = fn(&mut RaftMessage);
    let cases: [(Edit, &str); 11] = [
        (|m| m.set_group(GROUPS_MAX), "the group, out of range"),
        (|m| m.set_from(0), "sending replica"),
        (|m| m.set_to(0), "receiving replica"),
        (|m| m.set_reject(2), "reject flag"),
        (|m| m.set_term(NUMBER_MAX), "the term, out of range"),
        (|m| m.set_entry_term(NUMBER_MAX), "term of the named entry"),
        (|m| m.set_entry_index(u64::MAX), "index of the named entry"),
        (|m| m.set_commit(NUMBER_MAX), "commit index"),
        (|m| m.set_run_term(NUMBER_MAX), "run's term"),
        (|m| m.set_hint(NUMBER_MAX), "hint"),
        (|m| m.set_count(APPEND_ENTRIES_MAX + 1), "entry count of an append"),
    ];
    for (edit, what) in cases {
        let mut message = raft_message();
        edit(&mut message);
        let error = verdict(message, &[]).to_string();
        assert!(error.contains(what), "wanted {what:?}, got {error:?}");
    }
    // Alone, too: no other number has a bit to show.
    let kind = MessageKind::Heartbeat as u8;
    let alone = RaftMessage::new(9, 1, 2, 0, 0, 0, NUMBER_MAX, 0, 0, 0, 0, kind, 0);
    assert!(verdict(alone, &[]).to_string().contains("commit index"));
    let mut heartbeat = raft_message();
    heartbeat.set_kind(MessageKind::Heartbeat as u8);
    heartbeat.set_count(1);
    let error = verdict(heartbeat, &[(1, 3)]).to_string();
    assert!(error.contains("message that is no append"), "{error}");
}

#[test]
fn entries_must_be_counted_and_measured_exactly() {
    let mut two = raft_message();
    two.set_count(2);
    let count = |described| FrameError::EntryCount { named: 2, described };
    assert_eq!(verdict(two, &[(1, 3)]), count(1));
    assert_eq!(verdict(two, &[(1, 3), (1, 3), (1, 3)]), count(3));
    let two = |entries: &[(u8, usize)]| verdict(two, entries).to_string();
    assert_eq!(two(&[(1, 3), (4, 3)]), "group 9: the kind of an entry is 4");
    assert_eq!(two(&[(1, 3), (0, 3)]), "group 9: the length of an empty entry is 3");
    let short = "group 9: the length of a session's entry, less than its header, is 15";
    assert_eq!(two(&[(1, 3), (3, 15)]), short);
    let long = COMMAND_BYTES_MAX + 1;
    assert!(two(&[(1, 3), (1, long)]).contains("the length of an entry, more than allowed"));

    // One byte too many or too few, and lengths whose sum would wrap in 32 bits.
    for (described, present) in [(3, 4), (5, 4)] {
        let forwards = vec![ForwardHead::new(1, 1, described, 0, 0)];
        let raw = Raw { forwards, payload: vec![0; present], ..Raw::default() };
        let (described, present) = (described.into(), present as u64);
        assert_eq!(
            read(&raw.bytes()).expect_err("mismatch"),
            FrameError::PayloadBytes { described, present }
        );
    }
    let half = 1 << 31;
    let answers = vec![AnswerHead::new(1, half, 0), AnswerHead::new(2, half, 0)];
    let raw = Raw { answers, ..Raw::default() };
    let error = read(&raw.bytes()).expect_err("mismatch");
    assert_eq!(error, FrameError::PayloadBytes { described: 1 << 32, present: 0 });

    let forwards = vec![ForwardHead::new(1, GROUPS_MAX, 0, 0, 0)];
    let error = read(&Raw { forwards, ..Raw::default() }.bytes()).expect_err("no such group");
    assert!(matches!(error, FrameError::Part { .. }), "{error}");
}

#[test]
fn a_piece_that_breaks_a_rule_is_refused() {
    type Edit = fn(&mut PieceHead);
    let cases: [(Edit, &str); 8] = [
        (|p| p.set_group(GROUPS_MAX), "the group, out of range"),
        (|p| p.set_from(0), "sending replica"),
        (|p| p.set_to(0), "receiving replica"),
        (|p| p.set_term(NUMBER_MAX), "the term, out of range"),
        (|p| p.set_snapshot_term(NUMBER_MAX), "term of the snapshot"),
        (|p| p.set_snapshot_index(u64::MAX), "index of the snapshot"),
        (|p| p.set_number(SNAPSHOT_PIECES_MAX), "number of a piece"),
        (|p| p.set_last(2), "mark of the last piece"),
    ];
    let wrong = |head: PieceHead, payload: Vec<u8>| {
        let raw = Raw { pieces: vec![head], payload, ..Raw::default() };
        read(&raw.bytes()).expect_err("malformed").to_string()
    };
    for (edit, what) in cases {
        let sound = piece(0, b"some bytes");
        let mut head = sound.head();
        edit(&mut head);
        let error = wrong(head, sound.bytes.to_vec());
        assert!(error.contains(what), "wanted {what:?}, got {error:?}");
    }
    for bytes in [0, SNAPSHOT_PIECE_BYTES_MAX + 1] {
        let head = SnapshotPiece { bytes: vec![1; bytes].into(), ..piece(0, b"") }.head();
        assert!(wrong(head, vec![1; bytes]).contains("the length of a piece"));
    }
}

#[test]
fn an_ack_that_breaks_a_rule_is_refused() {
    type Edit = fn(&mut PieceAck);
    let cases: [(Edit, &str); 6] = [
        (|a| a.set_group(GROUPS_MAX), "the group, out of range"),
        (|a| a.set_from(0), "sending replica"),
        (|a| a.set_to(0), "receiving replica"),
        (|a| a.set_term(NUMBER_MAX), "the term, out of range"),
        (|a| a.set_status(5), "the status of a snapshot"),
        (|a| a.set_next(SNAPSHOT_PIECES_MAX + 1), "the piece that is wanted"),
    ];
    for (edit, what) in cases {
        let mut head = ack(3).head();
        edit(&mut head);
        let raw = Raw { acks: vec![head], ..Raw::default() };
        let error = read(&raw.bytes()).expect_err("malformed").to_string();
        assert!(error.contains(what), "wanted {what:?}, got {error:?}");
    }
}

#[test]
fn a_timing_that_breaks_a_rule_is_refused() {
    for (group, index, what) in
        [(GROUPS_MAX, 1, "the group, out of range"), (1, NUMBER_MAX, "the index of a timing")]
    {
        let head = TimingHead::new(group, index, 1, 2, 3, 4);
        let raw = Raw { timings: vec![head], ..Raw::default() };
        let error = read(&raw.bytes()).expect_err("malformed").to_string();
        assert!(error.contains(what), "wanted {what:?}, got {error:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A peer with a bug signs its nonsense correctly: the checksums help nothing then.
    #[test]
    fn signed_nonsense_is_an_error_or_a_frame_and_never_a_panic(
        said in said(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let out = said.compose(&mut FrameBuilder::new());
        let mut meta = out.head[HEADER_BYTES..].to_vec();
        for (at, byte) in &edits {
            let at = at.index(meta.len());
            meta[at] = *byte;
        }
        if let Some(keep) = keep {
            meta.truncate(keep.index(meta.len()));
        }
        let payload = &out.to_bytes()[out.head.len()..];
        for content in [Content::Peer, Content::Hello] {
            if let Ok(Some(frame)) = read(&signed(content, &meta, payload)) {
                let said = Said::of(&frame);
                for (_, _, entries) in said.messages {
                    prop_assert!(entries.iter().all(Entry::is_intact));
                }
            }
        }
    }

    #[test]
    fn noise_is_never_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
        if HEADER_BYTES <= bytes.len() {
            bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
            bytes[8..10].copy_from_slice(&1u16.to_le_bytes());
            resign(&mut bytes);
            let _ = read(&bytes);
        }
        let _ = read(&signed(Content::Peer, &bytes, b""));
    }
}
