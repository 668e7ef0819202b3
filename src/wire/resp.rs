//! RESP requests: bytes of a client socket → commands, in place.
//!
//! ```text
//! *3\r\n $3\r\nSET\r\n $1\r\nk\r\n $1\r\nv\r\n      array of bulk strings: the command, kept as it is
//! SET k "v w"\r\n                                    inline: encoded once as an array
//! ```
//!
//! A command keeps the very bytes it arrived in ([`Command::raw`], a counted slice of the receive
//! buffer) and offsets of its arguments. Those bytes become the entry, the WAL record, the frame
//! and what the state machine reads (docs/decisions/0002).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;
use thiserror::Error;

use crate::limits;

/// What a client must not send. The text after `ERR ` is Redis' own; the connection is closed
/// after it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The count after `*` is no number.
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    /// It is above `limits::COMMAND_ARGS_MAX`.
    #[error(
        "Protocol error: invalid multibulk length: a command has at most {} arguments",
        limits::COMMAND_ARGS_MAX
    )]
    TooManyArgs,
    /// The length after `$` is no number.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// The command exceeds `limits::COMMAND_BYTES_MAX`.
    #[error(
        "Protocol error: invalid bulk length: a command has at most {} bytes",
        limits::COMMAND_BYTES_MAX
    )]
    TooLong,
    /// Something else where `$` must stand.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// An inline command without an end.
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// A count or length line without an end.
    #[error("Protocol error: too big mbulk count string")]
    CountTooBig,
    /// Quotes of an inline command do not close.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
}

/// Longest `*…` or `$…` line, in bytes: a sign, 19 digits, and room.
const COUNT_LINE_MAX: usize = 32;

/// One command: its bytes as a RESP array, and where its arguments lie in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The whole RESP array.
    pub raw: Bytes,
    args: SmallVec<[(u32, u32); 8]>,
}

impl Command {
    /// Encodes a command from its arguments, the name first.
    #[must_use]
    pub fn from_args(args: &[&[u8]]) -> Self {
        // Exactly: bytes that fill their memory become a counted slice without another allocation.
        let line = |number: usize| 3 + decimals(number as u64);
        let parts = args.iter().map(|arg| line(arg.len()) + arg.len() + 2);
        let mut raw = Vec::with_capacity(line(args.len()) + parts.sum::<usize>());
        put_number(&mut raw, b'*', args.len() as i64);
        let mut places = SmallVec::new();
        for arg in args {
            put_number(&mut raw, b'$', arg.len() as i64);
            places.push((raw.len() as u32, arg.len() as u32));
            raw.extend_from_slice(arg);
            raw.extend_from_slice(b"\r\n");
        }
        Self { raw: raw.into(), args: places }
    }

    /// Reads back what a `Command` was: exactly one array, whole.
    ///
    /// # Errors
    /// If the bytes are not exactly that; state machines must survive any payload.
    pub fn parse(raw: Bytes) -> Result<Self, ProtocolError> {
        let mut scan = Scan::default();
        match scan.array(&raw)? {
            Some(end) if end == raw.len() && !scan.args.is_empty() => {
                Ok(Self { raw, args: scan.args })
            }
            _ => Err(ProtocolError::MultibulkLength),
        }
    }

    /// The command's name, as sent.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.arg(0)
    }

    /// Argument `i`; the name is argument 0.
    ///
    /// # Panics
    /// If there is no such argument; arity is checked before anything looks.
    #[must_use]
    pub fn arg(&self, i: usize) -> &[u8] {
        let (start, len) = self.args[i];
        &self.raw[start as usize..(start + len) as usize]
    }

    /// All arguments, the name first.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.args.iter().map(|&(start, len)| &self.raw[start as usize..(start + len) as usize])
    }

    /// How many arguments, the name included. Never zero.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a command has at least its name")]
    pub fn len(&self) -> usize {
        self.args.len()
    }
}

/// How many arguments a command has and what it is called, by its first bytes; `None` if those are no
/// command's, or the name is longer than any.
#[must_use]
pub fn peek(raw: &[u8]) -> Option<(i64, &[u8])> {
    if raw.first() != Some(&b'*') {
        return None;
    }
    let (count, at) = count_line(raw, 1, ProtocolError::MultibulkLength).ok()??;
    if raw.get(at) != Some(&b'$') {
        return None;
    }
    let (len, at) = count_line(raw, at + 1, ProtocolError::BulkLength).ok()??;
    Some((count, raw.get(at..at.checked_add(usize::try_from(len).ok()?)?)?))
}

/// Progress through one array, so that a large value that arrives in many packets is not scanned
/// from the start for each.
#[derive(Debug, Default)]
struct Scan {
    /// Bytes understood so far.
    at: usize,
    /// Arguments still to come; none before the count was read.
    missing: Option<usize>,
    args: SmallVec<[(u32, u32); 8]>,
}

impl Scan {
    /// The end of the array, if all of it is there.
    fn array(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let mut missing = match self.missing {
            Some(missing) => missing,
            None => {
                if bytes.first() != Some(&b'*') {
                    return Err(ProtocolError::MultibulkLength);
                }
                let invalid = ProtocolError::MultibulkLength;
                let Some((count, next)) = count_line(bytes, 1, invalid)? else { return Ok(None) };
                if count > limits::COMMAND_ARGS_MAX as i64 {
                    return Err(ProtocolError::TooManyArgs);
                }
                self.at = next;
                count.max(0) as usize
            }
        };
        while missing > 0 {
            self.missing = Some(missing);
            let Some(&mark) = bytes.get(self.at) else { return Ok(None) };
            if mark != b'$' {
                return Err(ProtocolError::ExpectedBulk(mark));
            }
            let invalid = ProtocolError::BulkLength;
            let Some((len, start)) = count_line(bytes, self.at + 1, invalid)? else {
                return Ok(None);
            };
            // The command counts whole, its last line end included: followers refuse a longer entry.
            let Ok(len) = usize::try_from(len) else { return Err(ProtocolError::BulkLength) };
            if start.saturating_add(len).saturating_add(2) > limits::COMMAND_BYTES_MAX {
                return Err(ProtocolError::TooLong);
            }
            let end = start + len;
            if bytes.len() < end + 2 {
                return Ok(None);
            }
            if &bytes[end..end + 2] != b"\r\n" {
                return Err(ProtocolError::BulkLength);
            }
            self.args.push((start as u32, len as u32));
            self.at = end + 2;
            missing -= 1;
        }
        self.missing = Some(0);
        Ok(Some(self.at))
    }
}

/// The number that is the line at `from`, and where the next line begins; `invalid` if it is none.
#[inline]
fn count_line(
    bytes: &[u8],
    from: usize,
    invalid: ProtocolError,
) -> Result<Option<(i64, usize)>, ProtocolError> {
    // Most are short, and all there.
    match bytes.get(from..) {
        Some(&[one @ b'0'..=b'9', b'\r', b'\n', ..]) => Ok(Some((digit(one), from + 3))),
        Some(&[ten @ b'1'..=b'9', one @ b'0'..=b'9', b'\r', b'\n', ..]) => {
            Ok(Some((10 * digit(ten) + digit(one), from + 4)))
        }
        _ => match line(bytes, from)? {
            Some((line, next)) => Ok(Some((integer(line).ok_or(invalid)?, next))),
            None => Ok(None),
        },
    }
}

fn digit(byte: u8) -> i64 {
    i64::from(byte - b'0')
}

/// The line that starts at `from`, without its end, and where the next begins.
fn line(bytes: &[u8], from: usize) -> Result<Option<(&[u8], usize)>, ProtocolError> {
    let rest = &bytes[from.min(bytes.len())..];
    let window = &rest[..rest.len().min(COUNT_LINE_MAX)];
    match window.iter().position(|&byte| byte == b'\r') {
        Some(end) if rest.len() > end + 1 => {
            if rest[end + 1] == b'\n' {
                Ok(Some((&rest[..end], from + end + 2)))
            } else {
                Err(ProtocolError::BulkLength)
            }
        }
        Some(_) => Ok(None),
        None if rest.len() >= COUNT_LINE_MAX => Err(ProtocolError::CountTooBig),
        None => Ok(None),
    }
}

/// A decimal integer as Redis reads one: an optional minus, digits, no leading zeros or plus,
/// nothing else.
#[must_use]
pub fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'0'] => (text.len() == 1).then_some(0),
        [b'1'..=b'9', ..] if digits.len() <= DIGITS_SAFE => {
            let mut value = 0;
            for digit in digits {
                let digit = digit.wrapping_sub(b'0');
                if 9 < digit {
                    return None;
                }
                value = value * 10 + i64::from(digit);
            }
            Some(if digits.len() == text.len() { value } else { -value })
        }
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(text).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// So many decimal digits fit an `i64`, whatever they are.
const DIGITS_SAFE: usize = 18;

/// Writes a line: `mark`, and `value` in decimal.
pub(super) fn put_number(out: &mut impl BufMut, mark: u8, value: i64) {
    out.put_u8(mark);
    if value < 0 {
        out.put_u8(b'-');
    }
    put_decimal(out, value.unsigned_abs());
    out.put_slice(b"\r\n");
}

/// Writes `value` in decimal; formatting through `fmt` showed in profiles of small replies and of commands.
pub(crate) fn put_decimal(out: &mut impl BufMut, value: u64) {
    if value < 10 {
        out.put_u8(b'0' + value as u8);
        return;
    }
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

/// How many decimal digits `value` has.
fn decimals(value: u64) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Reads commands from the bytes of one connection.
#[derive(Debug, Default)]
pub struct RequestReader {
    scan: Scan,
}

impl RequestReader {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next whole command in `input`, which is taken from it; none if more bytes are needed.
    /// Empty lines and empty arrays are passed over.
    ///
    /// # Errors
    /// If the bytes cannot be a command; nothing after them can be understood.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Command>, ProtocolError> {
        loop {
            match input.first() {
                None => return Ok(None),
                Some(b'*') => {
                    let Some(end) = self.scan.array(input)? else { return Ok(None) };
                    let args = std::mem::take(&mut self.scan).args;
                    let raw = input.split_to(end).freeze();
                    if !args.is_empty() {
                        return Ok(Some(Command { raw, args }));
                    }
                }
                Some(_) => match inline(input)? {
                    None => return Ok(None),
                    Some(args) if args.is_empty() => {}
                    Some(args) => {
                        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                        return Ok(Some(Command::from_args(&args)));
                    }
                },
            }
        }
    }

    /// How many bytes the command under way needs at least beyond `have`, so that room for a large
    /// value is made once.
    #[must_use]
    pub fn needed(&self, input: &[u8]) -> usize {
        let rest = input.get(self.scan.at..).unwrap_or_default();
        let Some(rest) = rest.strip_prefix(b"$") else { return 0 };
        let Some(end) = rest.iter().take(COUNT_LINE_MAX).position(|&byte| byte == b'\r') else {
            return 0;
        };
        let len = integer(&rest[..end]).unwrap_or(0).clamp(0, limits::COMMAND_BYTES_MAX as i64);
        (self.scan.at + 1 + end + 2 + len as usize + 2).saturating_sub(input.len())
    }
}

/// Takes one line from `input` and splits it as Redis does: blanks separate, double quotes with
/// escapes, single quotes without.
fn inline(input: &mut BytesMut) -> Result<Option<Vec<Vec<u8>>>, ProtocolError> {
    let window = &input[..input.len().min(limits::INLINE_BYTES_MAX)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        let too_big = input.len() >= limits::INLINE_BYTES_MAX;
        return if too_big { Err(ProtocolError::InlineTooBig) } else { Ok(None) };
    };
    let text = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    let args = words(text);
    input.advance(end + 1);
    args.map(Some).ok_or(ProtocolError::UnbalancedQuotes)
}

fn words(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while text.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        if at >= text.len() {
            return Some(words);
        }
        let mut word = Vec::new();
        let mut quote = None;
        loop {
            let byte = text.get(at).copied();
            at += 1;
            match (quote, byte) {
                (None, None) => break,
                (Some(_), None) => return None,
                (Some(b'"'), Some(b'\\')) => {
                    let (decoded, used) = escape(&text[at..])?;
                    word.push(decoded);
                    at += used;
                }
                (Some(b'\''), Some(b'\\')) if text.get(at) == Some(&b'\'') => {
                    word.push(b'\'');
                    at += 1;
                }
                (Some(open), Some(byte)) if byte == open => {
                    // A closing quote must end the word.
                    if text.get(at).is_some_and(|next| !next.is_ascii_whitespace()) {
                        return None;
                    }
                    break;
                }
                (None, Some(byte)) if byte.is_ascii_whitespace() => break,
                (None, Some(open @ (b'"' | b'\''))) => quote = Some(open),
                (_, Some(byte)) => word.push(byte),
            }
        }
        words.push(word);
    }
}

/// What follows a backslash in double quotes, and how many bytes it takes.
fn escape(rest: &[u8]) -> Option<(u8, usize)> {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    Some(match *rest {
        [b'x', high, low, ..] if hex(high).is_some() && hex(low).is_some() => {
            (((hex(high)? << 4) | hex(low)?) as u8, 3)
        }
        [b'n', ..] => (b'\n', 1),
        [b'r', ..] => (b'\r', 1),
        [b't', ..] => (b'\t', 1),
        [b'b', ..] => (8, 1),
        [b'a', ..] => (7, 1),
        [other, ..] => (other, 1),
        [] => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(bytes: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let mut input = BytesMut::from(bytes);
        let mut reader = RequestReader::new();
        let mut commands = Vec::new();
        while let Some(command) = reader.next(&mut input)? {
            assert_eq!(Command::parse(command.raw.clone()).as_ref(), Ok(&command));
            commands.push(command.args().map(<[u8]>::to_vec).collect());
        }
        Ok(commands)
    }

    fn texts(commands: Vec<Vec<Vec<u8>>>) -> Vec<String> {
        let text = |args: Vec<Vec<u8>>| {
            let args: Vec<_> = args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
            args.join("|")
        };
        commands.into_iter().map(text).collect()
    }

    #[test]
    fn arrays_and_lines_become_commands() {
        let cases: &[(&[u8], &[&str])] = &[
            (b"*1\r\n$4\r\nPING\r\n", &["PING"]),
            (b"*0\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n", &["GET|"]),
            (b"*-1\r\n\r\nPING\r\n", &["PING"]),
            (b"PING\n", &["PING"]),
            (b"  SET  k \"a b\\n\\x41\" 'c\\'d' \r\n", &["SET|k|a b\nA|c'd"]),
            (b"SET k 'a\\nb' \"\\xZ1\\x1Z\"\r\n", &["SET|k|a\\nb|xZ1x1Z"]),
            (b"*1\r\n$4\r\nPI", &[]),
            (b"PIN", &[]),
        ];
        for (bytes, expected) in cases {
            let found = texts(read_all(bytes).expect("understood"));
            assert_eq!(found, *expected, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn garbage_is_refused_in_redis_words() {
        let long_inline = vec![b'x'; limits::INLINE_BYTES_MAX];
        let cases: &[(&[u8], &str)] = &[
            (b"*x\r\n", "Protocol error: invalid multibulk length"),
            (
                b"*65537\r\n",
                "Protocol error: invalid multibulk length: a command has at most 65536 arguments",
            ),
            (b"*1\r\n:3\r\n", "Protocol error: expected '$', got ':'"),
            (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
            (
                b"*1\r\n$99999999999\r\n",
                "Protocol error: invalid bulk length: a command has at most 4194304 bytes",
            ),
            (b"*1\r\n$3\r\nabcde", "Protocol error: invalid bulk length"),
            (
                b"*1111111111111111111111111111111111111",
                "Protocol error: too big mbulk count string",
            ),
            (b"SET k \"v\r\n", "Protocol error: unbalanced quotes in request"),
            (b"SET k \"v\"w\r\n", "Protocol error: unbalanced quotes in request"),
            (&long_inline, "Protocol error: too big inline request"),
        ];
        for (bytes, expected) in cases {
            let error = read_all(bytes).expect_err("refused");
            assert_eq!(error.to_string(), *expected);
        }
    }

    #[test]
    fn integers_are_read_as_redis_reads_them() {
        for (text, value) in [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX)] {
            assert_eq!(integer(text.as_bytes()), Some(value));
        }
        for text in
            ["", "-", "+1", "01", "-0", " 1", "1 ", "9223372036854775808", "1.0", "1-", "--1"]
        {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
        // Every number of digits, on both sides of a power of ten, and the largest ones.
        let powers = (0..19).map(|power| 10i64.pow(power)).chain([i64::MAX]);
        for value in powers.flat_map(|it| [it - 1, it, it.saturating_add(1), -it, -it - 1]) {
            assert_eq!(integer(value.to_string().as_bytes()), Some(value));
        }
    }

    #[test]
    fn a_command_says_how_long_its_arguments_are() {
        for bytes in [0, 1, 9, 10, 99, 100, 12_345] {
            let argument = vec![b'x'; bytes];
            let command = Command::from_args(&[b"SET", &argument]);
            let head = format!("*2\r\n$3\r\nSET\r\n${bytes}\r\n");
            assert!(command.raw.starts_with(head.as_bytes()), "{bytes}");
            assert_eq!(Command::parse(command.raw.clone()), Ok(command), "{bytes}");
        }
        assert_eq!(&Command::from_args(&[b"GET", b""]).raw[..], b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n");
    }

    #[test]
    fn room_for_a_large_value_is_known_from_its_header() {
        let mut input = BytesMut::from(&b"*2\r\n$3\r\nGET\r\n$100000\r\nabc"[..]);
        let mut reader = RequestReader::new();
        assert_eq!(reader.next(&mut input), Ok(None));
        assert_eq!(reader.needed(&input), 100_000 + 2 - 3);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_commands(
            args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
            cut in 0usize..400,
        ) {
            let refs: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            let bytes = [Command::from_args(&refs).raw, Command::from_args(&refs).raw].concat();
            let cut = cut % (bytes.len() + 1);
            let mut reader = RequestReader::new();
            let mut input = BytesMut::new();
            let mut found = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                input.extend_from_slice(part);
                while let Some(command) = reader.next(&mut input).expect("well-formed") {
                    found.push(command.args().map(<[u8]>::to_vec).collect::<Vec<_>>());
                }
            }
            prop_assert_eq!(found, vec![args.clone(), args]);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_all(&bytes);
            let _ = read_all(&[b"*2\r\n$3\r\n".as_slice(), &bytes].concat());
            let _ = Command::parse(bytes.into());
        }
    }

    /// The whole command counts, its last line end included: it is what followers are sent.
    #[test]
    fn the_longest_command_is_taken_and_one_byte_more_is_not() {
        let command = |total: usize| {
            let head = |len: usize| format!("*2\r\n$3\r\nGET\r\n${len}\r\n");
            let len = total - head(total).len() - 2;
            assert_eq!(head(len).len(), head(total).len(), "as many digits");
            let mut bytes = BytesMut::from(head(len).as_bytes());
            bytes.resize(bytes.len() + len, b'k');
            bytes.extend_from_slice(b"\r\n");
            bytes
        };
        let longest = limits::COMMAND_BYTES_MAX;
        let taken =
            RequestReader::new().next(&mut command(longest)).expect("no longer than allowed");
        assert_eq!(taken.expect("whole").raw.len(), longest);
        let refused = RequestReader::new().next(&mut command(longest + 1));
        assert!(matches!(refused, Err(ProtocolError::TooLong)));
    }
}
