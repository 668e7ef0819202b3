//! Transcripts: commands and the replies they must get, readable aloud.
//!
//! ```text
//! SET greeting "hello world"     => +OK
//! GET greeting                   => "hello world"
//! ```
//!
//! A line without an arrow is sent and its reply ignored (clean-up); `#` starts a comment. Words in
//! double quotes may hold spaces, `\"`, `\\`, `\r`, `\n` and `\xHH`.

use crate::client::{Client, Reply};

/// Plays `text` on one connection; the first wrong reply fails with its line.
#[track_caller]
pub(crate) fn play(client: &mut Client, text: &str) {
    let mut played = 0;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            continue;
        }
        let (command, expected) = match line.split_once("=>") {
            Some((command, expected)) => (command.trim(), Some(expected.trim())),
            None => (line, None),
        };
        let reply = client.call(&words(command));
        if let Some(expected) = expected {
            let got = shown(&reply);
            assert_eq!(
                got, expected,
                "the reply to `{command}`, the command after {played} others"
            );
        }
        played += 1;
    }
    assert!(played > 0, "the transcript is empty");
}

/// Splits a line into arguments as a shell would.
pub(crate) fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.trim().as_bytes();
    while !rest.is_empty() {
        let (word, after) = if rest[0] == b'"' { quoted(&rest[1..]) } else { plain(rest) };
        words.push(word);
        rest = after.trim_ascii_start();
    }
    words
}

fn plain(rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let end = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
    (rest[..end].to_vec(), &rest[end..])
}

fn quoted(mut rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut word = Vec::new();
    loop {
        let (byte, length) = match rest {
            [b'"', after @ ..] => return (word, after),
            [b'\\', b'n', ..] => (b'\n', 2),
            [b'\\', b'r', ..] => (b'\r', 2),
            [b'\\', b'x', high, low, ..] => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("hex digits");
                (u8::from_str_radix(digits, 16).expect("hex digits"), 4)
            }
            [b'\\', byte, ..] => (*byte, 2),
            [byte, ..] => (*byte, 1),
            [] => panic!("a quote is not closed"),
        };
        word.push(byte);
        rest = &rest[length..];
    }
}

/// Redis ends its "unknown command" text with a space that an editor would strip from a transcript.
fn shown(reply: &Reply) -> String {
    reply.to_string().trim_end().to_owned()
}

#[test]
fn words_split_like_a_shell() {
    assert_eq!(words("GET  a"), [b"GET".to_vec(), b"a".to_vec()]);
    assert_eq!(words(r#"SET "" "a \"b\x00\n""#), [b"SET".to_vec(), vec![], b"a \"b\0\n".to_vec()]);
}
