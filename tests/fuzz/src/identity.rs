//! What says whose a directory is and where its log begins: `identity.toml`, `FIRST`, the names of
//! segments.

use outrigger::id::SegmentSeq;
use outrigger::runtime::identity::text::{Known, Saved};
use outrigger::wal::{file_name, first_text, parse_file_name, parse_first};

use super::choices::{Choices, below, byte, flip, number, rarely, rest, some};

/// One input.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match byte(&mut choices) % 4 {
        0 => written(&mut choices),
        1 => checksummed(rest(&mut choices)),
        2 => first(&mut choices),
        _ => {
            if let Ok(text) = std::str::from_utf8(rest(&mut choices)) {
                judge(text);
                names(text);
            }
        }
    }
}

/// What is written reads back, and no bit of it may change.
fn written(choices: &mut Choices<'_>) {
    // TOML has no larger numbers.
    let small = |choices: &mut Choices<'_>| number(choices) >> 1;
    let mut saved = Saved {
        format: number(choices) as u32,
        cluster: String::from_utf8_lossy(some(choices, 20)).into_owned(),
        node: small(choices),
        cores: number(choices) as u16,
        groups: small(choices),
        incarnation: small(choices),
        begun: rarely(choices, 2),
        birth: small(choices),
        proven: rarely(choices, 2),
        bootstrap: Default::default(),
        known: Default::default(),
    };
    for _ in 0..below(choices, 3) {
        let at = ([127, 0, 0, byte(choices)], number(choices) as u16).into();
        saved.bootstrap.insert(number(choices).to_string(), at);
    }
    for _ in 0..below(choices, 3) {
        let known = Known { birth: small(choices), proven: rarely(choices, 2) };
        saved.known.insert(number(choices).to_string(), known);
    }
    let text = saved.render().expect("numbers TOML has");
    assert_eq!(Saved::parse(&text), Ok(saved));
    let mut bytes = text.into_bytes();
    flip(choices, &mut bytes);
    if let Ok(text) = std::str::from_utf8(&bytes) {
        assert!(Saved::parse(text).is_err(), "flipped bits went unnoticed");
    }
}

/// Any text under a checksum that holds.
fn checksummed(body: &[u8]) {
    let Ok(body) = std::str::from_utf8(body) else { return };
    judge(&format!("{body}# crc32 {:08x}\n", crc32fast::hash(body.as_bytes())));
}

/// What is believed can be written again and says the same; what is not is refused in one line.
fn judge(text: &str) {
    match Saved::parse(text) {
        Ok(saved) => {
            let again = saved.render().expect("numbers TOML has");
            assert_eq!(Saved::parse(&again), Ok(saved));
        }
        Err(why) => assert!(!why.contains('\n'), "more than one line: {why}"),
    }
}

fn first(choices: &mut Choices<'_>) {
    let segment = SegmentSeq(number(choices));
    let text = first_text(segment);
    assert_eq!(parse_first(&text), Some(segment));
    let name = file_name(segment);
    assert_eq!(parse_file_name(&name), Some(segment).filter(|it| it.0 != 0));
    let mut bytes = text.into_bytes();
    flip(choices, &mut bytes);
    if let Ok(text) = std::str::from_utf8(&bytes) {
        assert_eq!(parse_first(text), None, "flipped bits went unnoticed");
    }
}

/// One text for each number, and no other.
fn names(text: &str) {
    if let Some(segment) = parse_first(text) {
        assert_eq!(first_text(segment), text);
    }
    if let Some(segment) = parse_file_name(text) {
        assert_eq!(file_name(segment), text);
    }
}
