//! What clients ask, and what they make of the answers.

use std::ops::Range;

use fastrand::Rng;
use smallvec::{SmallVec, smallvec};

use crate::id::GroupId;
use crate::store::slot;
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, put_decimal};

use super::appends;
use super::history::{Act, Answer};
use super::options::Options;

/// One command and what it does to which keys.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) command: Command,
    /// None of a command on keys that expire.
    pub(super) acts: Acts,
}

/// What a command does, by key: mostly one thing.
pub(super) type Acts = SmallVec<[(usize, Act); 1]>;

/// The results of a command's acts, in their order.
pub(super) type Answers = SmallVec<[Answer; 1]>;

impl Call {
    /// It may be sent in a session: it is a write, and no transaction.
    pub(super) fn is_for_sessions(&self) -> bool {
        match self.acts[..] {
            [] => !matches!(self.command.name(), b"PTTL" | b"EXEC"),
            ref acts => acts.iter().any(|(_, act)| *act != Act::Get),
        }
    }
}

/// What a reply says about each act of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// All were executed, with these results.
    Done(Answers),
    /// None was and none will be.
    NotExecuted,
    /// Who knows.
    Unknown,
}

/// Operations of unknown outcome on one key before clients leave it alone. Each doubles what the
/// checker must consider; six and those still under way it copes with in no time.
const UNKNOWN_MAX: u32 = 6;

/// Keys, and values nobody has written before.
#[derive(Debug)]
pub(super) struct Workload {
    /// Every key there ever was.
    keys: Vec<Key>,
    /// Those in use.
    used: Vec<usize>,
    groups: u64,
    value_bytes_max: usize,
    written: u64,
    /// Clients are divided among so many parts of the keys.
    parts: usize,
    writes_percent: u32,
    /// One of each group.
    expiring: Vec<Vec<u8>>,
    expiring_percent: u32,
    /// Of the keys in use so many are called at a time, and the next ones after so many microseconds.
    busy: (usize, u64),
}

/// Clients that may call on one key: the checker's work grows with what is under way at once.
const CLIENTS_PER_KEY_MAX: usize = 8;

#[derive(Debug)]
struct Key {
    name: Vec<u8>,
    group: GroupId,
    /// Holds a number, so that `INCR` works.
    counts: bool,
    /// Holds a list that only grows, of elements that are written once.
    grows: bool,
    /// The last value some client tried to write, for `IFEQ`.
    guess: Vec<u8>,
    /// Operations of unknown outcome.
    unknown: u32,
}

impl Workload {
    /// As many keys per group as the options say: of several, the first is a counter; of three, one is a
    /// list.
    pub(super) fn new(options: &Options) -> Self {
        let mut it = Self {
            keys: Vec::new(),
            used: Vec::new(),
            groups: options.groups,
            value_bytes_max: options.value_bytes_max,
            written: 0,
            parts: options.clients.div_ceil(CLIENTS_PER_KEY_MAX).max(1),
            writes_percent: options.writes_percent,
            expiring: Vec::new(),
            expiring_percent: options.expiring_percent,
            busy: (options.busy_groups as usize * options.keys_per_group, 1_000 * options.busy_ms),
        };
        for group in 0..options.groups {
            for place in 0..options.keys_per_group {
                let counts = place == 0 && options.keys_per_group > 1;
                let grows = place == 1 && options.keys_per_group > 2;
                let key = it.add(GroupId(group), counts, grows);
                it.used.push(key);
            }
        }
        it.parts = it.parts.min(it.used.len());
        if options.expiring_percent > 0 {
            it.expiring = (0..it.groups).map(|group| it.name_in(b'e', 0, GroupId(group))).collect();
        }
        it
    }

    /// A name that falls into `group`.
    fn name_in(&self, mark: u8, number: u64, group: GroupId) -> Vec<u8> {
        let mut name = numbered(mark, number);
        name.push(b'.');
        let stem = name.len();
        for number in 0.. {
            name.truncate(stem);
            put_decimal(&mut name, number);
            if slot::slot_group(slot::key_slot(&name), self.groups) == group {
                break;
            }
        }
        name
    }

    /// A new key of `group`.
    fn add(&mut self, group: GroupId, counts: bool, grows: bool) -> usize {
        let key = self.keys.len();
        let name = self.name_in(b'k', key as u64, group);
        self.keys.push(Key { name, group, counts, grows, guess: Vec::new(), unknown: 0 });
        key
    }

    /// The outcome of an operation on `key` will stay unknown.
    pub(super) fn on_unknown(&mut self, key: usize) {
        if self.keys[key].grows {
            // They cost the checker of lists nothing.
            return;
        }
        self.keys[key].unknown += 1;
        if self.keys[key].unknown == UNKNOWN_MAX {
            let next = self.add(self.keys[key].group, self.keys[key].counts, false);
            let used = self.used.iter_mut().find(|used| **used == key);
            *used.expect("a key is left once") = next;
        }
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn name(&self, key: usize) -> String {
        let Key { name, group, .. } = &self.keys[key];
        format!("{} of group {group}", String::from_utf8_lossy(name))
    }

    /// Whether a key holds a list that only grows.
    pub(super) fn grows(&self, key: usize) -> bool {
        self.keys[key].grows
    }

    pub(super) fn group(&self, key: usize) -> GroupId {
        self.keys[key].group
    }

    /// A key of `group` in use.
    pub(super) fn key_of(&self, group: u64) -> usize {
        let mut used = self.used.iter().copied();
        let found = used.rfind(|&key| self.keys[key].group == GroupId(group));
        found.expect("every group has keys")
    }

    /// Which of the keys in use are called now.
    fn busy(&self, now: u64) -> Range<usize> {
        let (count, period) = self.busy;
        let all = self.used.len();
        if count == 0 || all < 2 * count {
            return 0..all;
        }
        let windows = all / count;
        let start = (now / period) as usize % windows * count;
        start..start + count
    }

    /// Whatever a client feels like.
    pub(super) fn next(
        &mut self,
        client: usize,
        reads_only: bool,
        now: u64,
        rng: &mut Rng,
    ) -> Call {
        let part = client % self.parts;
        let busy = self.busy(now);
        let count = (busy.len() - part).div_ceil(self.parts);
        let any =
            |it: &Self, rng: &mut Rng| it.used[busy.start + rng.usize(..count) * it.parts + part];
        let key = any(self, rng);
        if reads_only {
            return self.get(key);
        }
        if chance(self.expiring_percent, rng) {
            return self.expiring(rng);
        }
        if chance(self.writes_percent, rng) {
            return self.set(key, rng);
        }
        if self.keys[key].counts {
            return match rng.u32(..10) {
                0..5 => self.call([(key, Act::Incr)]),
                5..9 => self.get(key),
                _ => self.call([(key, Act::Del)]),
            };
        }
        if self.keys[key].grows {
            return if rng.bool() { self.set(key, rng) } else { self.get(key) };
        }
        match rng.u32(..20) {
            0..6 => self.set(key, rng),
            6..12 => self.get(key),
            12..15 => {
                let tail = self.value(rng);
                self.call([(key, Act::Append(tail))])
            }
            15..17 => {
                let (old, new) = (self.keys[key].guess.clone(), self.value(rng));
                self.call([(key, Act::Cas { old, new })])
            }
            17 => self.call([(key, Act::Del)]),
            18 => {
                let mut acts: Acts = smallvec![(key, Act::Get)];
                for _ in 0..rng.usize(1..=3) {
                    let other = any(self, rng);
                    if acts.iter().all(|(key, _)| *key != other) {
                        acts.push((other, Act::Get));
                    }
                }
                self.call(acts)
            }
            _ => {
                let mut acts = Acts::new();
                for _ in 0..rng.usize(2..=3) {
                    let other = any(self, rng);
                    let takes_text = !self.keys[other].counts && !self.keys[other].grows;
                    if takes_text && acts.iter().all(|(key, _)| *key != other) {
                        acts.push((other, Act::Set(self.value(rng))));
                    }
                }
                if acts.is_empty() { self.get(key) } else { self.call(acts) }
            }
        }
    }

    /// Something with a key that expires.
    fn expiring(&mut self, rng: &mut Rng) -> Call {
        let key = &self.expiring[rng.usize(..self.expiring.len())][..];
        let ms = rng.u64(1..2_000).to_string();
        let ms = ms.as_bytes();
        let command = match rng.u32(..12) {
            0..3 => Command::from_args(&[b"SET", key, b"v", b"PX", ms]),
            3 => Command::from_args(&[b"SET", key, b"w", b"NX", b"PX", ms]),
            4 => Command::from_args(&[b"SET", key, b"x", b"KEEPTTL"]),
            5 => Command::from_args(&[b"APPEND", key, b"+"]),
            6 => Command::from_args(&[b"PEXPIRE", key, ms, b"LT"]),
            7 => Command::from_args(&[b"GETEX", key, b"PX", ms]),
            8 => Command::from_args(&[b"PERSIST", key]),
            9 => {
                // As a connection puts it together; what it watches is as it should be, or not.
                let slot = slot::key_slot(key).to_string();
                let inner = Command::from_args(&[b"SET", key, b"t", b"PX", ms]).raw;
                let append = Command::from_args(&[b"APPEND", key, b"u"]).raw;
                let guess = [b"0", b"1"][rng.usize(..2)];
                let watched = [&b"1"[..], key, guess];
                let mut args = vec![&b"EXEC"[..], slot.as_bytes()];
                let none = [&b"0"[..]];
                args.extend(if rng.bool() { &watched[..] } else { &none });
                args.extend([&inner[..], &append]);
                Command::from_args(&args)
            }
            _ => Command::from_args(&[b"PTTL", key]),
        };
        Call { command, acts: Acts::new() }
    }

    pub(super) fn get(&mut self, key: usize) -> Call {
        self.call([(key, Act::Get)])
    }

    /// A write of a key: `SET`, or what does not spoil the counter or the list.
    pub(super) fn set(&mut self, key: usize, rng: &mut Rng) -> Call {
        if self.keys[key].grows {
            self.written += 1;
            let mut element = Vec::with_capacity(ROOM);
            put_decimal(&mut element, self.written);
            element.push(appends::END);
            return self.call([(key, Act::Append(element))]);
        }
        let act = if self.keys[key].counts { Act::Incr } else { Act::Set(self.value(rng)) };
        self.call([(key, act)])
    }

    fn value(&mut self, rng: &mut Rng) -> Vec<u8> {
        self.written += 1;
        let mut value = numbered(b'v', self.written);
        if rng.u32(..8) == 0 {
            let bytes = rng.usize(..=self.value_bytes_max);
            value.resize(bytes.max(value.len()), b'.');
        }
        value
    }

    fn call(&mut self, acts: impl Into<Acts>) -> Call {
        let acts = acts.into();
        let name = |key: &usize| self.keys[*key].name.as_slice();
        let command = match &acts[..] {
            [(key, act)] => match act {
                Act::Get => Command::from_args(&[b"GET", name(key)]),
                Act::Set(value) => Command::from_args(&[b"SET", name(key), value]),
                Act::Cas { old, new } => {
                    Command::from_args(&[b"SET", name(key), new, b"IFEQ", old])
                }
                Act::Append(value) => Command::from_args(&[b"APPEND", name(key), value]),
                Act::Incr => Command::from_args(&[b"INCR", name(key)]),
                Act::Del => Command::from_args(&[b"DEL", name(key)]),
            },
            many if many.iter().all(|(_, act)| *act == Act::Get) => {
                let mut args: Vec<&[u8]> = vec![b"MGET"];
                args.extend(many.iter().map(|(key, _)| name(key)));
                Command::from_args(&args)
            }
            many => {
                let mut args: Vec<&[u8]> = vec![b"MSET"];
                for (key, act) in many {
                    let Act::Set(value) = act else {
                        unreachable!("only MSET and MGET have many keys")
                    };
                    args.extend([name(key), value]);
                }
                Command::from_args(&args)
            }
        };
        for (key, act) in &acts {
            if let Act::Set(value) | Act::Cas { new: value, .. } = act {
                self.keys[*key].guess.clone_from(value);
            }
        }
        Call { command, acts }
    }
}

/// Room for a number and what stands around it.
const ROOM: usize = 24;

fn numbered(mark: u8, number: u64) -> Vec<u8> {
    let mut name = Vec::with_capacity(ROOM);
    name.push(mark);
    put_decimal(&mut name, number);
    name
}

/// A coin that shows "yes" so often in a hundred; not thrown if it never does.
fn chance(percent: u32, rng: &mut Rng) -> bool {
    percent > 0 && rng.u32(..100) < percent
}

/// What `reply` says about acts of these kinds.
///
/// # Errors
/// If it is no possible answer to them.
pub(super) fn hear(acts: &[Act], reply: &Reply) -> Result<Heard, String> {
    let impossible = || Err(format!("{reply:?} is no answer to {acts:?}"));
    if reply.is_error() {
        // The contract: every error but this one means "not executed" (docs/commands.md).
        return Ok(if reply.is_uncertain() { Heard::Unknown } else { Heard::NotExecuted });
    }
    let answer = match (acts, reply) {
        ([], _) => return Ok(Heard::Done(Answers::new())),
        ([Act::Get], Reply::Bulk(value)) => Answer::Value(Some(value.to_vec())),
        ([Act::Get | Act::Cas { .. }], Reply::Nil) => Answer::Value(None),
        ([Act::Append(_) | Act::Incr | Act::Del], Reply::Int(number)) => Answer::Int(*number),
        ([Act::Set(_) | Act::Cas { .. }], Reply::Ok) => Answer::Ok,
        (acts, Reply::Ok) if acts.iter().all(|act| matches!(act, Act::Set(_))) => {
            return Ok(Heard::Done(smallvec![Answer::Ok; acts.len()]));
        }
        (acts, Reply::Array(values)) if acts.len() == values.len() && acts.len() > 1 => {
            let values = values.iter().map(|value| match value {
                Reply::Bulk(value) => Ok(Answer::Value(Some(value.to_vec()))),
                Reply::Nil => Ok(Answer::Value(None)),
                other => Err(format!("{other:?} is no value")),
            });
            return values.collect::<Result<_, _>>().map(Heard::Done);
        }
        _ => return impossible(),
    };
    Ok(Heard::Done(smallvec![answer]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_groups_are_busy_and_all_have_their_turn() {
        let options = Options::lasting(1);
        let workload = Workload::new(&options);
        let period = 1_000 * options.busy_ms;
        let mut seen = Vec::new();
        for now in (0..64 * period).step_by(period as usize) {
            let busy = workload.busy(now);
            assert_eq!(busy, workload.busy(now + period - 1));
            let groups = workload.used[busy].iter().map(|key| workload.keys[*key].group);
            let groups: std::collections::BTreeSet<_> = groups.collect();
            assert_eq!(groups.len() as u64, options.busy_groups);
            seen.extend(groups);
        }
        seen.sort_unstable();
        seen.dedup();
        let windows = options.groups / options.busy_groups;
        assert_eq!(seen.len() as u64, windows * options.busy_groups);

        let all = Workload::new(&Options { busy_groups: 0, ..options });
        assert_eq!(all.busy(0).len(), all.used.len());
    }
}
