//! Everything one writer did to its keys, and the check against what the nodes return.
//!
//! ```text
//! w3:s:17   set once       its own value         w3:c:0   counter    INCR
//! w3:r:1    overwritten    attempt number        w3:l:1   list       APPEND of eight digits
//! ```

use std::collections::BTreeMap;

use fastrand::Rng;

use super::resp::Reply;
use super::subject::{Counter, Fate, Finding, List, Once, Register, Wrong};

/// Keys of each repeated kind that one writer has.
const REPEATED: usize = 2;
/// Digits of one element of a list.
const ELEMENT_BYTES: usize = 8;
/// First words of errors after which a command was not and will not be executed (docs/commands.md).
const REFUSALS: [&str; 12] = [
    "ERR",
    "WRONGTYPE",
    "MOVED",
    "CLUSTERDOWN",
    "NOLEADER",
    "BUSY",
    "FULL",
    "LOADING",
    "NOAUTH",
    "NOPERM",
    "CROSSSLOT",
    "EXECABORT",
];

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Set once.
    Once(usize),
    /// Overwritten.
    Register(usize),
    /// Appended to.
    List(usize),
    /// Incremented.
    Counter(usize),
}

/// One command on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `SET` of a key that is set once.
    Set {
        /// Its number.
        once: usize,
    },
    /// `MSET` of two such keys.
    SetTwo {
        /// The number of the first; the second follows.
        first: usize,
    },
    /// `SET … GET` of a register.
    Overwrite {
        /// Which.
        register: usize,
        /// The value.
        attempt: u32,
    },
    /// `APPEND` to a list.
    Append {
        /// Which.
        list: usize,
        /// The element.
        attempt: u32,
    },
    /// `INCR` of a counter.
    Increment {
        /// Which.
        counter: usize,
    },
}

impl Operation {
    /// Keys written: an MSET may be executed in one group and not in another.
    fn writes(self) -> u64 {
        if matches!(self, Self::SetTwo { .. }) { 2 } else { 1 }
    }
}

/// Counted, never estimated, in keys written.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Answered with anything but an error.
    pub acknowledged: u64,
    /// Not answered, or with `UNCERTAIN`.
    pub unknown: u64,
    /// Those of them that were answered UNCERTAIN, by the reason given; the others' connection
    /// ended first.
    pub uncertain: BTreeMap<String, u64>,
    /// Unknown ones that a check found executed.
    pub unknown_executed: u64,
    /// By the error's first word.
    pub refused: BTreeMap<String, u64>,
    /// Acknowledged writes held against what a node returned, each counted once.
    pub checked: u64,
    /// Values compared, over all checks.
    pub values: u64,
}

impl Counts {
    /// Sums.
    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.unknown_executed += other.unknown_executed;
        self.checked += other.checked;
        self.values += other.values;
        for (word, count) in &other.refused {
            *self.refused.entry(word.clone()).or_default() += count;
        }
        for (reason, count) in &other.uncertain {
            *self.uncertain.entry(reason.clone()).or_default() += count;
        }
    }
}

/// One per writer and cluster.
#[derive(Debug)]
pub struct Ledger {
    writer: usize,
    /// Digits of a register's value, with leading zeros: large values make a long log.
    digits: usize,
    once: Vec<Once>,
    /// Keys made in place of another, in the same group: the other's name is their hash tag.
    in_place_of: BTreeMap<usize, usize>,
    registers: [Register; REPEATED],
    lists: [List; REPEATED],
    counters: [Counter; REPEATED],
    /// Acknowledged writes no check has compared yet, by kind of key and number.
    due: BTreeMap<(u8, usize), u64>,
    /// What the first node asked in this check returned for a repeated key.
    read: BTreeMap<(u8, usize), Option<Vec<u8>>>,
    /// What was written and checked so far; the owner may take it.
    pub counts: Counts,
    /// What was wrong so far; the owner may take it.
    pub findings: Vec<Finding>,
}

impl Ledger {
    /// A ledger of small values. Writers have different numbers.
    pub fn new(writer: usize) -> Self {
        Self {
            writer,
            digits: 0,
            once: Vec::new(),
            in_place_of: BTreeMap::new(),
            registers: Default::default(),
            lists: Default::default(),
            counters: Default::default(),
            due: BTreeMap::new(),
            read: BTreeMap::new(),
            counts: Counts::default(),
            findings: Vec::new(),
        }
    }

    /// A ledger whose registers hold values of so many bytes.
    pub fn with_large_registers(writer: usize, bytes: usize) -> Self {
        Self { digits: bytes, ..Self::new(writer) }
    }

    /// The next value of a register. It counts as of unknown outcome until answered.
    pub fn overwrite(&mut self, random: &mut Rng) -> Operation {
        let register = random.usize(..REPEATED);
        self.counts.unknown += 1;
        Operation::Overwrite { register, attempt: self.registers[register].issue() }
    }

    /// The next attempt at what was refused or is of unknown outcome, in the same groups: on the same
    /// key, or on one of its own if a key is set once. It counts as of unknown outcome until answered.
    pub fn issue_again(&mut self, operation: Operation, node: u8) -> Operation {
        self.counts.unknown += operation.writes();
        match operation {
            Operation::Set { once } => Operation::Set { once: self.once_more(once, node) },
            Operation::SetTwo { first } => {
                let again = self.once_more(first, node);
                self.once_more(first + 1, node);
                Operation::SetTwo { first: again }
            }
            Operation::Overwrite { register, .. } => {
                Operation::Overwrite { register, attempt: self.registers[register].issue() }
            }
            Operation::Append { list, .. } => {
                Operation::Append { list, attempt: self.lists[list].issue() }
            }
            Operation::Increment { counter } => {
                self.counters[counter].issue();
                operation
            }
        }
    }

    fn once_more(&mut self, once: usize, node: u8) -> usize {
        let root = self.in_place_of.get(&once).copied().unwrap_or(once);
        self.once.push(Once::new(node));
        self.in_place_of.insert(self.once.len() - 1, root);
        self.once.len() - 1
    }

    /// Up to `most` commands for one pipeline to `node`, no two of them on one key. They count as
    /// of unknown outcome until answered.
    pub fn issue(&mut self, most: usize, node: u8, random: &mut Rng) -> Vec<Operation> {
        let mut operations = Vec::new();
        let mut taken = [[false; REPEATED]; 3];
        for _ in 0..most {
            let place = random.usize(..REPEATED);
            let kind = random.usize(..8);
            if let Some(taken) = taken.get_mut(kind)
                && std::mem::replace(&mut taken[place], true)
            {
                continue;
            }
            operations.push(match kind {
                0 => {
                    let attempt = self.registers[place].issue();
                    Operation::Overwrite { register: place, attempt }
                }
                1 => Operation::Append { list: place, attempt: self.lists[place].issue() },
                2 => {
                    self.counters[place].issue();
                    Operation::Increment { counter: place }
                }
                3 => {
                    self.once.extend([Once::new(node); 2]);
                    Operation::SetTwo { first: self.once.len() - 2 }
                }
                _ => {
                    self.once.push(Once::new(node));
                    Operation::Set { once: self.once.len() - 1 }
                }
            });
        }
        self.counts.unknown += operations.iter().map(|operation| operation.writes()).sum::<u64>();
        operations
    }

    /// The operation as a command.
    pub fn command(&self, operation: Operation) -> Vec<String> {
        let name = |key| self.name(key);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match operation {
            Operation::Set { once } => words(&["SET", &name(Key::Once(once)), &self.value(once)]),
            Operation::SetTwo { first: a } => {
                let (one, two) = (name(Key::Once(a)), name(Key::Once(a + 1)));
                words(&["MSET", &one, &self.value(a), &two, &self.value(a + 1)])
            }
            Operation::Overwrite { register, attempt } => {
                let number = attempt.to_string();
                let value = "0".repeat(self.digits.saturating_sub(number.len())) + &number;
                words(&["SET", &name(Key::Register(register)), &value, "GET"])
            }
            Operation::Append { list, attempt } => {
                words(&["APPEND", &name(Key::List(list)), &format!("{attempt:0ELEMENT_BYTES$}")])
            }
            Operation::Increment { counter } => words(&["INCR", &name(Key::Counter(counter))]),
        }
    }

    /// The key as the nodes know it.
    pub fn name(&self, key: Key) -> String {
        let writer = self.writer;
        match key {
            Key::Once(n) => match self.in_place_of.get(&n) {
                Some(root) => format!("w{writer}:s:{n}{{w{writer}:s:{root}}}"),
                None => format!("w{writer}:s:{n}"),
            },
            Key::Register(n) => format!("w{writer}:r:{n}"),
            Key::List(n) => format!("w{writer}:l:{n}"),
            Key::Counter(n) => format!("w{writer}:c:{n}"),
        }
    }

    /// A value nobody else writes, of various sizes.
    fn value(&self, once: usize) -> String {
        format!("w{}.{once}.{}", self.writer, "x".repeat(once * 37 % 400))
    }

    /// A node answered; an answer says more than its first word, and that is checked too.
    pub fn on_answer(&mut self, operation: Operation, reply: &Reply) {
        let fate = match reply {
            Reply::Error(text) => {
                let word = text.split(' ').next().unwrap_or_default();
                if REFUSALS.contains(&word) {
                    *self.counts.refused.entry(word.to_owned()).or_default() += operation.writes();
                    self.counts.unknown -= operation.writes();
                    Fate::Refused
                } else {
                    if word == "UNCERTAIN" {
                        let reason =
                            text.split([';', '(']).next().unwrap_or_default().trim().to_owned();
                        *self.counts.uncertain.entry(reason).or_default() += operation.writes();
                    } else {
                        let what =
                            format!("{operation:?} is answered {text:?}, no documented error");
                        self.findings.push(Finding::new(Wrong::Alien, what));
                    }
                    Fate::Unknown
                }
            }
            _ => {
                self.counts.acknowledged += operation.writes();
                self.counts.unknown -= operation.writes();
                Fate::Acknowledged
            }
        };
        let found = self.tell(operation, fate, reply);
        self.report(self.key_of(operation), "the answer", found);
    }

    /// Hands the fate to the key; what is wrong with the answer's content.
    fn tell(&mut self, operation: Operation, fate: Fate, reply: &Reply) -> Vec<Finding> {
        let acknowledged = fate == Fate::Acknowledged;
        if acknowledged {
            *self.due.entry(place_of(self.key_of(operation))).or_default() += 1;
            if let Operation::SetTwo { first } = operation {
                self.due.insert(place_of(Key::Once(first + 1)), 1);
            }
        }
        let alien = || vec![Finding::new(Wrong::Alien, format!("answered {reply:?}"))];
        match operation {
            Operation::Set { once } => self.once[once].fate = fate,
            Operation::SetTwo { first } => {
                self.once[first].fate = fate;
                self.once[first + 1].fate = fate;
            }
            Operation::Overwrite { register, attempt } => {
                let register = &mut self.registers[register];
                // It returned what was there before, without this attempt.
                register.on_answer(attempt, if acknowledged { Fate::Refused } else { fate });
                let found = match reply {
                    _ if !acknowledged => Vec::new(),
                    Reply::Bulk(value) => match number(value.as_deref()) {
                        Ok(value) => register.judge(value),
                        Err(found) => found,
                    },
                    _ => alien(),
                };
                register.on_answer(attempt, fate);
                return found;
            }
            Operation::Append { list, attempt } => {
                let list = &mut self.lists[list];
                list.on_answer(attempt, fate);
                return match reply {
                    _ if !acknowledged => Vec::new(),
                    Reply::Integer(bytes) => {
                        judge_length(&list.length(), *bytes).into_iter().collect()
                    }
                    _ => alien(),
                };
            }
            Operation::Increment { counter } => {
                let counter = &mut self.counters[counter];
                counter.on_answer(fate);
                return match reply {
                    _ if !acknowledged => Vec::new(),
                    Reply::Integer(value) => {
                        u64::try_from(*value).map_or_else(|_| alien(), |value| counter.judge(value))
                    }
                    _ => alien(),
                };
            }
        }
        if acknowledged && *reply != Reply::Simple("OK".into()) { alien() } else { Vec::new() }
    }

    fn key_of(&self, operation: Operation) -> Key {
        match operation {
            Operation::Set { once } | Operation::SetTwo { first: once } => Key::Once(once),
            Operation::Overwrite { register, .. } => Key::Register(register),
            Operation::Append { list, .. } => Key::List(list),
            Operation::Increment { counter } => Key::Counter(counter),
        }
    }

    fn report(&mut self, key: Key, through: &str, found: Vec<Finding>) {
        let name = self.name(key);
        self.findings.extend(found.into_iter().map(|finding| Finding {
            what: format!("{name} ({through}): {}", finding.what),
            ..finding
        }));
    }

    /// Every key, the repeated ones last.
    pub fn keys(&self) -> Vec<Key> {
        let repeated = |n| [Key::Register(n), Key::List(n), Key::Counter(n)];
        (0..self.once.len()).map(Key::Once).chain((0..REPEATED).flat_map(repeated)).collect()
    }

    /// A key to read while its writer waits for nothing; the repeated ones change all the time.
    pub fn any_key(&self, random: &mut Rng) -> Key {
        let n = random.usize(..REPEATED);
        match random.u8(..4) {
            0 => Key::Register(n),
            1 => Key::List(n),
            2 => Key::Counter(n),
            _ if self.once.is_empty() => Key::Counter(n),
            _ => Key::Once(random.usize(..self.once.len())),
        }
    }

    /// A key like this, if nothing is the wrong answer for it.
    pub fn known_key(&self, random: &mut Rng) -> Option<Key> {
        Some(self.any_key(random)).filter(|key| !self.held(*key, None).is_empty())
    }

    /// A node returned this for a key of which no attempt is on its way, before a check.
    /// What is unknown stays unknown.
    pub fn on_look(&mut self, key: Key, node: u8, value: Option<&[u8]>) {
        self.counts.values += 1;
        let found = self.held(key, value);
        self.report(key, &format!("read through node {node} before the check"), found);
    }

    /// What to read in a check: keys set once through a node that was not asked to write them,
    /// all others through every node.
    pub fn reads(&self, nodes: u8, random: &mut Rng) -> BTreeMap<u8, Vec<Key>> {
        let mut reads: BTreeMap<u8, Vec<Key>> = BTreeMap::new();
        for (n, once) in self.once.iter().enumerate() {
            let others = nodes.max(2) - 1;
            let node = (once.node - 1 + 1 + random.u8(..others)) % nodes + 1;
            reads.entry(node).or_default().push(Key::Once(n));
        }
        for node in 1..=nodes {
            let keys = reads.entry(node).or_default();
            for n in 0..REPEATED {
                keys.extend([Key::Register(n), Key::List(n), Key::Counter(n)]);
            }
        }
        reads
    }

    /// A node returned this for a key, while nobody writes.
    pub fn on_read(&mut self, key: Key, node: u8, value: Option<&[u8]>) {
        self.counts.values += 1;
        self.counts.checked += self.due.remove(&place_of(key)).unwrap_or(0);
        let mut found = Vec::new();
        if !matches!(key, Key::Once(_)) {
            match self.read.get(&place_of(key)) {
                // What was judged already is not counted again.
                Some(first) if first.as_deref() == value => return,
                Some(_) => {
                    let what = "another node returned another value";
                    found.push(Finding::new(Wrong::Disagreement, what));
                }
                None => drop(self.read.insert(place_of(key), value.map(<[u8]>::to_vec))),
            }
        }
        found.extend(self.judge(key, value));
        self.report(key, &format!("read through node {node}"), found);
    }

    fn judge(&mut self, key: Key, value: Option<&[u8]>) -> Vec<Finding> {
        let found = self.held(key, value);
        if let Key::Once(n) = key {
            if self.once[n].is_news() && value.is_some() {
                self.counts.unknown_executed += 1;
            }
            self.once[n].settle(value.is_some());
        }
        found
    }

    /// The value held against what may be there.
    fn held(&self, key: Key, value: Option<&[u8]>) -> Vec<Finding> {
        match key {
            Key::Once(n) => self.once[n].judge(value, self.value(n).as_bytes()),
            Key::Register(n) => number(value).map_or_else(|f| f, |v| self.registers[n].judge(v)),
            Key::List(n) => elements(value).map_or_else(|f| f, |v| self.lists[n].judge(&v)),
            Key::Counter(n) => {
                let judge = |v: Option<u32>| self.counters[n].judge(v.unwrap_or(0).into());
                number(value).map_or_else(|found| found, judge)
            }
        }
    }

    /// The check is over: what was read is what happened. Returns acknowledged writes that no
    /// read covered; there must be none.
    pub fn settle(&mut self) -> u64 {
        for ((kind, n), value) in std::mem::take(&mut self.read) {
            let value = value.as_deref();
            self.counts.unknown_executed += match kind {
                1 => {
                    self.registers[n].settle(number(value).unwrap_or(None));
                    0
                }
                2 => self.lists[n].settle(elements(value).unwrap_or_default()),
                _ => self.counters[n].settle(number(value).unwrap_or(None).unwrap_or(0).into()),
            };
        }
        self.due.values().sum()
    }
}

fn place_of(key: Key) -> (u8, usize) {
    match key {
        Key::Once(n) => (0, n),
        Key::Register(n) => (1, n),
        Key::List(n) => (2, n),
        Key::Counter(n) => (3, n),
    }
}

fn number(value: Option<&[u8]>) -> Result<Option<u32>, Vec<Finding>> {
    let Some(bytes) = value else { return Ok(None) };
    let number = str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| {
        let text = String::from_utf8_lossy(bytes);
        vec![Finding::new(Wrong::Alien, format!("holds {text:?}, no number"))]
    })
}

fn elements(value: Option<&[u8]>) -> Result<Vec<u32>, Vec<Finding>> {
    let mut elements = Vec::new();
    for piece in value.unwrap_or_default().chunks(ELEMENT_BYTES) {
        if piece.len() != ELEMENT_BYTES {
            return Err(vec![Finding::new(Wrong::Alien, "ends in half an element")]);
        }
        elements.extend(number(Some(piece))?);
    }
    Ok(elements)
}

/// The length an APPEND returned, against how many elements there may be.
fn judge_length(may_be: &std::ops::RangeInclusive<u64>, bytes: i64) -> Option<Finding> {
    let length = bytes as u64 / ELEMENT_BYTES as u64;
    let whole = bytes >= 0 && (bytes as u64).is_multiple_of(ELEMENT_BYTES as u64);
    let wrong = if !whole {
        Wrong::Alien
    } else if length < *may_be.start() {
        Wrong::Lost
    } else if length <= *may_be.end() {
        return None;
    } else {
        Wrong::Duplicated
    };
    Some(Finding::new(wrong, format!("APPEND returned {bytes} bytes; elements: {may_be:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that executes what it is told, and can be told to cheat.
    #[derive(Default)]
    struct Store(BTreeMap<String, String>);

    impl Store {
        fn execute(&mut self, command: &[String]) -> Reply {
            let old = self.0.get(&command[1]).cloned();
            match command[0].as_str() {
                "MSET" => {
                    for pair in command[1..].chunks(2) {
                        self.0.insert(pair[0].clone(), pair[1].clone());
                    }
                    Reply::Simple("OK".into())
                }
                "SET" => {
                    self.0.insert(command[1].clone(), command[2].clone());
                    match command.get(3) {
                        Some(_) => Reply::Bulk(old.map(String::into_bytes)),
                        None => Reply::Simple("OK".into()),
                    }
                }
                "APPEND" => {
                    let value = old.unwrap_or_default() + &command[2];
                    self.0.insert(command[1].clone(), value.clone());
                    Reply::Integer(value.len() as i64)
                }
                _ => {
                    let value = old.map_or(0, |old| old.parse().expect("a number")) + 1;
                    self.0.insert(command[1].clone(), value.to_string());
                    Reply::Integer(value)
                }
            }
        }
    }

    fn refusal() -> Reply {
        Reply::Error("NOLEADER group 1 has no leader right now".into())
    }

    /// Runs some hundred commands, of which each eighth is refused and each eighth lost its
    /// answer, and hands each to `node`, which says whether it executes it.
    fn run(ledger: &mut Ledger, store: &mut Store, random: &mut Rng) {
        for round in 0..200 {
            for operation in ledger.issue(6, 1 + round % 3, random) {
                let command = ledger.command(operation);
                match random.u8(..8) {
                    0 => ledger.on_answer(operation, &refusal()),
                    1 if random.bool() => drop(store.execute(&command)),
                    1 => {}
                    _ => {
                        let reply = store.execute(&command);
                        ledger.on_answer(operation, &reply);
                    }
                }
            }
        }
    }

    fn check(ledger: &mut Ledger, store: &Store) -> Vec<Wrong> {
        for (node, keys) in ledger.reads(3, &mut Rng::with_seed(5)) {
            for key in keys {
                if let Key::Once(n) = key {
                    assert_ne!(ledger.once[n].node, node, "read where it was written");
                }
                let value = store.0.get(&ledger.name(key)).map(String::as_bytes);
                ledger.on_read(key, node, value);
            }
        }
        assert_eq!(ledger.settle(), 0, "all acknowledged writes are compared");
        std::mem::take(&mut ledger.findings).iter().map(|finding| finding.wrong).collect()
    }

    fn world() -> (Ledger, Store, Rng) {
        let (mut ledger, mut store) = (Ledger::new(0), Store::default());
        let mut random = Rng::with_seed(1);
        run(&mut ledger, &mut store, &mut random);
        (ledger, store, random)
    }

    fn first_once(ledger: &Ledger, fate: Fate) -> usize {
        ledger.once.iter().position(|once| once.fate == fate).expect("there are many")
    }

    #[test]
    fn an_honest_node_passes_round_after_round_and_every_write_is_counted() {
        let (mut ledger, mut store, mut random) = world();
        for _ in 0..3 {
            assert_eq!(check(&mut ledger, &store), []);
            run(&mut ledger, &mut store, &mut random);
        }
        assert_eq!(check(&mut ledger, &store), []);
        let counts = &ledger.counts;
        assert_eq!(counts.checked, counts.acknowledged);
        assert!(counts.acknowledged > 1_000 && counts.refused["NOLEADER"] > 100, "{counts:?}");
        assert!(0 < counts.unknown_executed && counts.unknown_executed < counts.unknown);
    }

    #[test]
    fn a_lost_write_is_found() {
        let (mut ledger, mut store, _) = world();
        let key = ledger.name(Key::Once(first_once(&ledger, Fate::Acknowledged)));
        store.0.remove(&key);
        assert_eq!(check(&mut ledger, &store), [Wrong::Lost]);
    }

    #[test]
    fn a_write_lost_after_it_was_checked_is_found() {
        let (mut ledger, mut store, _) = world();
        assert_eq!(check(&mut ledger, &store), []);
        let key = ledger.name(Key::Once(first_once(&ledger, Fate::Acknowledged)));
        store.0.remove(&key);
        assert_eq!(check(&mut ledger, &store), [Wrong::Lost]);
    }

    #[test]
    fn a_refused_write_that_is_visible_is_found() {
        let (mut ledger, mut store, _) = world();
        let refused = first_once(&ledger, Fate::Refused);
        store.0.insert(ledger.name(Key::Once(refused)), ledger.value(refused));
        assert_eq!(check(&mut ledger, &store), [Wrong::RefusedSeen]);
    }

    #[test]
    fn an_append_executed_twice_is_found() {
        let (mut ledger, mut store, _) = world();
        let name = ledger.name(Key::List(0));
        let value = store.0[&name].clone();
        store.0.insert(name.clone(), format!("{value}{}", &value[..ELEMENT_BYTES]));
        assert_eq!(check(&mut ledger, &store), [Wrong::Duplicated], "read thrice, counted once");
        store.0.insert(name, value[ELEMENT_BYTES..].to_owned());
        assert!(check(&mut ledger, &store).contains(&Wrong::Lost));
    }

    #[test]
    fn an_increment_executed_twice_is_found_in_its_own_answer() {
        let (mut ledger, mut store) = (Ledger::new(0), Store::default());
        let increment = Operation::Increment { counter: 0 };
        for _ in 0..2 {
            ledger.counters[0].issue();
            ledger.counts.unknown += 1;
            store.execute(&ledger.command(increment));
            let reply = store.execute(&ledger.command(increment));
            ledger.on_answer(increment, &reply);
        }
        assert_eq!(ledger.findings[0].wrong, Wrong::Duplicated);
    }

    #[test]
    fn a_stale_answer_and_an_undocumented_error_are_found() {
        let mut ledger = Ledger::new(0);
        let mut random = Rng::with_seed(3);
        let operations = ledger.issue(64, 1, &mut random);
        let is_overwrite =
            |operation: &&Operation| matches!(operation, Operation::Overwrite { .. });
        let operation = *operations.iter().find(is_overwrite).expect("one of sixty-four");
        ledger.on_answer(operation, &Reply::Bulk(Some(b"99".to_vec())));
        let other = *operations.iter().find(|other| **other != operation).expect("many");
        ledger.on_answer(other, &Reply::Error("OOPS".into()));
        let wrongs: Vec<Wrong> = ledger.findings.iter().map(|finding| finding.wrong).collect();
        assert_eq!(wrongs, [Wrong::Alien, Wrong::Alien]);
    }

    #[test]
    fn a_known_key_is_one_that_cannot_be_gone() {
        let (ledger, _, mut random) = world();
        let known = (0..100).filter_map(|_| ledger.known_key(&mut random)).count();
        assert!(20 < known, "{known} of 100");
        let empty = Ledger::new(1);
        assert!((0..100).all(|_| empty.known_key(&mut random).is_none()), "nothing was written");
    }

    #[test]
    fn a_stale_read_before_a_check_is_found_and_settles_nothing() {
        let (mut ledger, store, mut random) = world();
        let look = |ledger: &mut Ledger, key: Key, store: &Store| {
            let value = store.0.get(&ledger.name(key)).map(String::as_bytes);
            ledger.on_look(key, 2, value);
        };
        for _ in 0..100 {
            let key = ledger.any_key(&mut random);
            look(&mut ledger, key, &store);
        }
        assert!(ledger.findings.is_empty(), "{:?}", ledger.findings);
        let unknown = ledger.once.iter().position(Once::is_news).expect("there are many");
        ledger.on_look(Key::Once(unknown), 2, None);
        assert!(ledger.once[unknown].is_news(), "it may still be executed");
        let key = Key::Once(first_once(&ledger, Fate::Acknowledged));
        look(&mut ledger, key, &Store::default());
        assert_eq!(ledger.findings[0].wrong, Wrong::Lost);
    }

    #[test]
    fn another_attempt_is_an_entry_of_its_own_in_the_same_group() {
        let mut ledger = Ledger::new(0);
        let mut random = Rng::with_seed(6);
        let mut store = Store::default();
        for _ in 0..200 {
            let operation = ledger.issue(1, 1, &mut random)[0];
            ledger.on_answer(operation, &refusal());
            let second = ledger.issue_again(operation, 2);
            let third = ledger.issue_again(second, 3);
            let (first, third_key) = (ledger.command(operation), ledger.command(third));
            if let Operation::Set { once } = third {
                assert_eq!(third_key[1], format!("w0:s:{once}{{{}}}", first[1]));
            } else if !matches!(third, Operation::SetTwo { .. }) {
                assert_eq!(third_key[1], first[1]);
            }
            let reply = store.execute(&ledger.command(third));
            ledger.on_answer(third, &reply);
        }
        assert_eq!(check(&mut ledger, &store), []);
        assert_eq!(ledger.counts.acknowledged, ledger.counts.checked);
        assert_eq!(ledger.counts.unknown, ledger.counts.acknowledged, "every second attempt");
    }

    #[test]
    fn a_large_register_is_a_number_all_the_same() {
        // A width in a format string ends at 65535.
        let mut ledger = Ledger::with_large_registers(0, 100_000);
        let mut random = Rng::with_seed(4);
        let mut store = Store::default();
        for _ in 0..9 {
            let operation = ledger.overwrite(&mut random);
            let command = ledger.command(operation);
            assert_eq!(command[2].len(), 100_000);
            ledger.on_answer(operation, &store.execute(&command));
        }
        assert_eq!(check(&mut ledger, &store), []);
        assert_eq!(ledger.counts.checked, 9);
    }

    #[test]
    fn nodes_that_disagree_are_found() {
        let mut ledger = Ledger::new(0);
        ledger.counters[0].issue();
        ledger.on_read(Key::Counter(0), 1, Some(b"1"));
        ledger.on_read(Key::Counter(0), 2, Some(b"1"));
        assert!(ledger.findings.is_empty());
        ledger.on_read(Key::Counter(0), 3, None);
        assert_eq!(ledger.findings[0].wrong, Wrong::Disagreement);
    }
}
