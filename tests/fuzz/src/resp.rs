//! What clients send and nodes answer: `RequestReader`, `Command`, `Reply::decode`.

use bytes::{Bytes, BytesMut};

use outrigger::limits::{COMMAND_ARGS_MAX, COMMAND_BYTES_MAX};
use outrigger::wire::reply::{Protocol, Reply};
use outrigger::wire::resp::{Command, ProtocolError, RequestReader, integer};

use super::choices::{Choices, below, byte, cut, number, rarely, rest, some};

/// One input.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match byte(&mut choices) % 4 {
        0 => requests(&mut choices),
        1 => written(&mut choices),
        2 => reply(&Bytes::copy_from_slice(rest(&mut choices))),
        _ => said(&mut choices),
    }
}

/// All commands of a stream, and how it ended: bytes left, or an error.
fn read(bytes: &[u8]) -> (Vec<Command>, Result<BytesMut, ProtocolError>) {
    let mut reader = RequestReader::new();
    let mut input = BytesMut::from(bytes);
    let mut commands = Vec::new();
    let end = take(&mut reader, &mut input, &mut commands);
    (commands, end.map(|()| input))
}

fn take(
    reader: &mut RequestReader,
    input: &mut BytesMut,
    commands: &mut Vec<Command>,
) -> Result<(), ProtocolError> {
    while let Some(command) = reader.next(input)? {
        judge(&command);
        commands.push(command);
    }
    // What is reserved for the rest is within the largest command, whatever it announces.
    let most = COMMAND_BYTES_MAX + 64;
    assert!(reader.needed(input) <= most, "asks for room for more than a command");
    Ok(())
}

/// What is understood is what a log and a peer will understand by the same bytes.
fn judge(command: &Command) {
    assert!((1..=COMMAND_ARGS_MAX).contains(&command.len()));
    assert!(command.raw.len() <= COMMAND_BYTES_MAX);
    assert_eq!(Command::parse(command.raw.clone()).as_ref(), Ok(command), "another by its bytes");
    let args: Vec<&[u8]> = command.args().collect();
    assert_eq!(args[0], command.name());
    let again = Command::from_args(&args);
    assert_eq!(again.raw, command.raw, "written otherwise than read");
    for arg in args {
        if let Some(number) = integer(arg) {
            assert_eq!(number.to_string().as_bytes(), arg, "two texts for one number");
        }
    }
}

/// However a stream is cut, the same commands come of it, and the same error.
fn requests(choices: &mut Choices<'_>) {
    let mut how = Choices::new(some(choices, 16));
    let bytes = rest(choices);
    let (commands, end) = read(bytes);
    let mut reader = RequestReader::new();
    let mut input = BytesMut::new();
    let (mut cut_commands, mut cut_end) = (Vec::new(), Ok(()));
    cut(&mut how, bytes, |part| {
        if cut_end.is_ok() {
            input.extend_from_slice(part);
            cut_end = take(&mut reader, &mut input, &mut cut_commands);
        }
    });
    assert_eq!((cut_commands, cut_end.map(|()| input)), (commands, end));
    if let Ok(command) = Command::parse(Bytes::copy_from_slice(bytes)) {
        judge(&command);
    }
}

/// What is written is read, with nothing left; and with bytes replaced, no matter which.
fn written(choices: &mut Choices<'_>) {
    let mut bytes = Vec::new();
    let mut commands = Vec::new();
    for _ in 0..=below(choices, 3) {
        let args: Vec<&[u8]> = (0..=below(choices, 4)).map(|_| some(choices, 20)).collect();
        let command = Command::from_args(&args);
        bytes.extend_from_slice(&command.raw);
        commands.push(command);
    }
    assert_eq!(read(&bytes), (commands, Ok(BytesMut::new())));
    for _ in 0..=below(choices, 3) {
        let at = below(choices, bytes.len());
        bytes[at] = byte(choices);
    }
    _ = read(&bytes);
}

/// What is understood of an answer can be said again, and is understood the same.
fn reply(bytes: &Bytes) {
    let Ok(reply) = Reply::decode(bytes) else { return };
    let again = reply.encode_forwarded();
    assert!(again.len() <= reply.bytes(), "larger than it was counted");
    assert_eq!(Reply::decode(&again), Ok(reply));
}

/// What a node answers is what the other node passes on.
fn said(choices: &mut Choices<'_>) {
    let reply = any_reply(choices, 3);
    let mut bytes = reply.encode_forwarded();
    assert!(bytes.len() <= reply.bytes(), "larger than it was counted");
    let mut old = BytesMut::new();
    reply.encode(Protocol::Resp2, &mut old);
    assert!(old.len() <= reply.bytes(), "larger than it was counted");
    assert_eq!(Reply::decode(&bytes), Ok(reply));
    let mut changed = bytes.to_vec();
    let at = below(choices, changed.len());
    changed[at] = byte(choices);
    bytes = changed.into();
    self::reply(&bytes);
    self::reply(&bytes.slice(..at));
}

fn any_reply(choices: &mut Choices<'_>, depth: usize) -> Reply {
    match byte(choices) % if depth == 0 { 6 } else { 8 } {
        0 => Reply::Ok,
        1 => Reply::Nil,
        2 => Reply::Simple(if rarely(choices, 2) { "none" } else { "string" }),
        3 => Reply::Int(number(choices) as i64),
        4 => Reply::error("ERR", String::from_utf8_lossy(some(choices, 20))),
        5 => Reply::bulk(some(choices, 20)),
        6 => Reply::Array((0..below(choices, 4)).map(|_| any_reply(choices, depth - 1)).collect()),
        _ => {
            let pairs = 0..below(choices, 3);
            let pair = |_| (any_reply(choices, depth - 1), any_reply(choices, depth - 1));
            Reply::Map(pairs.map(pair).collect())
        }
    }
}
