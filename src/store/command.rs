//! The command table: names, arity, where the keys are, and everything about a command that can be
//! judged before it is replicated. What passes here can be executed by every replica.

use crate::id::UnixMs;
use crate::limits;
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, integer};

use super::{acl, backup, cluster, connection, member, session, slot, slow, transaction};

/// Who runs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The connection itself; nothing is read or written.
    Connection,
    /// The groups of its keys, after the leader was confirmed.
    Read,
    /// The groups of its keys, through the log.
    Write,
    /// Every group, as a read.
    AllRead,
    /// Every group, through the log.
    AllWrite,
    /// The group its cursor names.
    Scan,
    /// This node, about itself.
    Node,
    /// Every group, or those of the keys of the command within, through the log: a client's
    /// exactly-once session.
    Session,
    /// The leaders of all groups, or of one, about the group's members.
    Member,
    /// The first group, through the log: the table of users.
    Users,
}

/// One command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Its name, in lower case.
    pub name: &'static str,
    /// How many arguments, the name included; if negative, at least so many.
    pub arity: i32,
    /// Who runs it.
    pub access: Access,
    /// The first key's argument; zero if there are none.
    pub first_key: i32,
    /// The last key's argument; -1 is the last argument.
    pub last_key: i32,
    /// How many arguments from one key to the next.
    pub key_step: i32,
    /// What it does, in one line.
    pub summary: &'static str,
}

pub(super) const fn spec(
    name: &'static str,
    arity: i32,
    access: Access,
    keys: (i32, i32, i32),
    summary: &'static str,
) -> Spec {
    let (first_key, last_key, key_step) = keys;
    Spec { name, arity, access, first_key, last_key, key_step, summary }
}

pub(super) const NO_KEYS: (i32, i32, i32) = (0, 0, 0);
const ONE_KEY: (i32, i32, i32) = (1, 1, 1);
const ALL_KEYS: (i32, i32, i32) = (1, -1, 1);
const PAIRS: (i32, i32, i32) = (1, -1, 2);

/// Every command there is, by name.
pub const COMMANDS: &[Spec] = &[
    spec("acl", -2, Access::Connection, NO_KEYS, "Shows and changes who may do what."),
    spec("append", 3, Access::Write, ONE_KEY, "Appends to the value of a key."),
    spec("auth", -2, Access::Connection, NO_KEYS, "Logs the connection in."),
    spec("backup", -3, Access::Node, NO_KEYS, "Hands out a group's data piece by piece."),
    spec(
        "client",
        -2,
        Access::Connection,
        NO_KEYS,
        "Names and describes the connection; SESSION: exactly-once writes.",
    ),
    spec("cluster", -2, Access::Node, NO_KEYS, "Tells cluster clients who leads which slots."),
    spec("command", -1, Access::Connection, NO_KEYS, "Describes the commands."),
    spec("config", -2, Access::Connection, NO_KEYS, "Reads settings."),
    spec("dbsize", 1, Access::AllRead, NO_KEYS, "Counts the keys of all groups."),
    spec("debug", -2, Access::Node, NO_KEYS, "DIGEST: a digest of the data this node has applied."),
    spec("decr", 2, Access::Write, ONE_KEY, "Subtracts one from a number."),
    spec("decrby", 3, Access::Write, ONE_KEY, "Subtracts from a number."),
    spec("del", -2, Access::Write, ALL_KEYS, "Deletes keys."),
    spec("discard", 1, Access::Connection, NO_KEYS, "Gives up a transaction."),
    spec("drain", -2, Access::Node, NO_KEYS, "Hands over what this node leads; STOP ends it then."),
    spec("echo", 2, Access::Connection, NO_KEYS, "Returns its argument."),
    spec("exec", 1, Access::Connection, NO_KEYS, "Executes a transaction, as one entry."),
    spec("exists", -2, Access::Read, ALL_KEYS, "Counts the keys that exist."),
    spec("expire", -3, Access::Write, ONE_KEY, "Lets a key expire after some seconds."),
    spec("expireat", -3, Access::Write, ONE_KEY, "Lets a key expire at a time, in seconds."),
    spec("expiretime", 2, Access::Read, ONE_KEY, "Tells when a key expires, in seconds."),
    spec("flushall", -1, Access::AllWrite, NO_KEYS, "Deletes all keys of all groups."),
    spec("flushdb", -1, Access::AllWrite, NO_KEYS, "Deletes all keys of all groups."),
    spec("get", 2, Access::Read, ONE_KEY, "Returns the value of a key."),
    spec("getdel", 2, Access::Write, ONE_KEY, "Returns the value of a key and deletes it."),
    spec("getex", -2, Access::Write, ONE_KEY, "Returns the value of a key and changes its expiry."),
    spec("getrange", 4, Access::Read, ONE_KEY, "Returns a part of the value of a key."),
    spec("getset", 3, Access::Write, ONE_KEY, "Sets a key and returns the value before."),
    spec("hdel", -3, Access::Write, ONE_KEY, "Removes fields of a hash."),
    spec("hello", -1, Access::Connection, NO_KEYS, "Switches the protocol."),
    spec("hexists", 3, Access::Read, ONE_KEY, "Tells whether a hash has a field."),
    spec("hget", 3, Access::Read, ONE_KEY, "Returns the value of a field of a hash."),
    spec("hgetall", 2, Access::Read, ONE_KEY, "Returns the fields and values of a hash."),
    spec("hincrby", 4, Access::Write, ONE_KEY, "Adds to a number in a hash."),
    spec("hkeys", 2, Access::Read, ONE_KEY, "Returns the fields of a hash."),
    spec("hlen", 2, Access::Read, ONE_KEY, "Counts the fields of a hash."),
    spec("hmget", -3, Access::Read, ONE_KEY, "Returns the values of several fields of a hash."),
    spec("hmset", -4, Access::Write, ONE_KEY, "Sets fields of a hash."),
    spec("hscan", -3, Access::Read, ONE_KEY, "Iterates over the fields of a hash."),
    spec("hset", -4, Access::Write, ONE_KEY, "Sets fields of a hash."),
    spec("hsetnx", 4, Access::Write, ONE_KEY, "Sets a field of a hash if it does not exist."),
    spec("hstrlen", 3, Access::Read, ONE_KEY, "Returns the length of a value in a hash."),
    spec("hvals", 2, Access::Read, ONE_KEY, "Returns the values of a hash."),
    spec("incr", 2, Access::Write, ONE_KEY, "Adds one to a number."),
    spec("incrby", 3, Access::Write, ONE_KEY, "Adds to a number."),
    spec("info", -1, Access::Node, NO_KEYS, "Tells about this node."),
    spec("member", -2, Access::Member, NO_KEYS, "Shows and changes who belongs to the groups."),
    spec("mget", -2, Access::Read, ALL_KEYS, "Returns the values of several keys."),
    spec("mset", -3, Access::Write, PAIRS, "Sets several keys; atomic within each group."),
    spec("msetnx", -3, Access::Write, PAIRS, "Sets several keys of one slot if none exists."),
    spec("multi", 1, Access::Connection, NO_KEYS, "Begins a transaction, on the keys of one slot."),
    spec("persist", 2, Access::Write, ONE_KEY, "Keeps a key from expiring."),
    spec("pexpire", -3, Access::Write, ONE_KEY, "Lets a key expire after some milliseconds."),
    spec("pexpireat", -3, Access::Write, ONE_KEY, "Lets a key expire at a time, in milliseconds."),
    spec("pexpiretime", 2, Access::Read, ONE_KEY, "Tells when a key expires, in milliseconds."),
    spec("ping", -1, Access::Connection, NO_KEYS, "Answers PONG, or its argument."),
    spec("psetex", 4, Access::Write, ONE_KEY, "Sets a key that expires after some milliseconds."),
    spec("pttl", 2, Access::Read, ONE_KEY, "Tells how long a key has to live, in milliseconds."),
    spec("quit", -1, Access::Connection, NO_KEYS, "Closes the connection."),
    spec("readonly", -1, Access::Connection, NO_KEYS, "Lets this node's replicas answer reads."),
    spec("readwrite", 1, Access::Connection, NO_KEYS, "Lets the leaders answer reads again."),
    spec("reset", 1, Access::Connection, NO_KEYS, "Puts the connection back to its start."),
    spec("sadd", -3, Access::Write, ONE_KEY, "Adds members to a set."),
    spec("scan", -2, Access::Scan, NO_KEYS, "Iterates over the keys."),
    spec("scard", 2, Access::Read, ONE_KEY, "Counts the members of a set."),
    spec("select", 2, Access::Connection, NO_KEYS, "Selects database 0, the only one."),
    spec("set", -3, Access::Write, ONE_KEY, "Sets a key, if its conditions hold."),
    spec("setex", 4, Access::Write, ONE_KEY, "Sets a key that expires after some seconds."),
    spec("setnx", 3, Access::Write, ONE_KEY, "Sets a key if it does not exist."),
    spec("sismember", 3, Access::Read, ONE_KEY, "Tells whether a set has a member."),
    spec("slowlog", -2, Access::Node, NO_KEYS, "Tells which operations took long, and why."),
    spec("smembers", 2, Access::Read, ONE_KEY, "Returns the members of a set."),
    spec("smismember", -3, Access::Read, ONE_KEY, "Tells whether a set has several members."),
    spec("srem", -3, Access::Write, ONE_KEY, "Removes members of a set."),
    spec("sscan", -3, Access::Read, ONE_KEY, "Iterates over the members of a set."),
    spec("strlen", 2, Access::Read, ONE_KEY, "Returns the length of a value."),
    spec("time", 1, Access::Node, NO_KEYS, "Tells this node's time."),
    spec("touch", -2, Access::Read, ALL_KEYS, "Counts the keys that exist."),
    spec("ttl", 2, Access::Read, ONE_KEY, "Tells how long a key has to live, in seconds."),
    spec("type", 2, Access::Read, ONE_KEY, "Returns the type of a value."),
    spec("unlink", -2, Access::Write, ALL_KEYS, "Deletes keys."),
    spec("unwatch", 1, Access::Connection, NO_KEYS, "Forgets the keys that are watched."),
    spec(
        "wait",
        3,
        Access::Node,
        NO_KEYS,
        "Tells how many replicas hold what was answered before.",
    ),
    spec("waitaof", 4, Access::Node, NO_KEYS, "The same, by those that have it on disk: all."),
    spec("watch", -2, Access::Read, ALL_KEYS, "Lets EXEC do nothing if these keys have changed."),
];

/// The names of [`COMMANDS`] as numbers, in their order: every lookup compares numbers, not strings.
static NAMES: [u128; COMMANDS.len()] = {
    let mut names = [0; COMMANDS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = as_number(COMMANDS[at].name.as_bytes());
        at += 1;
    }
    names
};

/// A name of up to 16 bytes as a number that sorts as the name does.
const fn as_number(name: &[u8]) -> u128 {
    assert!(name.len() <= size_of::<u128>());
    let mut bytes = [0; size_of::<u128>()];
    let mut at = 0;
    while at < name.len() {
        bytes[at] = name[at].to_ascii_lowercase();
        at += 1;
    }
    u128::from_be_bytes(bytes)
}

/// Where the commands with each initial begin, from `a` on; where those with `z` end comes last.
static INITIALS: [u8; 27] = {
    let mut starts = [0; 27];
    let mut initial = 0;
    while initial < starts.len() {
        let mut at = 0;
        while at < COMMANDS.len() && ((COMMANDS[at].name.as_bytes()[0] - b'a') as usize) < initial {
            at += 1;
        }
        starts[initial] = at as u8;
        initial += 1;
    }
    starts
};
const _: () = assert!(COMMANDS.len() <= u8::MAX as usize);

/// The command with this name, in any case. Asked for every command by every replica: a few numbers are
/// compared, those of the names with the same initial.
#[must_use]
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    position(name).map(|at| &COMMANDS[at])
}

/// Where in [`COMMANDS`] the command with this name is.
pub(super) fn position(name: &[u8]) -> Option<usize> {
    // A zero at the end would not be seen in the number; one elsewhere is in no name's.
    let (Some(initial), Some(1..)) = (name.first(), name.last()) else { return None };
    if size_of::<u128>() < name.len() {
        return None;
    }
    let initial = usize::from(initial.to_ascii_lowercase().wrapping_sub(b'a'));
    let (from, to) = (*INITIALS.get(initial)?, *INITIALS.get(initial + 1)?);
    let (from, number) = (usize::from(from), as_number(name));
    let found = NAMES[from..usize::from(to)].iter().position(|known| *known == number)?;
    Some(from + found)
}

impl Spec {
    /// Whether a command of this kind can have `len` arguments.
    #[must_use]
    pub fn takes(&self, len: usize) -> bool {
        let len = len as i32;
        if self.arity < 0 { -self.arity <= len } else { len == self.arity }
    }

    /// The argument numbers of the keys of a command with `len` arguments.
    pub fn keys(&self, len: usize) -> impl Iterator<Item = usize> + use<> {
        let last =
            if self.last_key < 0 { (len as i32 + self.last_key).max(0) } else { self.last_key };
        let (first, step) = (self.first_key, self.key_step.max(1));
        (first..=last).step_by(step as usize).filter(move |_| first > 0).map(|i| i as usize)
    }
}

/// When a key is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// So many ms after the command was taken up.
    In(i64),
    /// At this time, in ms since 1970.
    At(i64),
    /// When it was to go before, if at all.
    Keep,
    /// Never.
    Never,
}

impl Expiry {
    /// The time, if it is one; `now` is when the command was taken up.
    ///
    /// # Errors
    /// If there is no such time.
    pub fn at(self, now: UnixMs, name: &[u8]) -> Result<Option<UnixMs>, Reply> {
        let at = match self {
            Self::Keep | Self::Never => return Ok(None),
            Self::At(at) => Some(at),
            Self::In(ms) => i64::try_from(now.0).ok().and_then(|now| now.checked_add(ms)),
        };
        // What is to be gone before 1970 is to be gone.
        let at = at.ok_or_else(|| invalid_expiry(name))?;
        Ok(Some(UnixMs(u64::try_from(at).unwrap_or(0))))
    }
}

/// Redis' words for a time that is none.
fn invalid_expiry(name: &[u8]) -> Reply {
    let name = String::from_utf8_lossy(name).to_lowercase();
    Reply::error("ERR", format!("invalid expire time in '{name}' command"))
}

/// `EX seconds`, `PX ms`, `EXAT seconds` or `PXAT ms`, as it was written: the number is not read yet.
#[derive(Debug, Clone, Copy)]
struct ExpiryOption {
    /// A time, not so long from now.
    is_time: bool,
    unit_ms: i64,
    /// The argument with the number.
    at: usize,
}

impl ExpiryOption {
    /// The one at argument `at`, if there is one.
    fn find(command: &Command, at: usize) -> Option<Self> {
        let word = command.arg(at);
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let (is_time, unit_ms) = match () {
            () if is("EX") => (false, 1000),
            () if is("PX") => (false, 1),
            () if is("EXAT") => (true, 1000),
            () if is("PXAT") => (true, 1),
            () => return None,
        };
        (at + 1 < command.len()).then_some(Self { is_time, unit_ms, at: at + 1 })
    }

    /// Whether it may stand behind this one, and counts in its place: it is the same word.
    fn may_follow(self, before: Option<Self>) -> bool {
        before.is_none_or(|it| (it.is_time, it.unit_ms) == (self.is_time, self.unit_ms))
    }

    /// Its number; more than zero.
    fn read(self, command: &Command) -> Result<Expiry, Reply> {
        let ms = expiry_ms(command, self.at, self.unit_ms)?;
        if ms <= 0 {
            return Err(invalid_expiry(command.name()));
        }
        Ok(if self.is_time { Expiry::At(ms) } else { Expiry::In(ms) })
    }
}

fn expiry_ms(command: &Command, at: usize, unit_ms: i64) -> Result<i64, Reply> {
    let time = integer(command.arg(at)).ok_or_else(Reply::not_an_integer)?;
    time.checked_mul(unit_ms).ok_or_else(|| invalid_expiry(command.name()))
}

/// Reads `EXPIRE key seconds [NX | XX | GT | LT]` and its relatives.
///
/// # Errors
/// As Redis words them.
pub fn expire_options(command: &Command) -> Result<ExpireOptions, Reply> {
    let (is_time, unit_ms) = match &command.name().to_ascii_lowercase()[..] {
        b"expire" => (false, 1000),
        b"pexpire" => (false, 1),
        b"expireat" => (true, 1000),
        _ => (true, 1),
    };
    let ms = expiry_ms(command, 2, unit_ms)?;
    let mut options = ExpireOptions {
        expiry: if is_time { Expiry::At(ms) } else { Expiry::In(ms) },
        must_expire: None,
        must_be_later: None,
    };
    for word in command.args().skip(3) {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let (place, value) = match () {
            () if is("NX") => (&mut options.must_expire, false),
            () if is("XX") => (&mut options.must_expire, true),
            () if is("GT") => (&mut options.must_be_later, true),
            () if is("LT") => (&mut options.must_be_later, false),
            () => {
                let word = String::from_utf8_lossy(word).into_owned();
                return Err(Reply::error("ERR", format!("Unsupported option {word}")));
            }
        };
        if place.is_some_and(|before| before != value) {
            let which = if matches!(word.to_ascii_uppercase()[..], [b'N' | b'X', ..]) {
                "NX and XX, GT or LT"
            } else {
                "GT and LT"
            };
            return Err(not_compatible(which));
        }
        *place = Some(value);
    }
    if options.must_expire == Some(false) && options.must_be_later.is_some() {
        return Err(not_compatible("NX and XX, GT or LT"));
    }
    Ok(options)
}

fn not_compatible(which: &str) -> Reply {
    Reply::error("ERR", format!("{which} options at the same time are not compatible"))
}

/// What `EXPIRE` and its relatives are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpireOptions {
    /// When the key is to go.
    pub expiry: Expiry,
    /// `NX` or `XX`: the key must never expire so far (`Some(false)`) or expire already (`Some(true)`).
    pub must_expire: Option<bool>,
    /// `GT` or `LT`: the time must be later (`Some(true)`) or earlier than the one before. Never is later
    /// than any.
    pub must_be_later: Option<bool>,
}

/// Reads `GETEX key [EX … | PX … | EXAT … | PXAT … | PERSIST]`.
///
/// # Errors
/// As Redis words them.
pub fn getex_options(command: &Command) -> Result<Expiry, Reply> {
    match getex_words(command)? {
        (_, Some(option)) => option.read(command),
        (true, None) => Ok(Expiry::Never),
        (false, None) => Ok(Expiry::Keep),
    }
}

/// Whether there is `PERSIST`, or which time. No number is read: Redis looks for the key first.
fn getex_words(command: &Command) -> Result<(bool, Option<ExpiryOption>), Reply> {
    let (mut persists, mut option) = (false, None);
    let mut at = 2;
    while at < command.len() {
        let found = ExpiryOption::find(command, at).filter(|it| !persists && it.may_follow(option));
        if command.arg(at).eq_ignore_ascii_case(b"PERSIST") && option.is_none() {
            persists = true;
        } else if found.is_some() {
            option = found;
            at += 1;
        } else {
            return Err(Reply::syntax());
        }
        at += 1;
    }
    Ok((persists, option))
}

/// Reads the time of `SETEX key seconds value` and `PSETEX key ms value`.
///
/// # Errors
/// As Redis words them.
pub fn setex_expiry(command: &Command) -> Result<Expiry, Reply> {
    let unit_ms = if command.name().eq_ignore_ascii_case(b"setex") { 1000 } else { 1 };
    let ms = expiry_ms(command, 2, unit_ms)?;
    if ms <= 0 { Err(invalid_expiry(command.name())) } else { Ok(Expiry::In(ms)) }
}

/// Whether what this valid command does depends on when it is done.
#[must_use]
pub fn depends_on_time(command: &Command) -> bool {
    match lookup(command.name()).map(|spec| spec.name) {
        Some("exec") => {
            transaction::read(command).is_ok_and(|whole| whole.commands.iter().any(depends_on_time))
        }
        Some("expire" | "expireat" | "pexpire" | "pexpireat" | "psetex" | "setex") => true,
        Some("getex") => getex_words(command).is_ok_and(|(_, option)| option.is_some()),
        Some("set") => set_options(command)
            .is_ok_and(|options| matches!(options.expiry, Expiry::In(_) | Expiry::At(_))),
        _ => false,
    }
}

/// The options of `SET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetOptions {
    /// `NX` or `XX`: the key must be absent (`Some(false)`) or present (`Some(true)`).
    pub must_exist: Option<bool>,
    /// `GET`: return the value before.
    pub get: bool,
    /// `IFEQ old`: the argument that the value must equal.
    pub if_equal: Option<usize>,
    /// When the key is to go.
    pub expiry: Expiry,
}

impl Default for SetOptions {
    fn default() -> Self {
        Self { must_exist: None, get: false, if_equal: None, expiry: Expiry::Never }
    }
}

/// Reads the options of `SET key value …`.
///
/// # Errors
/// As Redis words them.
pub fn set_options(command: &Command) -> Result<SetOptions, Reply> {
    let mut options = SetOptions::default();
    let mut expiry: Option<ExpiryOption> = None;
    let mut at = 3;
    while at < command.len() {
        let word = command.arg(at);
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        // The same word again is no mistake; the last number counts.
        let may = |must: bool| {
            options.must_exist.is_none_or(|it| it == must) && options.if_equal.is_none()
        };
        if is("NX") && may(false) {
            options.must_exist = Some(false);
        } else if is("XX") && may(true) {
            options.must_exist = Some(true);
        } else if is("GET") {
            options.get = true;
        } else if is("IFEQ")
            && options.must_exist.is_none()
            && options.if_equal.is_none()
            && at + 1 < command.len()
        {
            at += 1;
            options.if_equal = Some(at);
        } else if is("KEEPTTL") && expiry.is_none() {
            options.expiry = Expiry::Keep;
        } else if options.expiry == Expiry::Never
            && let Some(found) = ExpiryOption::find(command, at)
            && found.may_follow(expiry)
        {
            expiry = Some(found);
            at += 1;
        } else {
            return Err(Reply::syntax());
        }
        at += 1;
    }
    if let Some(expiry) = expiry {
        options.expiry = expiry.read(command)?;
    }
    Ok(options)
}

/// The arguments of `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`, `HSCAN` and `SSCAN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanOptions<'a> {
    /// Where to go on.
    pub cursor: u64,
    /// Only keys that match this glob.
    pub pattern: Option<&'a [u8]>,
    /// About how many keys to look at; 10 if not given.
    pub count: usize,
    /// Only values of this type.
    pub of_type: Option<&'a [u8]>,
}

/// Most keys one `SCAN` looks at, or parts a scan of many of them, whatever its `COUNT`.
const SCAN_COUNT_MAX: i64 = 10_000;

/// Reads the arguments of `SCAN`.
///
/// # Errors
/// As Redis words them.
pub fn scan_options(command: &Command) -> Result<ScanOptions<'_>, Reply> {
    scan_options_from(command, 1)
}

/// Reads the arguments of `HSCAN key cursor [MATCH pattern] [COUNT count]` and `SSCAN`.
///
/// # Errors
/// As Redis words them.
pub fn part_scan_options(command: &Command) -> Result<ScanOptions<'_>, Reply> {
    let options = scan_options_from(command, 2)?;
    if options.of_type.is_some() { Err(Reply::syntax()) } else { Ok(options) }
}

fn scan_options_from(command: &Command, cursor_at: usize) -> Result<ScanOptions<'_>, Reply> {
    let cursor = std::str::from_utf8(command.arg(cursor_at)).ok();
    let Some(cursor) = cursor.and_then(|text| text.parse().ok()) else {
        return Err(Reply::error("ERR", "invalid cursor"));
    };
    let mut options = ScanOptions { cursor, pattern: None, count: 10, of_type: None };
    let mut at = cursor_at + 1;
    while at < command.len() {
        if at + 1 >= command.len() {
            return Err(Reply::syntax());
        }
        let (word, value) = (command.arg(at), command.arg(at + 1));
        if word.eq_ignore_ascii_case(b"MATCH") {
            options.pattern = Some(value);
        } else if word.eq_ignore_ascii_case(b"COUNT") {
            let count = integer(value).ok_or_else(Reply::not_an_integer)?;
            if count < 1 {
                return Err(Reply::syntax());
            }
            options.count = count.min(SCAN_COUNT_MAX) as usize;
        } else if word.eq_ignore_ascii_case(b"TYPE") {
            options.of_type = Some(value);
        } else {
            return Err(Reply::syntax());
        }
        at += 2;
    }
    Ok(options)
}

/// Judges a command before anything is done with it: known, well-formed, within limits. What it
/// refuses is never proposed.
///
/// # Errors
/// The reply to send instead, in Redis' words where Redis has them.
pub fn validate(command: &Command) -> Result<&'static Spec, Reply> {
    let Some(spec) = lookup(command.name()) else {
        return Err(match &command.name().to_ascii_lowercase()[..] {
            b"asking" => cluster::asking(),
            name @ (b"keys" | b"randomkey") => {
                let name = String::from_utf8_lossy(name).to_uppercase();
                let text = format!(
                    "{name} is not supported: it would hold up a core for as long as it takes to look at all keys; iterate with SCAN [MATCH pattern]"
                );
                Reply::error("ERR", text)
            }
            _ => unknown(command),
        });
    };
    if !spec.takes(command.len()) {
        let refusal = Reply::wrong_arity(command.name());
        return Err(if spec.name == "exec" { transaction::aborted(&refusal) } else { refusal });
    }
    if spec.access == Access::Connection && session::is_session(command) {
        let subcommand = session::lookup(command)?;
        if subcommand.is_some() {
            session::read(command)?;
        }
        return Ok(subcommand.unwrap_or(spec));
    }
    if acl::is_acl(command) {
        return Ok(if acl::read(command)?.changes() { &acl::CHANGE } else { spec });
    }
    // No part of a command is longer than it.
    if limits::KEY_BYTES_MAX < command.raw.len() {
        for key in spec.keys(command.len()) {
            if command.arg(key).len() > limits::KEY_BYTES_MAX {
                return Err(too_big("key", limits::KEY_BYTES_MAX));
            }
        }
    }
    match spec.name {
        "set" => set_options(command).map(|_| ())?,
        "expire" | "expireat" | "pexpire" | "pexpireat" => expire_options(command).map(|_| ())?,
        "getex" => getex_words(command).map(|_| ())?,
        "wait" | "waitaof" => {
            for number in command.args().skip(1) {
                match integer(number) {
                    Some(0..) => {}
                    Some(_) => {
                        return Err(Reply::error("ERR", "value is out of range, must be positive"));
                    }
                    None => return Err(Reply::not_an_integer()),
                }
            }
        }
        "psetex" | "setex" => setex_expiry(command).map(|_| ())?,
        "mset" | "msetnx" if command.len().is_multiple_of(2) => {
            return Err(Reply::wrong_arity(command.name()));
        }
        "hset" | "hmset" if !command.len().is_multiple_of(2) => {
            return Err(Reply::wrong_arity(command.name()));
        }
        // All or nothing is for one entry of one group.
        "msetnx" if !slot::is_one(spec.keys(command.len()).map(|key| command.arg(key))) => {
            let text = "Keys in request don't hash to the same slot: MSETNX is all or nothing";
            return Err(Reply::error("CROSSSLOT", text));
        }
        "getrange" => {
            for at in [2, 3] {
                integer(command.arg(at)).ok_or_else(Reply::not_an_integer)?;
            }
        }
        "hscan" | "sscan" => part_scan_options(command).map(|_| ())?,
        "incrby" => {
            integer(command.arg(2)).ok_or_else(Reply::not_an_integer)?;
        }
        "hincrby" => {
            integer(command.arg(3)).ok_or_else(Reply::not_an_integer)?;
        }
        "decrby" => {
            let by = integer(command.arg(2)).ok_or_else(Reply::not_an_integer)?;
            if by == i64::MIN {
                return Err(Reply::error("ERR", "decrement would overflow"));
            }
        }
        "readonly" => connection::staleness(command).map(|_| ())?,
        "scan" => scan_options(command).map(|_| ())?,
        "backup" => backup::read(command).map(|_| ())?,
        "cluster" => cluster::read(command).map(|_| ())?,
        "slowlog" => slow::read(command).map(|_| ())?,
        "member" => member::member(command).map(|_| ())?,
        "drain" => member::drain(command).map(|_| ())?,
        "flushall" | "flushdb" => {
            let known = |word: &[u8]| {
                word.eq_ignore_ascii_case(b"ASYNC") || word.eq_ignore_ascii_case(b"SYNC")
            };
            if command.len() > 2 || !command.args().skip(1).all(known) {
                return Err(Reply::syntax());
            }
        }
        "debug" if !command.arg(1).eq_ignore_ascii_case(b"DIGEST") || command.len() != 2 => {
            let name = String::from_utf8_lossy(command.arg(1)).into_owned();
            return Err(Reply::error(
                "ERR",
                format!("unknown subcommand '{name}'. DEBUG knows DIGEST."),
            ));
        }
        _ => {}
    }
    if matches!(spec.access, Access::Write) {
        let value = command.args().skip(2).map(<[u8]>::len).max().unwrap_or(0);
        if value > limits::VALUE_BYTES_MAX {
            return Err(too_big("value", limits::VALUE_BYTES_MAX));
        }
    }
    Ok(spec)
}

fn too_big(what: &str, max: usize) -> Reply {
    Reply::error("ERR", format!("{what} exceeds the maximum allowed size ({max} bytes)"))
}

/// `ERR unknown command …`, as Redis words it: arguments are shown as long as they are short.
fn unknown(command: &Command) -> Reply {
    const SHOWN_MAX: usize = 128;
    let clip =
        |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_MAX)]).into_owned();
    let mut shown = String::new();
    for arg in command.args().skip(1) {
        if shown.len() >= SHOWN_MAX {
            break;
        }
        shown.push_str(&format!("'{}' ", clip(&arg[..arg.len().min(SHOWN_MAX - shown.len())])));
    }
    let name = clip(command.name());
    Reply::error("ERR", format!("unknown command '{name}', with args beginning with: {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<&'static str, String> {
        let args: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
        validate(&Command::from_args(&args))
            .map(|spec| spec.name)
            .map_err(|reply| reply.error_text().to_owned())
    }

    #[test]
    fn the_table_is_sorted_so_that_every_command_is_found() {
        for pair in COMMANDS.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} and {}", pair[0].name, pair[1].name);
        }
        for spec in COMMANDS {
            assert_eq!(lookup(spec.name.to_uppercase().as_bytes()), Some(spec));
        }
        assert_eq!(lookup(b"a-name-longer-than-any-command"), None);
        assert_eq!(lookup(b"get\0"), None, "zeroes fill up a shorter name");
    }

    #[test]
    fn what_cannot_succeed_is_refused_in_redis_words() {
        let cases = [
            ("nosuch a bb", "ERR unknown command 'nosuch', with args beginning with: 'a' 'bb' "),
            ("GET", "ERR wrong number of arguments for 'get' command"),
            ("MSETNX a 1 b", "ERR wrong number of arguments for 'msetnx' command"),
            ("HMSET h f", "ERR wrong number of arguments for 'hmset' command"),
            ("HMSET h f 1 g", "ERR wrong number of arguments for 'hmset' command"),
            ("HSCAN h x", "ERR invalid cursor"),
            ("SSCAN s 18446744073709551616", "ERR invalid cursor"),
            ("HSCAN h 0 TYPE hash", "ERR syntax error"),
            ("HSCAN h 0 COUNT 0", "ERR syntax error"),
            ("SSCAN s 0 MATCH", "ERR syntax error"),
            ("MSET a 1 b", "ERR wrong number of arguments for 'mset' command"),
            ("SET k v NX XX", "ERR syntax error"),
            ("SET k v IFEQ", "ERR syntax error"),
            ("SET k v NX IFEQ a", "ERR syntax error"),
            ("SET k v bogus", "ERR syntax error"),
            ("WAIT -1 0", "ERR value is out of range, must be positive"),
            ("WAITAOF 1 1 x", "ERR value is not an integer or out of range"),
            (
                "EXEC 5 0",
                "EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command",
            ),
            (
                "keys *",
                "ERR KEYS is not supported: it would hold up a core for as long as it takes to look at all keys; iterate with SCAN [MATCH pattern]",
            ),
            ("SET k v EX 0", "ERR invalid expire time in 'set' command"),
            ("SET k v EX 1 KEEPTTL", "ERR syntax error"),
            ("HSET h f v g", "ERR wrong number of arguments for 'hset' command"),
            ("HINCRBY h f x", "ERR value is not an integer or out of range"),
            ("INCRBY k x", "ERR value is not an integer or out of range"),
            ("DECRBY k -9223372036854775808", "ERR decrement would overflow"),
            ("SCAN x", "ERR invalid cursor"),
            ("SCAN 0 COUNT 0", "ERR syntax error"),
            ("SCAN 0 COUNT x", "ERR value is not an integer or out of range"),
            ("SCAN 0 MATCH", "ERR syntax error"),
            ("FLUSHALL NOW", "ERR syntax error"),
            ("DEBUG SLEEP", "ERR unknown subcommand 'SLEEP'. DEBUG knows DIGEST."),
        ];
        for (line, expected) in cases {
            assert_eq!(check(line), Err(expected.to_owned()), "{line}");
        }
        for line in ["SET k v XX GET", "SET k v IFEQ old GET", "mset a 1 b 2", "SCAN 0 TYPE string"]
        {
            assert!(check(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_is_too_big_is_refused() {
        let value = vec![b'v'; limits::VALUE_BYTES_MAX + 1];
        let key = vec![b'k'; limits::KEY_BYTES_MAX + 1];
        for (args, what) in [([&b"SET"[..], b"k", &value], "value"), ([b"SET", &key, b"v"], "key")]
        {
            let refused = validate(&Command::from_args(&args)).expect_err("too big");
            assert!(refused.error_text().starts_with(&format!("ERR {what} exceeds")));
        }
        let largest = &value[1..];
        assert!(validate(&Command::from_args(&[b"SET", b"k", largest])).is_ok());
    }

    #[test]
    fn keys_are_where_the_table_says() {
        let keys = |name: &[u8], len| lookup(name).map(|spec| spec.keys(len).collect::<Vec<_>>());
        assert_eq!(keys(b"get", 2), Some(vec![1]));
        assert_eq!(keys(b"mset", 5), Some(vec![1, 3]));
        assert_eq!(keys(b"del", 4), Some(vec![1, 2, 3]));
        assert_eq!(keys(b"ping", 2), Some(vec![]));
    }
}
