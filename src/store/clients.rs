//! `CLIENT LIST`, `INFO` and `KILL`: what is asked about connections, and the line that tells of one. Which connections
//! there are is the node's to know (`runtime/visitors.rs`).

use core::net::SocketAddr;
use std::fmt::Write as _;

use crate::wire::reply::{Protocol, Reply};
use crate::wire::resp::{Command, integer};

use super::acl::DEFAULT;
use super::command::{self, COMMANDS, Spec};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// The line of the connection that asks.
    Info,
    /// The lines of these.
    List(Filter),
    /// To close these, and how many they were.
    Kill(Filter),
    /// To close the one with this address, and whether there was one: `CLIENT KILL ip:port`.
    KillOne(SocketAddr),
}

/// Which connections; by default all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Only those with these numbers.
    ids: Option<Vec<u64>>,
    /// Only the one that comes from here.
    address: Option<SocketAddr>,
    /// Only those that have connected to this.
    local: Option<SocketAddr>,
    /// Only those of this user.
    user: Option<Vec<u8>>,
    /// Only those of a kind that no connection is here: replicas, subscribers.
    is_of_none: bool,
    /// Not the one that asks.
    spares_self: bool,
}

impl Filter {
    /// Whether it is about this connection; `asks` is the number of the one that asks.
    #[must_use]
    pub fn fits(&self, it: &Profile, told: &Told, asks: u64) -> bool {
        let Self { ids, address, local, user, is_of_none, spares_self } = self;
        let is_spared = *is_of_none || (*spares_self && it.id == asks);
        !is_spared
            && ids.as_ref().is_none_or(|ids| ids.contains(&it.id))
            && address.is_none_or(|address| address == it.address)
            && local.is_none_or(|local| Some(local) == it.local)
            && user.as_ref().is_none_or(|user| **user == *told.user())
    }
}

/// What is known of a connection from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Its number, which no other connection of the node has had since the node started.
    pub id: u64,
    /// Where it comes from.
    pub address: SocketAddr,
    /// What it has connected to.
    pub local: Option<SocketAddr>,
    /// The core that serves it.
    pub core: u16,
}

/// What a connection has said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// `CLIENT SETNAME`.
    pub name: Box<[u8]>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: Box<[u8]>,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_ver: Box<[u8]>,
    /// Empty is `default`.
    pub user: Box<[u8]>,
    /// How it is answered.
    pub protocol: Protocol,
}

impl Told {
    fn user(&self) -> &[u8] {
        if self.user.is_empty() { DEFAULT } else { &self.user }
    }
}

/// What a connection has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// For how long it has been connected, in s.
    pub age_s: u64,
    /// For how long nothing has come from it, in s.
    pub idle_s: u64,
    /// The number of its last command, if it has said one.
    pub command: Option<u8>,
}

/// The number of a command, for [`Done`]. A part of a command, which is in no table, has the number of the whole.
#[must_use]
pub fn number(spec: &Spec) -> Option<u8> {
    let at = command::position(spec.name.as_bytes()).or_else(|| command::position(b"client"));
    at.and_then(|at| u8::try_from(at).ok())
}

/// The line of a connection, in Redis' words; what is always the same here is as it is in Redis for one that does
/// nothing.
pub fn line(profile: &Profile, told: &Told, done: &Done, text: &mut String) {
    let Profile { id, address, local, core } = profile;
    let Done { age_s, idle_s, command } = done;
    let local = local.map_or_else(String::new, |local| local.to_string());
    let command = command.and_then(|at| COMMANDS.get(usize::from(at))).map_or("NULL", |it| it.name);
    let resp = if told.protocol == Protocol::Resp3 { 3 } else { 2 };
    let [name, user, lib_name, lib_ver] =
        [&told.name, told.user(), &told.lib_name, &told.lib_ver].map(word);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "id={id} addr={address} laddr={local} name={name} age={age_s} idle={idle_s} flags=N db=0 \
         sub=0 psub=0 ssub=0 cmd={command} user={user} redir=-1 resp={resp} lib-name={lib_name} \
         lib-ver={lib_ver} core={core}",
    );
}

/// Bytes that somebody has chosen, as one word: nobody may write another's line.
fn word(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_whitespace() || c.is_control() { '?' } else { c }).collect()
}

/// Understands `CLIENT LIST …`, `CLIENT INFO` and `CLIENT KILL …`; nothing, if it is another `CLIENT`.
///
/// # Errors
/// If it is one of them and cannot be answered.
pub fn read(command: &Command) -> Result<Option<Call>, Reply> {
    let is = |name: &str| command.arg(1).eq_ignore_ascii_case(name.as_bytes());
    match command.len() {
        2 if is("INFO") => Ok(Some(Call::Info)),
        2.. if is("LIST") => list(command).map(|filter| Some(Call::List(filter))),
        3 if is("KILL") => address(command.arg(2)).map(|at| Some(Call::KillOne(at))),
        4.. if is("KILL") => kill(command).map(|filter| Some(Call::Kill(filter))),
        _ => Ok(None),
    }
}

/// Whether it tells of other connections than the one that asks, or ends them.
#[must_use]
pub fn is_about_others(command: &Command) -> bool {
    command.name().eq_ignore_ascii_case(b"client")
        && 2 <= command.len()
        && ["LIST", "KILL"].iter().any(|it| command.arg(1).eq_ignore_ascii_case(it.as_bytes()))
}

fn list(command: &Command) -> Result<Filter, Reply> {
    let mut filter = Filter::default();
    let is = |name: &str| command.arg(2).eq_ignore_ascii_case(name.as_bytes());
    match command.len() {
        2 => {}
        4 if is("TYPE") => filter.is_of_none = is_of_none(command.arg(3))?,
        4.. if is("ID") => {
            filter.ids = Some(command.args().skip(3).map(id).collect::<Result<_, _>>()?);
        }
        _ => return Err(Reply::syntax()),
    }
    Ok(filter)
}

fn kill(command: &Command) -> Result<Filter, Reply> {
    let mut filter = Filter { spares_self: true, ..Filter::default() };
    if !command.len().is_multiple_of(2) {
        return Err(Reply::syntax());
    }
    for at in (2..command.len()).step_by(2) {
        let (what, value) = (command.arg(at).to_ascii_uppercase(), command.arg(at + 1));
        match &what[..] {
            b"ID" => filter.ids = Some(vec![id(value)?]),
            b"ADDR" => filter.address = Some(address(value)?),
            b"LADDR" => filter.local = Some(address(value)?),
            b"USER" => filter.user = Some(value.to_vec()),
            b"TYPE" => filter.is_of_none = is_of_none(value)?,
            b"SKIPME" if value.eq_ignore_ascii_case(b"YES") => filter.spares_self = true,
            b"SKIPME" if value.eq_ignore_ascii_case(b"NO") => filter.spares_self = false,
            _ => return Err(Reply::syntax()),
        }
    }
    Ok(filter)
}

fn id(word: &[u8]) -> Result<u64, Reply> {
    let id = integer(word).and_then(|id| u64::try_from(id).ok()).filter(|id| 0 < *id);
    id.ok_or_else(|| Reply::error("ERR", "Invalid client ID"))
}

fn address(word: &[u8]) -> Result<SocketAddr, Reply> {
    let parsed = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
    parsed.ok_or_else(|| Reply::error("ERR", "an address is ip:port, as CLIENT LIST shows it"))
}

fn is_of_none(kind: &[u8]) -> Result<bool, Reply> {
    match &kind.to_ascii_lowercase()[..] {
        b"normal" => Ok(false),
        b"master" | b"replica" | b"slave" | b"pubsub" => Ok(true),
        _ => {
            let kind = String::from_utf8_lossy(kind).into_owned();
            Err(Reply::error("ERR", format!("Unknown client type '{kind}'")))
        }
    }
}

/// What `CLIENT HELP` prints.
pub const HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME",
    "    Returns the name of the connection.",
    "ID",
    "    Returns the number of the connection, which is its own on this node.",
    "INFO",
    "    Returns a line that describes the connection.",
    "KILL <ip:port>",
    "    Closes the connection from there.",
    "KILL <option> <value> [<option> <value> ...]",
    "    Closes connections to this node, and returns how many. Options:",
    "    * ADDR <ip:port>, LADDR <ip:port>, ID <id>, USER <name>, TYPE NORMAL, SKIPME YES|NO",
    "LIST [TYPE NORMAL] [ID <id> [<id> ...]]",
    "    Returns a line for each connection to this node.",
    "NO-EVICT ON|OFF, NO-TOUCH ON|OFF",
    "    Accepted: nothing is evicted here, and no use of a key is noted.",
    "SESSION <subcommand>",
    "    Exactly-once writes: see CLIENT SESSION HELP.",
    "SETINFO <LIB-NAME|LIB-VER> <value>",
    "    Says which library this is.",
    "SETNAME <name>",
    "    Names the connection.",
    "TRACKING OFF",
    "    Accepted: nothing is tracked here.",
    "HELP",
    "    Prints this help.",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn profile(id: u64) -> Profile {
        let (address, local) = (at("10.0.0.9:5000"), Some(at("10.0.0.1:6379")));
        Profile { id, address, local, core: 1 }
    }

    fn asked(line: &str) -> Result<Option<Call>, String> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        read(&Command::from_args(&args)).map_err(|refusal| refusal.error_text().to_owned())
    }

    #[test]
    fn a_line_is_as_redis_has_it_and_nobody_writes_anothers() {
        let told = Told {
            name: (*b"me").into(),
            user: (*b"a\nid=9 b").into(),
            lib_name: (*b"redis-py").into(),
            protocol: Protocol::Resp3,
            ..Told::default()
        };
        let get = command::lookup(b"get").and_then(number);
        let mut text = String::new();
        line(&profile(7), &told, &Done { age_s: 8, idle_s: 2, command: get }, &mut text);
        line(
            &profile(8),
            &Told::default(),
            &Done { age_s: 0, idle_s: 0, command: None },
            &mut text,
        );
        let expected = [
            "id=7 addr=10.0.0.9:5000 laddr=10.0.0.1:6379 name=me age=8 idle=2 flags=N db=0 sub=0 psub=0 \
             ssub=0 cmd=get user=a?id=9?b redir=-1 resp=3 lib-name=redis-py lib-ver= core=1",
            "id=8 addr=10.0.0.9:5000 laddr=10.0.0.1:6379 name= age=0 idle=0 flags=N db=0 sub=0 psub=0 \
             ssub=0 cmd=NULL user=default redir=-1 resp=2 lib-name= lib-ver= core=1",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn who_is_meant_is_understood_or_refused() {
        let fits = |line: &str, id: u64| match asked(line) {
            Ok(Some(Call::List(filter) | Call::Kill(filter))) => {
                let told = Told { user: (*b"u").into(), ..Told::default() };
                filter.fits(&profile(id), &told, 1)
            }
            other => panic!("{line}: {other:?}"),
        };
        for (line, one, two) in [
            ("CLIENT LIST", true, true),
            ("client list type NORMAL", true, true),
            ("CLIENT LIST TYPE pubsub", false, false),
            ("CLIENT LIST ID 2 3", false, true),
            ("CLIENT KILL ID 1", false, false),
            ("CLIENT KILL ID 1 SKIPME no", true, false),
            ("CLIENT KILL ID 2", false, true),
            ("CLIENT KILL ADDR 10.0.0.9:5000", false, true),
            ("CLIENT KILL ADDR 10.0.0.9:5001", false, false),
            ("CLIENT KILL LADDR 10.0.0.1:6379 USER u", false, true),
            ("CLIENT KILL USER default", false, false),
            ("CLIENT KILL TYPE replica SKIPME no", false, false),
        ] {
            assert_eq!((fits(line, 1), fits(line, 2)), (one, two), "{line}");
        }
        assert_eq!(asked("CLIENT INFO"), Ok(Some(Call::Info)));
        assert_eq!(asked("CLIENT KILL [::1]:80"), Ok(Some(Call::KillOne(at("[::1]:80")))));
        for line in ["CLIENT INFO x", "CLIENT GETNAME", "CLIENT KILL", "CLIENT LISTS"] {
            assert_eq!(asked(line), Ok(None), "{line}");
        }
        for (line, expected) in [
            ("CLIENT LIST ID", "ERR syntax error"),
            ("CLIENT LIST ID 0", "ERR Invalid client ID"),
            ("CLIENT LIST TYPE x", "ERR Unknown client type 'x'"),
            ("CLIENT KILL x", "ERR an address is ip:port, as CLIENT LIST shows it"),
            ("CLIENT KILL ID x", "ERR Invalid client ID"),
            ("CLIENT KILL ID 1 USER", "ERR syntax error"),
            ("CLIENT KILL MAXAGE 1", "ERR syntax error"),
            ("CLIENT KILL SKIPME maybe", "ERR syntax error"),
        ] {
            assert_eq!(asked(line), Err(expected.to_owned()), "{line}");
        }
    }
}
