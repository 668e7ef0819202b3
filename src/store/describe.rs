//! `COMMAND …`: what the commands are, in the words in which clients and tools know them from Redis.

use crate::wire::reply::Reply;
use crate::wire::resp::Command;

use super::command::{self, Access, COMMANDS, Spec};
use super::{acl, glob};

/// What `COMMAND HELP` prints.
const HELP: &[&str] = &[
    "COMMAND [<subcommand> [<arg> ...]]. Subcommands are:",
    "(no subcommand)",
    "    Describes all commands.",
    "COUNT",
    "    Returns how many commands there are.",
    "DOCS [<command-name> ...]",
    "    Returns what the commands do, of all if none is named.",
    "GETKEYS <full-command>",
    "    Returns the keys of a command.",
    "HELP",
    "    Prints this help.",
    "INFO [<command-name> ...]",
    "    Describes these commands, all if none is named.",
    "LIST [FILTERBY MODULE <name>|ACLCAT <category>|PATTERN <pattern>]",
    "    Returns the names of the commands.",
];

/// Answers `COMMAND …`.
pub(super) fn answer(command: &Command) -> Reply {
    reply_to(command).unwrap_or_else(|refusal| refusal)
}

fn reply_to(command: &Command) -> Result<Reply, Reply> {
    if command.len() == 1 {
        return Ok(Reply::Array(COMMANDS.iter().map(details).collect()));
    }
    let word = command.arg(1).to_ascii_lowercase();
    let takes = |lens: std::ops::RangeInclusive<usize>| match lens.contains(&command.len()) {
        true => Ok(()),
        false => Err(Reply::wrong_arity(&[b"command|", &word[..]].concat())),
    };
    let named = || -> Vec<Option<&'static Spec>> {
        match command.len() {
            2 => COMMANDS.iter().map(Some).collect(),
            _ => command.args().skip(2).map(command::lookup).collect(),
        }
    };
    Ok(match &word[..] {
        b"count" => takes(2..=2).map(|()| Reply::Int(COMMANDS.len() as i64))?,
        b"docs" => Reply::Map(named().into_iter().flatten().map(docs).collect()),
        b"getkeys" => {
            takes(4..=usize::MAX)?;
            let args: Vec<&[u8]> = command.args().skip(2).collect();
            keys(&Command::from_args(&args))?
        }
        b"help" => {
            takes(2..=2)?;
            Reply::Array(HELP.iter().map(Reply::bulk).collect())
        }
        b"info" => {
            let one = |spec: Option<&Spec>| spec.map_or(Reply::Nil, details);
            Reply::Array(named().into_iter().map(one).collect())
        }
        b"list" => list(command)?,
        _ => {
            let name = String::from_utf8_lossy(command.arg(1));
            let text = format!("unknown subcommand '{name}'. Try COMMAND HELP.");
            return Err(Reply::error("ERR", text));
        }
    })
}

/// `COMMAND LIST [FILTERBY MODULE name|ACLCAT category|PATTERN pattern]`. There are no modules.
fn list(command: &Command) -> Result<Reply, Reply> {
    let is = |at: usize, word: &str| command.arg(at).eq_ignore_ascii_case(word.as_bytes());
    let wanted: Box<dyn Fn(&Spec) -> bool> = match command.len() {
        2 => Box::new(|_| true),
        5 if is(2, "FILTERBY") && is(3, "MODULE") => Box::new(|_| false),
        5 if is(2, "FILTERBY") && is(3, "ACLCAT") => {
            let category = format!("@{}", String::from_utf8_lossy(command.arg(4)).to_lowercase());
            Box::new(move |spec| acl::category_holds(&category, spec))
        }
        5 if is(2, "FILTERBY") && is(3, "PATTERN") => {
            let pattern = command.arg(4).to_ascii_lowercase();
            Box::new(move |spec| glob::matches(&pattern, spec.name.as_bytes()))
        }
        _ => return Err(Reply::syntax()),
    };
    let names = COMMANDS.iter().filter(|spec| wanted(spec)).map(|spec| Reply::bulk(spec.name));
    Ok(Reply::Array(names.collect()))
}

/// `COMMAND GETKEYS`, of the command within.
fn keys(command: &Command) -> Result<Reply, Reply> {
    let error = |text: &str| Reply::error("ERR", text);
    let spec = command::lookup(command.name()).ok_or_else(|| error("Invalid command specified"))?;
    if spec.first_key == 0 {
        return Err(error("The command has no key arguments"));
    }
    if !spec.takes(command.len()) {
        return Err(error("Invalid number of arguments specified for command"));
    }
    let keys = spec.keys(command.len()).map(|at| Reply::bulk(command.arg(at)));
    Ok(Reply::Array(keys.collect()))
}

/// One command as `COMMAND DOCS` shows it.
fn docs(spec: &'static Spec) -> (Reply, Reply) {
    let docs = vec![
        (Reply::bulk("summary"), Reply::bulk(spec.summary)),
        (Reply::bulk("since"), Reply::bulk("0.1.0")),
        (Reply::bulk("group"), Reply::bulk(family(spec))),
    ];
    (Reply::bulk(spec.name), Reply::Map(docs))
}

/// One command as `COMMAND INFO` shows it: name, arity, flags, keys, categories.
fn details(spec: &Spec) -> Reply {
    let keys = [spec.first_key, spec.last_key, if spec.first_key > 0 { spec.key_step } else { 0 }];
    let [first, last, step] = keys.map(|it| Reply::Int(i64::from(it)));
    Reply::Array(vec![
        Reply::bulk(spec.name),
        Reply::Int(i64::from(spec.arity)),
        Reply::Set(flags(spec).map(Reply::Simple).collect()),
        first,
        last,
        step,
        Reply::Set(acl::categories_of(spec).map(Reply::Simple).collect()),
        Reply::Set(Vec::new()),
        Reply::Set(Vec::new()),
        Reply::Array(Vec::new()),
    ])
}

/// Those of Redis' flags that the table knows of.
fn flags(spec: &Spec) -> impl Iterator<Item = &'static str> + use<> {
    let holds = |category| acl::category_holds(category, spec);
    let flags = [
        (holds("@write"), "write"),
        (holds("@read"), "readonly"),
        (holds("@admin"), "admin"),
        (is_fast(spec), "fast"),
    ];
    flags.into_iter().filter(|(holds, _)| *holds).map(|(_, flag)| flag)
}

/// The group of commands that it is in, as Redis has them.
pub(super) fn family(spec: &Spec) -> &'static str {
    match spec.name {
        "auth" | "client" | "echo" | "hello" | "ping" | "quit" | "reset" | "select" => "connection",
        "cluster" | "readonly" | "readwrite" => "cluster",
        "discard" | "exec" | "multi" | "unwatch" | "watch" => "transactions",
        "del" | "exists" | "expire" | "expireat" | "expiretime" | "persist" | "pexpire"
        | "pexpireat" | "pexpiretime" | "pttl" | "scan" | "touch" | "ttl" | "type" | "unlink"
        | "wait" | "waitaof" => "generic",
        "sadd" | "scard" | "sismember" | "smembers" | "smismember" | "srem" | "sscan" => "set",
        name if name.starts_with('h') => "hash",
        _ if matches!(spec.access, Access::Read | Access::Write) => "string",
        _ => "server",
    }
}

/// Whether its work does not grow with what it is given or finds, by Redis' table.
pub(super) fn is_fast(spec: &Spec) -> bool {
    !matches!(
        spec.name,
        "acl"
            | "backup"
            | "client"
            | "cluster"
            | "command"
            | "config"
            | "debug"
            | "del"
            | "drain"
            | "exec"
            | "flushall"
            | "flushdb"
            | "getrange"
            | "hgetall"
            | "hkeys"
            | "hscan"
            | "hvals"
            | "info"
            | "member"
            | "mset"
            | "msetnx"
            | "psetex"
            | "scan"
            | "set"
            | "setex"
            | "slowlog"
            | "smembers"
            | "sscan"
            | "wait"
            | "waitaof"
    )
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::reply::Protocol;

    fn said(line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut out = BytesMut::new();
        answer(&Command::from_args(&args)).encode(Protocol::Resp3, &mut out);
        String::from_utf8_lossy(&out).replace("\r\n", " ").trim_end().to_owned()
    }

    #[test]
    fn commands_are_described_as_redis_describes_them() {
        let cases = [
            ("COMMAND COUNT", &*format!(":{}", COMMANDS.len())),
            ("COMMAND COUNT x", "-ERR wrong number of arguments for 'command|count' command"),
            ("COMMAND HELP x", "-ERR wrong number of arguments for 'command|help' command"),
            ("COMMAND FOO x", "-ERR unknown subcommand 'FOO'. Try COMMAND HELP."),
            ("COMMAND LIST x", "-ERR syntax error"),
            ("COMMAND LIST FILTERBY PATTERN", "-ERR syntax error"),
            ("COMMAND LIST FILTERBY NAME x", "-ERR syntax error"),
            ("COMMAND LIST FILTERBY MODULE x", "*0"),
            ("COMMAND LIST filterby aclcat nosuch", "*0"),
            ("COMMAND LIST FILTERBY PATTERN MULT*", "*1 $5 multi"),
            (
                "COMMAND LIST FILTERBY ACLCAT Transaction",
                "*5 $7 discard $4 exec $5 multi $7 unwatch $5 watch",
            ),
            ("COMMAND GETKEYS GET", "-ERR wrong number of arguments for 'command|getkeys' command"),
            ("COMMAND GETKEYS GET k", "*1 $1 k"),
            ("COMMAND GETKEYS MSET a 1 b 2", "*2 $1 a $1 b"),
            ("COMMAND GETKEYS GET a b", "-ERR Invalid number of arguments specified for command"),
            ("COMMAND GETKEYS PING x", "-ERR The command has no key arguments"),
            ("COMMAND GETKEYS NOSUCH x", "-ERR Invalid command specified"),
            (
                "COMMAND INFO hget nosuch",
                "*2 *10 $4 hget :3 ~2 +readonly +fast :1 :1 :1 ~3 +@fast +@hash +@read ~0 ~0 *0 _",
            ),
            ("COMMAND DOCS nosuch", "%0"),
        ];
        for (line, expected) in cases {
            assert_eq!(said(line), expected, "{line}");
        }
        assert!(said("COMMAND HELP").starts_with("*15 $52 COMMAND [<subcommand> [<arg> ...]]."));
        assert!(said("COMMAND DOCS hset").ends_with("$5 group $4 hash"));
    }

    #[test]
    fn families_flags_and_categories_are_those_of_redis() {
        let cases = [
            ("append", "string", "write fast", "@fast @string @write"),
            ("dbsize", "server", "readonly fast", "@fast @keyspace @read"),
            ("debug", "server", "admin", "@admin @dangerous @slow"),
            ("del", "generic", "write", "@keyspace @slow @write"),
            ("exec", "transactions", "", "@slow @transaction"),
            ("expire", "generic", "write fast", "@fast @keyspace @write"),
            ("flushall", "server", "write", "@dangerous @keyspace @slow @write"),
            ("hello", "connection", "fast", "@connection @fast"),
            ("hscan", "hash", "readonly", "@hash @read @slow"),
            ("info", "server", "", "@dangerous @slow"),
            ("msetnx", "string", "write", "@slow @string @write"),
            ("readonly", "cluster", "fast", "@connection @fast"),
            ("scan", "generic", "readonly", "@keyspace @read @slow"),
            ("smismember", "set", "readonly fast", "@fast @read @set"),
            ("wait", "generic", "", "@connection @slow"),
            ("watch", "transactions", "fast", "@fast @transaction"),
        ];
        for (name, family_of, flags_of, categories) in cases {
            let spec = command::lookup(name.as_bytes()).expect(name);
            let found: Vec<&str> = acl::categories_of(spec).collect();
            let flags: Vec<&str> = flags(spec).collect();
            let found = (family(spec), flags.join(" "), found.join(" "));
            assert_eq!(found, (family_of, flags_of.into(), categories.into()), "{name}");
        }
    }
}
