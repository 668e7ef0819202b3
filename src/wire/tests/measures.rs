//! Lengths that are said beforehand, bounds that are just kept, and what is left of a command's first bytes.

use crate::limits::{
    APPEND_ENTRIES_MAX, COMMAND_ARGS_MAX, COMMAND_BYTES_MAX, FRAME_BYTES_MAX, FRAME_BYTES_SOFT,
    SNAPSHOT_PIECES_MAX,
};
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, peek};

use super::*;

#[test]
fn a_builder_says_how_long_its_frame_will_be() {
    let all = sample();
    let parts = [
        Said { messages: all.messages.clone(), ..Said::default() },
        Said { forwards: all.forwards.clone(), ..Said::default() },
        Said { answers: all.answers.clone(), ..Said::default() },
        Said { pieces: all.pieces.clone(), ..Said::default() },
        Said { acks: all.acks.clone(), ..Said::default() },
        Said { timings: vec![TIMING; 9], ..Said::default() },
    ];
    for part in &parts {
        let mut builder = FrameBuilder::new();
        assert!(builder.is_empty() && !builder.is_full());
        // So many that what is said of each is more than what is not said.
        (0..20).for_each(|_| add(part, &mut builder));
        assert!(!builder.is_empty() && !builder.is_full(), "{part:?}");
        let said = builder.bytes();
        let is = builder.finish(&ROUTE, Lane::Append).bytes();
        // What names the parts in a FlatBuffer.
        assert!(said < is && is - said < 120, "{said} {is} {part:?}");
    }
    let mut builder = FrameBuilder::new();
    builder.answer(Answer { id: 1, body: vec![0; FRAME_BYTES_SOFT].into() });
    assert!(builder.is_full());
    let text = format!("{builder:?}");
    assert!(text.contains("answers: 1") && text.contains("messages: 0"), "{text}");
}

const TIMING: AckTiming =
    AckTiming { group: GroupId(9), index: Index(5), pick_up: 1, flush_wait: 2, flush: 3, ack: 4 };

fn add(said: &Said, builder: &mut FrameBuilder) {
    said.messages.iter().for_each(|(group, message, entries)| {
        builder.message(*group, message, entries);
    });
    said.forwards.iter().for_each(|forward| builder.forward(forward.clone()));
    said.answers.iter().for_each(|answer| builder.answer(answer.clone()));
    said.pieces.iter().for_each(|piece| builder.piece(piece));
    said.acks.iter().for_each(|ack| builder.ack(ack));
    said.timings.iter().for_each(|timing| builder.timing(timing));
}

#[test]
fn messages_and_entries_say_how_many_are_left() {
    let frame = read(&sample().compose(&mut FrameBuilder::new()).to_bytes()).unwrap().unwrap();
    let mut messages = frame.messages();
    for left in (0..sample().messages.len()).rev() {
        assert_eq!(messages.len(), left + 1);
        let (_, message, mut entries) = messages.next().expect("counted");
        assert_eq!(entries.len(), message.count as usize);
        entries.next();
        assert_eq!(entries.len(), (message.count as usize).saturating_sub(1));
    }
    assert_eq!(messages.len(), 0);
}

#[test]
fn the_longest_command_is_forwarded() {
    let body = Bytes::from(vec![1; COMMAND_BYTES_MAX]);
    let said = Said {
        forwards: vec![Forward { id: 1, group: GroupId(9), flags: 0, body }],
        ..Said::default()
    };
    let bytes = said.compose(&mut FrameBuilder::new()).to_bytes();
    assert_eq!(Said::of(&read(&bytes).unwrap().unwrap()), said);
}

/// Two of them must not make up for each other.
#[test]
fn two_numbers_out_of_range_are_refused_as_one_is() {
    type Edit = fn(&mut Message);
    let edits: [Edit; 6] = [
        |it| it.term.0 = NUMBER_MAX,
        |it| it.entry.term.0 = NUMBER_MAX,
        |it| it.entry.index.0 = NUMBER_MAX,
        |it| it.commit.0 = NUMBER_MAX,
        |it| it.run_term.0 = NUMBER_MAX,
        |it| it.hint.0 = NUMBER_MAX,
    ];
    for (at, one) in edits.iter().enumerate() {
        for other in &edits[at..] {
            let (group, mut message, entries) = append(9, 100, &[]);
            one(&mut message);
            other(&mut message);
            let said = Said { messages: vec![(group, message, entries)], ..Said::default() };
            let bytes = said.compose(&mut FrameBuilder::new()).to_bytes();
            assert!(matches!(read(&bytes), Err(FrameError::Part { .. })), "{message:?}");
        }
    }
}

#[test]
fn a_command_is_known_by_its_first_bytes() {
    type Parsed<'a> = Option<(i64, &'a [u8])>;
    let cases: [(&[u8], Parsed<'_>); 8] = [
        (b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", Some((2, b"GET"))),
        (b"*12\r\n$4\r\nMGETx", Some((12, b"MGET"))),
        (b"*2\r\n$3\r\nGE", None),
        (b"*2\r\n:3\r\nGET", None),
        (b"*2\r\n$-1\r\nGET", None),
        (b"*2", None),
        (b"GET k\r\n", None),
        (b"", None),
    ];
    for (bytes, expected) in cases {
        assert_eq!(peek(bytes), expected, "{}", String::from_utf8_lossy(bytes));
    }
    let command = Command::from_args(&[b"SET", b"k", b"value"]);
    assert_eq!((command.name(), command.arg(2), command.len()), (&b"SET"[..], &b"value"[..], 3));
}

#[test]
fn as_many_arguments_as_allowed_are_taken_and_one_more_is_not() {
    let mut raw = format!("*{COMMAND_ARGS_MAX}\r\n").into_bytes();
    (0..COMMAND_ARGS_MAX).for_each(|_| raw.extend_from_slice(b"$0\r\n\r\n"));
    let more = [format!("*{}\r\n", COMMAND_ARGS_MAX + 1).as_bytes(), b"$0\r\n\r\n"].concat();
    if raw.len() <= COMMAND_BYTES_MAX {
        assert_eq!(Command::parse(raw.into()).map(|command| command.len()), Ok(COMMAND_ARGS_MAX));
    } else {
        // The bound on bytes comes first; the count alone is not what is refused.
        use crate::wire::resp::RequestReader;
        let head = &raw[..raw.len().min(200)];
        assert_eq!(RequestReader::new().next(&mut head.into()), Ok(None));
    }
    assert!(Command::parse(more.into()).is_err());
}

#[test]
fn replies_of_every_kind_come_back_and_none_that_is_too_deep() {
    for text in ["string", "none", "hash", "set"] {
        let reply = Reply::Simple(text);
        assert_eq!(Reply::decode(&reply.encode_forwarded()), Ok(reply));
    }
    assert!(Reply::decode(&Bytes::from_static(b"+else\r\n")).is_err());
    let nested = |depth| (0..depth).fold(Reply::Int(1), |inner, _| Reply::Array(vec![inner]));
    let mapped =
        |depth| (0..depth).fold(Reply::Int(1), |inner, _| Reply::Map(vec![(Reply::Int(0), inner)]));
    for (most, more) in [(nested(8), nested(9)), (mapped(8), mapped(9))] {
        assert_eq!(Reply::decode(&most.encode_forwarded()), Ok(most));
        assert!(Reply::decode(&more.encode_forwarded()).is_err());
    }
    assert!(!Reply::Ok.is_error() && Reply::Ok.error_text().is_empty());
    let error = Reply::error("ERR", "no");
    assert!(error.is_error() && !error.is_uncertain());
    assert_eq!(error.error_text(), "ERR no");
    assert!(Reply::error("UNCERTAIN", "perhaps").is_uncertain());
}

#[test]
fn a_reader_makes_room_for_a_whole_buffer_at_first_and_then_for_what_is_needed() {
    const BUFFER: usize = 64 << 10;
    let mut reader = FrameReader::new();
    assert_eq!(reader.space().len(), BUFFER);
    reader.filled(BUFFER - (4 << 10));
    assert_eq!(reader.space().len(), 4 << 10, "that is enough");
    reader.filled(1);
    assert_eq!(reader.space().len(), 4 << 10, "and is always there");
    reader.filled(4 << 10);
    assert_eq!(reader.space().len(), 4 << 10);
}

#[test]
fn a_reply_that_is_too_large_is_an_error_instead() {
    let most = crate::limits::REPLY_BYTES_MAX;
    for (bytes, fits) in [(most - 32, true), (most - 31, false)] {
        let reply = Reply::Bulk(vec![0; bytes].into());
        assert_eq!(reply.bytes(), 32 + bytes);
        let text = reply.within_limit().error_text().to_owned();
        assert_eq!(text.is_empty(), fits);
        assert!(fits || text.contains(&most.to_string()), "{text}");
    }
    let pair = (Reply::Int(1), Reply::Simple("hash"));
    let parts = Reply::Array(vec![Reply::Map(vec![pair]), Reply::error("ERR", "no")]);
    assert_eq!(parts.bytes(), 5 * 32 + 4 + 6);
}

#[test]
fn a_forwarded_answer_that_says_more_than_there_is_is_none() {
    for bytes in [
        &b"*2\r\n:1\r\n"[..],
        b"*1000000000\r\n:1\r\n",
        b"~1\r\n",
        b"%1\r\n:1\r\n",
        b"%1000000000\r\n:1\r\n:1\r\n",
        b"$3\r\nab\r\n",
        b"$-1\r\n",
        b":1\r",
        b":1\rx",
        b":1\r\n:2\r\n",
        b"_1\r\n",
        b"!1\r\n",
        b"",
    ] {
        let text = String::from_utf8_lossy(bytes);
        assert!(Reply::decode(&Bytes::copy_from_slice(bytes)).is_err(), "{text:?}");
    }
}

#[test]
fn every_lane_and_content_has_a_code_and_no_other_code_means_one() {
    for lane in Lane::ALL {
        assert_eq!(Lane::from_code(lane as u8), Some(lane));
    }
    for content in [Content::Peer, Content::Hello] {
        assert_eq!(Content::from_code(content as u8), Some(content));
    }
    assert_eq!(Lane::from_code(3), None);
    assert_eq!(Content::from_code(2), None);
}

#[test]
fn a_frame_says_how_many_heartbeats_it_carries() {
    let mut builder = FrameBuilder::new();
    assert_eq!(sample().compose(&mut builder).heartbeats, 1);
    assert_eq!(sample().compose(&mut builder).heartbeats, 1, "each its own");
}

#[test]
fn a_frame_is_as_long_as_its_parts_together() {
    let meta = vec![0; FRAME_BYTES_MAX - HEADER_BYTES];
    let header = FrameHeader::new(&ROUTE, Lane::Bulk, Content::Peer, &meta, 0);
    assert_eq!(header.frame_bytes(), FRAME_BYTES_MAX);
}

#[test]
fn an_append_may_hold_as_many_entries_and_a_command_as_many_bytes_as_are_allowed() {
    let (group, mut message, _) = append(9, 100, &[]);
    for (count, bytes) in [(APPEND_ENTRIES_MAX, 0), (1, COMMAND_BYTES_MAX)] {
        message.count = count;
        let entry = Entry::command(Bytes::from(vec![1; bytes]));
        let entries = vec![entry; count as usize];
        let said = Said { messages: vec![(group, message, entries)], ..Said::default() };
        let bytes = said.compose(&mut FrameBuilder::new()).to_bytes();
        assert_eq!(Said::of(&read(&bytes).unwrap().unwrap()), said);
    }
}

#[test]
fn an_ack_may_want_the_piece_behind_the_last() {
    let mut said = sample();
    said.acks[0].next = SNAPSHOT_PIECES_MAX;
    let bytes = said.compose(&mut FrameBuilder::new()).to_bytes();
    assert_eq!(Said::of(&read(&bytes).unwrap().unwrap()), said);
}

#[test]
fn a_bare_command_is_nothing_but_one_array() {
    let whole = Command::from_args(&[b"PING"]).raw;
    assert!(Command::parse(whole.clone()).is_ok());
    assert!(Command::parse([&whole[..], b"x"].concat().into()).is_err(), "something follows");
    assert!(Command::parse(Bytes::from_static(b"*0\r\n")).is_err(), "it has no name");
}
