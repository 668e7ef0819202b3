//! A map as the commands that make it: what a backup becomes when it is restored into another cluster.

use bytes::Bytes;

use crate::store::{RestoreError, Restoring as _};
use crate::wire::resp::Command;

use super::Map;
use super::snapshot::RestoringMap;
use super::value::{Collection, Value};

/// Parts of a hash or set that one command adds.
const PARTS_MAX: usize = 256;
/// Bytes of them after which the command is full.
const PART_BYTES_MAX: usize = 256 << 10;

impl Map {
    /// The map whose [`Frozen`](crate::store::Frozen) state gave out these chunks.
    ///
    /// # Errors
    /// If they make none.
    pub fn from_chunks(chunks: impl IntoIterator<Item = Bytes>) -> Result<Self, RestoreError> {
        let mut restoring = RestoringMap::default();
        chunks.into_iter().try_for_each(|chunk| restoring.chunk(&chunk))?;
        restoring.into_map()
    }

    /// Commands that make the same of a map without these keys; each may be executed more than once, and
    /// those of one key are executed in this order.
    pub fn commands(&self) -> impl Iterator<Item = Command> {
        self.values.iter().flat_map(|(place, value)| commands_of(&place.key, value))
    }
}

fn commands_of(key: &[u8], value: &Value) -> Vec<Command> {
    let at = value.expires().map(|at| at.0.to_string());
    let mut commands = Vec::new();
    let collection = match value.kept() {
        Value::String(string) => {
            let mut args: Vec<&[u8]> = vec![b"SET", key, string];
            args.extend(at.iter().flat_map(|at| [&b"PXAT"[..], at.as_bytes()]));
            return vec![Command::from_args(&args)];
        }
        Value::Collection(it) => it,
        Value::Expiring(_) => unreachable!("what expires keeps what does not"),
    };
    match &**collection {
        Collection::Hash(hash) => {
            let parts = hash.iter().map(|(field, value)| vec![&**field, value]);
            add(&mut commands, b"HSET", key, parts);
        }
        Collection::Set(set) => {
            add(&mut commands, b"SADD", key, set.iter().map(|(member, ())| vec![&**member]));
        }
    }
    commands.extend(at.map(|at| Command::from_args(&[b"PEXPIREAT", key, at.as_bytes()])));
    commands
}

fn add<'a>(
    commands: &mut Vec<Command>,
    name: &[u8],
    key: &[u8],
    parts: impl Iterator<Item = Vec<&'a [u8]>>,
) {
    let mut parts = parts.peekable();
    while parts.peek().is_some() {
        let mut args: Vec<&[u8]> = vec![name, key];
        let (mut count, mut bytes) = (0, 0);
        while count < PARTS_MAX
            && bytes < PART_BYTES_MAX
            && let Some(part) = parts.next()
        {
            count += 1;
            bytes += part.iter().map(|it| it.len()).sum::<usize>();
            args.extend(part);
        }
        commands.push(Command::from_args(&args));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Index, UnixMs};
    use crate::limits;
    use crate::store::stamp::stamped;
    use crate::store::{StateMachine as _, Wanted};

    fn run(map: &mut Map, command: &Command) {
        let payload = map.stamp(&command.raw, UnixMs(5), false);
        let reply = map.apply(Index(1), &payload.unwrap_or(command.raw.clone()), Wanted::Yes);
        assert!(!reply.is_error(), "{reply:?}");
    }

    #[test]
    fn the_commands_of_a_map_make_it_again() {
        let mut map = Map::new();
        let mut say = |args: &[&[u8]]| run(&mut map, &Command::from_args(args));
        say(&[b"SET", b"plain", b"\r\n\0"]);
        say(&[b"SET", b"short-lived", b"v", b"PX", b"90"]);
        say(&[b"SET", b"large", &vec![b'v'; limits::VALUE_BYTES_MAX - 100]]);
        for number in 0..2 * PARTS_MAX + 10 {
            let part = format!("part{number}");
            say(&[b"HSET", b"hash", part.as_bytes(), &[b'v'; 3_000]]);
            say(&[b"SADD", b"set", part.as_bytes()]);
        }
        say(&[b"PEXPIREAT", b"set", b"77"]);
        let mut frozen = map.freeze();
        let chunks = std::iter::from_fn(|| frozen.next_chunk(limits::SNAPSHOT_PIECE_BYTES));
        let loaded = Map::from_chunks(chunks).expect("whole");
        assert_eq!(loaded.digest(), map.digest());

        let mut again = Map::new();
        let mut commands = 0;
        for command in loaded.commands() {
            commands += 1;
            run(&mut again, &command);
            run(&mut again, &command);
        }
        again.apply(Index(1), &stamped(UnixMs(5), b""), Wanted::No);
        assert_eq!(again.digest(), map.digest());
        assert!(commands > 10, "a hash of several megabytes is many commands, not {commands}");
        assert!(Map::from_chunks([Bytes::from_static(b"\0\0")]).is_err());
    }
}
