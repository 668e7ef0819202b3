//! What a connection answers by itself: handshake, names, descriptions of commands, settings that
//! tools ask for.

use std::sync::Arc;

use crate::wire::reply::{Protocol, Reply};
use crate::wire::resp::{Command, integer};

use crate::limits::{SLOW_OPS_MAX, STALE_MS_MAX};

use super::acl::{DEFAULT, Denial, Identity, Users};
use super::clients::Told;
use super::command::{Access, Spec};
use super::password::Password;
use super::transaction::{Step, Transaction};
use super::{clients, describe, glob, session};

/// How a connection wants its commands treated; said once, and true for each that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Manner {
    /// Reads are answered by the node it is connected to, after asking the leader for an index
    /// (`READONLY`).
    pub nearby: bool,
    /// With `nearby`, what is read may be this old, in ms; 0 is not at all.
    pub stale_ms: u32,
    /// A command whose group another node leads is answered with `-MOVED` instead of being forwarded.
    pub redirects: bool,
}

/// Which connections are sent to the node that leads (`-MOVED`), instead of having their commands
/// forwarded there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Routing {
    /// Those that have said `CLUSTER` something.
    #[default]
    Auto,
    /// All.
    Redirect,
    /// None.
    Forward,
}

impl Routing {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Redirect => "redirect",
            Self::Forward => "forward",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Auto, Self::Redirect, Self::Forward].into_iter().find(|it| it.name() == name)
    }

    /// What `HELLO` and `INFO` call the node.
    #[must_use]
    pub const fn mode(self) -> &'static str {
        if matches!(self, Self::Redirect) { "cluster" } else { "standalone" }
    }
}

/// Who answers what a connection reads, until it says otherwise (`READONLY`, `READWRITE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadFrom {
    /// The leader.
    #[default]
    Leader,
    /// This node, if it has a replica. For clients that take a node for a replica and do not say `READONLY` to it,
    /// since it is a master of other slots.
    Replica,
}

impl ReadFrom {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Replica => "replica",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Leader, Self::Replica].into_iter().find(|it| it.name() == name)
    }
}

/// Settings of the node that `CONFIG GET` tells beside those that are the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// After so many seconds of silence a client is disconnected; 0 is never.
    pub idle_s: u64,
    /// As many clients may be connected.
    pub clients_max: usize,
    /// Operations that take so many µs are in `SLOWLOG`.
    pub slowlog_us: u64,
}

/// How often somebody tried what its user may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forbidden {
    /// Commands that it may not run.
    pub commands: u32,
    /// Keys that it may not use.
    pub keys: u32,
}

/// One client connection's own state.
#[derive(Debug, Default)]
pub struct Connection {
    id: u64,
    routing: Routing,
    read_from: ReadFrom,
    settings: Settings,
    /// What it has said of itself; the user is in `identity`.
    told: Told,
    /// It has said something new of itself.
    has_told: bool,
    closing: bool,
    manner: Manner,
    /// Who it is, and may do what.
    identity: Identity,
    /// Wrong passwords since they were last asked for.
    denied: u32,
    /// What its user may not do, and it has tried, since that was last asked for.
    forbidden: Forbidden,
    /// From its first `MULTI` or `WATCH` until that is over.
    transaction: Option<Box<Transaction>>,
}

impl Connection {
    /// A new connection, speaking RESP2 and without a name.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { id, ..Self::default() }
    }

    /// The same, at a node with these settings.
    #[must_use]
    pub fn with_routing(self, routing: Routing, read_from: ReadFrom) -> Self {
        let mut connection = Self { routing, read_from, ..self };
        connection.manner = connection.first_manner();
        connection
    }

    /// The same, at a node with these settings.
    #[must_use]
    pub fn with_settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// The same, served only after it has said this password, if there is one, or is one of these users.
    #[must_use]
    pub fn with_password(self, password: Option<Password>, users: Arc<Users>) -> Self {
        Self { identity: Identity::begin(password, users), ..self }
    }

    /// Whether it has still to log in.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.identity.is_locked()
    }

    /// The users are these from now on.
    pub fn hear(&mut self, users: Arc<Users>) {
        let changed = self.identity.hear(users);
        self.has_told |= changed;
        if self.is_locked() {
            self.transaction = None;
        } else if let Some(transaction) = self.transaction.as_mut().filter(|_| changed) {
            // What was queued was judged by other rules.
            transaction.outdate();
        }
    }

    /// What a command is answered with that its user may not run; it need not be valid. Nothing is looked
    /// at for a user who may do everything.
    #[must_use]
    pub fn denial(&mut self, command: &Command) -> Option<Reply> {
        let denial = self.identity.judge(command)?;
        let count = match denial {
            Denial::Command => &mut self.forbidden.commands,
            Denial::Key => &mut self.forbidden.keys,
        };
        *count = count.saturating_add(1);
        Some(self.refused(self.identity.reply_to(denial, command)))
    }

    /// What a command is answered with, whatever it is, because nobody has logged in.
    #[must_use]
    pub fn refusal(&self, command: &Command) -> Option<Reply> {
        if !self.is_locked() {
            return None;
        }
        let open = ["auth", "hello", "quit", "reset"];
        let is_open = open.iter().any(|name| command.name().eq_ignore_ascii_case(name.as_bytes()));
        (!is_open).then(|| Reply::error("NOAUTH", "Authentication required."))
    }

    /// What it says of itself, if that has changed since the last call.
    pub fn take_told(&mut self) -> Option<Told> {
        if !std::mem::take(&mut self.has_told) {
            return None;
        }
        let user = match self.identity.name() {
            DEFAULT => Box::default(),
            user => user.into(),
        };
        Some(Told { user, ..self.told.clone() })
    }

    /// How often a wrong password was said since the last call.
    pub fn take_denied(&mut self) -> u32 {
        std::mem::take(&mut self.denied)
    }

    /// What its user may not do, and it has tried, since the last call.
    pub fn take_forbidden(&mut self) -> Forbidden {
        std::mem::take(&mut self.forbidden)
    }

    /// It has said `CLUSTER` something: it is a cluster client's.
    pub fn on_cluster(&mut self) {
        self.manner.redirects = self.routing != Routing::Forward;
    }

    fn first_manner(&self) -> Manner {
        let (redirects, nearby) =
            (self.routing == Routing::Redirect, self.read_from == ReadFrom::Replica);
        Manner { redirects, nearby, ..Manner::default() }
    }

    /// The protocol of the replies from now on.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.told.protocol
    }

    /// How its commands are to be treated from now on.
    #[must_use]
    pub fn manner(&self) -> Manner {
        self.manner
    }

    /// The client said goodbye: close once its replies have left.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Takes a valid command into the connection's transaction, if it has one or begins one.
    pub fn transact(&mut self, spec: &Spec, command: &Command) -> Step {
        if spec.access == Access::Users
            && let Some(refusal) = self.identity.refusal(command)
        {
            return Step::Reply(self.refused(refusal));
        }
        if self.transaction.is_none() && !Transaction::begins_with(spec.name) {
            return Step::Pass;
        }
        let step = self.transaction.get_or_insert_default().step(spec, command);
        if matches!(step, Step::Over(_) | Step::Execute(_)) {
            self.transaction = None;
        }
        step
    }

    /// The answer to a [`Step::Watch`]; what the client hears.
    pub fn watched(&mut self, reply: Reply) -> Reply {
        self.transaction.get_or_insert_default().watched(reply)
    }

    /// A command was refused before [`Self::transact`] saw it; what the client hears.
    pub fn refused(&mut self, refusal: Reply) -> Reply {
        if Transaction::ends_with(&refusal) {
            self.transaction = None;
        }
        match &mut self.transaction {
            Some(transaction) => transaction.refused(refusal),
            None => refusal,
        }
    }

    /// Answers a command of the class [`Access::Connection`]; it has been validated.
    pub fn answer(&mut self, spec: &Spec, command: &Command) -> Reply {
        debug_assert_eq!(spec.access, Access::Connection);
        match spec.name {
            "ping" => match command.len() {
                1 => Reply::Simple("PONG"),
                2 => Reply::bulk(command.arg(1)),
                _ => Reply::wrong_arity(b"ping"),
            },
            "echo" => Reply::bulk(command.arg(1)),
            "select" => match integer(command.arg(1)) {
                Some(0) => Reply::Ok,
                Some(_) => Reply::error("ERR", "DB index is out of range"),
                None => Reply::error("ERR", "value is not an integer or out of range"),
            },
            "readonly" | "readwrite" => {
                self.manner.nearby = spec.name == "readonly";
                self.manner.stale_ms = staleness(command).unwrap_or(0);
                Reply::Ok
            }
            "quit" => {
                self.closing = true;
                Reply::Ok
            }
            "reset" => {
                self.told.protocol = Protocol::Resp2;
                self.told.name = Box::default();
                self.has_told = true;
                self.manner = self.first_manner();
                self.identity.log_out();
                self.transaction = None;
                Reply::Simple("RESET")
            }
            "acl" => self.identity.answer(command),
            "auth" => self.auth(command).err().unwrap_or(Reply::Ok),
            "hello" => self.hello(command).unwrap_or_else(|refusal| refusal),
            "client" => self.client(command),
            "command" => describe::answer(command),
            "config" => self.config(command),
            name => Reply::error("ERR", format!("'{name}' is not for a connection")),
        }
    }

    /// `AUTH [user] password`.
    fn auth(&mut self, command: &Command) -> Result<(), Reply> {
        match command.len() {
            2 if !self.identity.has_password() => Err(Reply::error(
                "ERR",
                "AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            )),
            2 => self.log_in(DEFAULT, command.arg(1)),
            3 => self.log_in(command.arg(1), command.arg(2)),
            _ => Err(Reply::syntax()),
        }
    }

    fn log_in(&mut self, user: &[u8], password: &[u8]) -> Result<(), Reply> {
        if !self.identity.log_in(user, password) {
            self.denied = self.denied.saturating_add(1);
            return Err(Reply::error(
                "WRONGPASS",
                "invalid username-password pair or user is disabled.",
            ));
        }
        self.has_told = true;
        Ok(())
    }

    fn hello(&mut self, command: &Command) -> Result<Reply, Reply> {
        let mut protocol = self.told.protocol;
        let mut name = None;
        let mut login = None;
        if command.len() > 1 {
            protocol = match integer(command.arg(1)) {
                Some(2) => Protocol::Resp2,
                Some(3) => Protocol::Resp3,
                Some(_) => return Err(Reply::error("NOPROTO", "unsupported protocol version")),
                None => {
                    return Err(Reply::error(
                        "ERR",
                        "Protocol version is not an integer or out of range",
                    ));
                }
            };
            let mut at = 2;
            while at < command.len() {
                let option = command.arg(at);
                if option.eq_ignore_ascii_case(b"SETNAME") && at + 1 < command.len() {
                    name = Some(command.arg(at + 1));
                    at += 2;
                } else if option.eq_ignore_ascii_case(b"AUTH") && at + 2 < command.len() {
                    login = Some((command.arg(at + 1), command.arg(at + 2)));
                    at += 3;
                } else {
                    let option = String::from_utf8_lossy(option);
                    return Err(Reply::error(
                        "ERR",
                        format!("Syntax error in HELLO option '{option}'"),
                    ));
                }
            }
        }
        if let Some((user, password)) = login {
            self.log_in(user, password)?;
        }
        if self.is_locked() {
            return Err(Reply::error(
                "NOAUTH",
                "HELLO comes before the login: say AUTH first, or HELLO <protover> AUTH <user> <password>",
            ));
        }
        if let Some(name) = name {
            self.set_name(name)?;
        }
        self.told.protocol = protocol;
        self.has_told = true;
        let number = if protocol == Protocol::Resp3 { 3 } else { 2 };
        Ok(Reply::Map(vec![
            (Reply::bulk("server"), Reply::bulk("outrigger")),
            (Reply::bulk("version"), Reply::bulk(env!("CARGO_PKG_VERSION"))),
            (Reply::bulk("proto"), Reply::Int(number)),
            (Reply::bulk("id"), Reply::Int(self.id as i64)),
            (Reply::bulk("mode"), Reply::bulk(self.routing.mode())),
            (Reply::bulk("role"), Reply::bulk("master")),
            (Reply::bulk("modules"), Reply::Array(Vec::new())),
        ]))
    }

    fn set_name(&mut self, name: &[u8]) -> Result<(), Reply> {
        if !is_word(name) {
            return Err(Reply::error(
                "ERR",
                "Client names cannot contain spaces, newlines or special characters.",
            ));
        }
        (self.told.name, self.has_told) = (name.into(), true);
        Ok(())
    }

    /// `CLIENT SETINFO attribute value`.
    fn set_info(&mut self, attribute: &[u8], value: &[u8]) -> Result<(), Reply> {
        let is = |name: &str| attribute.eq_ignore_ascii_case(name.as_bytes());
        let (place, name) = if is("LIB-NAME") {
            (&mut self.told.lib_name, "lib-name")
        } else if is("LIB-VER") {
            (&mut self.told.lib_ver, "lib-ver")
        } else {
            let attribute = String::from_utf8_lossy(attribute).into_owned();
            return Err(Reply::error("ERR", format!("Unrecognized option '{attribute}'")));
        };
        if !is_word(value) {
            let text = format!("{name} cannot contain spaces, newlines or special characters.");
            return Err(Reply::error("ERR", text));
        }
        (*place, self.has_told) = (value.into(), true);
        Ok(())
    }

    fn client(&mut self, command: &Command) -> Reply {
        let is = |name: &str, len: usize| {
            command.arg(1).eq_ignore_ascii_case(name.as_bytes()) && command.len() == len
        };
        let switch = |name: &str| {
            let is_switch = |word: &str| command.arg(2).eq_ignore_ascii_case(word.as_bytes());
            is(name, 3) && ["ON", "OFF"].into_iter().any(is_switch)
        };
        if is("SETNAME", 3) {
            self.set_name(command.arg(2)).err().unwrap_or(Reply::Ok)
        } else if is("GETNAME", 2) {
            if self.told.name.is_empty() { Reply::Nil } else { Reply::bulk(&self.told.name) }
        } else if is("ID", 2) {
            Reply::Int(self.id as i64)
        } else if is("SETINFO", 4) {
            self.set_info(command.arg(2), command.arg(3)).err().unwrap_or(Reply::Ok)
        } else if switch("NO-EVICT") || switch("NO-TOUCH") {
            // Nothing is evicted here, and no use of a key is noted.
            Reply::Ok
        } else if is("TRACKING", 3) && command.arg(2).eq_ignore_ascii_case(b"OFF") {
            Reply::Ok
        } else if command.arg(1).eq_ignore_ascii_case(b"TRACKING") {
            let text = "CLIENT TRACKING is not supported: nobody is told that a key has changed; only OFF is accepted";
            Reply::error("ERR", text)
        } else if is("HELP", 2) {
            Reply::Array(clients::HELP.iter().map(Reply::bulk).collect())
        } else if session::is_session(command) {
            // What concerns groups went to them; what is left asks for help.
            Reply::Array(session::HELP.iter().map(Reply::bulk).collect())
        } else {
            let name = String::from_utf8_lossy(command.arg(1)).into_owned();
            Reply::error(
                "ERR",
                format!(
                    "unknown subcommand or wrong number of arguments for '{name}'. Try CLIENT HELP."
                ),
            )
        }
    }
}

/// How old, in ms, what is read after `READONLY [STALE ms]` may be.
///
/// # Errors
/// If it says something else.
pub(super) fn staleness(command: &Command) -> Result<u32, Reply> {
    match command.len() {
        1 => Ok(0),
        3 if command.arg(1).eq_ignore_ascii_case(b"STALE") => {
            let ms = integer(command.arg(2)).ok_or_else(Reply::not_an_integer)?;
            u32::try_from(ms).ok().filter(|ms| (1..=STALE_MS_MAX).contains(ms)).ok_or_else(|| {
                let text = format!("READONLY STALE is from 1 to {STALE_MS_MAX} ms, not {ms}");
                Reply::error("ERR", text)
            })
        }
        _ => Err(Reply::error("ERR", "syntax error: READONLY [STALE ms]")),
    }
}

/// Longest name of a connection, and of a library, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Settings in Redis' words that tools ask for, as they are true here.
const SETTINGS: &[(&str, &str)] = &[
    ("save", ""),
    ("appendonly", "yes"),
    ("appendfsync", "always"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("databases", "1"),
    ("cluster-enabled", "yes"),
];

/// Whether it can be a part of a line of `CLIENT LIST`.
fn is_word(bytes: &[u8]) -> bool {
    bytes.len() <= NAME_BYTES_MAX && bytes.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

impl Connection {
    /// `CONFIG GET pattern…`.
    fn config(&self, command: &Command) -> Reply {
        if !command.arg(1).eq_ignore_ascii_case(b"GET") {
            let name = String::from_utf8_lossy(command.arg(1)).into_owned();
            return Reply::error(
                "ERR",
                format!(
                    "CONFIG {name} is not supported: settings are given at start (outrigger serve --help). CONFIG knows GET."
                ),
            );
        }
        if command.len() < 3 {
            return Reply::wrong_arity(b"config|get");
        }
        let wanted = |name: &str| {
            command
                .args()
                .skip(2)
                .any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
        };
        let Settings { idle_s, clients_max, slowlog_us } = self.settings;
        let own = [
            ("timeout", idle_s),
            ("maxclients", clients_max as u64),
            ("slowlog-log-slower-than", slowlog_us),
            ("slowlog-max-len", SLOW_OPS_MAX as u64),
        ];
        let fixed = SETTINGS.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let all = fixed.chain(own.map(|(name, value)| (name, value.to_string())));
        let told = all.filter(|(name, _)| wanted(name));
        Reply::Map(told.map(|(name, value)| (Reply::bulk(name), Reply::bulk(value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::store::command::{self, COMMANDS};

    fn run(connection: &mut Connection, line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let command = Command::from_args(&args);
        let spec = command::validate(&command).expect("valid");
        let reply = connection.answer(spec, &command);
        let mut out = BytesMut::new();
        reply.encode(connection.protocol(), &mut out);
        String::from_utf8_lossy(&out).replace("\r\n", " ").trim_end().to_owned()
    }

    #[test]
    fn a_conversation() {
        let settings = Settings { idle_s: 300, clients_max: 50, slowlog_us: 9000 };
        let mut connection = Connection::new(7).with_settings(settings);
        assert_eq!(connection.take_told(), None);
        let script = [
            ("PING", "+PONG"),
            ("PING hi", "$2 hi"),
            ("ECHO hi", "$2 hi"),
            ("SELECT 0", "+OK"),
            ("SELECT 1", "-ERR DB index is out of range"),
            ("CLIENT GETNAME", "$-1"),
            ("CLIENT SETNAME me", "+OK"),
            ("CLIENT GETNAME", "$2 me"),
            ("CLIENT ID", ":7"),
            ("CLIENT SETINFO LIB-NAME x", "+OK"),
            ("client setinfo lib-ver 1.2", "+OK"),
            ("CLIENT SETINFO LIB-AGE 3", "-ERR Unrecognized option 'LIB-AGE'"),
            (
                "CLIENT SETINFO lib-name \u{1}",
                "-ERR lib-name cannot contain spaces, newlines or special characters.",
            ),
            ("CLIENT NO-EVICT ON", "+OK"),
            ("CLIENT NO-TOUCH off", "+OK"),
            ("CLIENT TRACKING OFF", "+OK"),
            ("CONFIG GET timeout", "*2 $7 timeout $3 300"),
            ("CONFIG GET maxclients", "*2 $10 maxclients $2 50"),
            ("CONFIG GET slowlog-log-slower-than", "*2 $23 slowlog-log-slower-than $4 9000"),
            ("CONFIG GET slowlog-max-len", "*2 $15 slowlog-max-len $3 128"),
            ("CONFIG GET save", "*2 $4 save $0"),
            ("HELLO 4", "-NOPROTO unsupported protocol version"),
            ("ACL WHOAMI", "$7 default"),
            ("ACL LIST", "*1 $31 user default on nopass ~* +@all"),
            ("COMMAND COUNT", &format!(":{}", COMMANDS.len())),
        ];
        for (line, expected) in script {
            assert_eq!(run(&mut connection, line), expected, "{line}");
        }
        for (line, expected) in [
            ("CLIENT TRACKING ON", "-ERR CLIENT TRACKING is not supported: "),
            ("CLIENT NO-EVICT maybe", "-ERR unknown subcommand or wrong number of arguments"),
            ("CLIENT PAUSE 1", "-ERR unknown subcommand or wrong number of arguments for 'PAUSE'"),
            ("CLIENT HELP", &format!("*{} $63 CLIENT <subcommand>", clients::HELP.len())),
        ] {
            let said = run(&mut connection, line);
            assert!(said.starts_with(expected), "{line}: {said}");
        }
        let told = connection.take_told().expect("it has said something");
        assert_eq!(
            (&*told.name, &*told.lib_name, &*told.lib_ver),
            (&b"me"[..], &b"x"[..], &b"1.2"[..])
        );
        assert_eq!(connection.take_told(), None, "nothing new");
        assert!(run(&mut connection, "HELLO 3").starts_with("%7 $6 server $9 outrigger"));
        assert_eq!(connection.take_told().map(|told| told.protocol), Some(Protocol::Resp3));
        assert_eq!(
            run(&mut connection, "CONFIG GET appendo* save"),
            "%2 $4 save $0  $10 appendonly $3 yes"
        );
        assert_eq!(run(&mut connection, "COMMAND INFO nosuch"), "*1 _");
        assert!(run(&mut connection, "COMMAND DOCS get").starts_with("%1 $3 get %3 $7 summary"));
        assert_eq!(run(&mut connection, "RESET"), "+RESET");
        assert_eq!(connection.protocol(), Protocol::Resp2);
        let multi = command::lookup(b"multi").expect("known");
        connection.transact(multi, &Command::from_args(&[b"MULTI"]));
        let wrong = command::validate(&Command::from_args(&[b"EXEC", b"x"])).expect_err("wrong");
        assert!(connection.refused(wrong).error_text().starts_with("EXECABORT "));
        assert!(connection.transaction.is_none(), "an EXEC that is refused ends it");
        assert!(!connection.is_closing());
        assert_eq!(run(&mut connection, "QUIT"), "+OK");
        assert!(connection.is_closing());
    }

    #[test]
    fn a_node_may_have_its_replicas_answer_those_who_say_nothing() {
        let mut connection = Connection::new(7).with_routing(Routing::Redirect, ReadFrom::Replica);
        for (line, nearby) in [
            ("PING", true),
            ("READWRITE", false),
            ("READONLY", true),
            ("READWRITE", false),
            ("RESET", true),
        ] {
            run(&mut connection, line);
            let manner = connection.manner();
            assert_eq!((manner.nearby, manner.redirects), (nearby, true), "{line}");
        }
        let connection = Connection::new(7).with_routing(Routing::Redirect, ReadFrom::Leader);
        assert!(!connection.manner().nearby);
    }

    /// What `line` gets, whether it is answered here or would be sent on.
    fn said(connection: &mut Connection, line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        match connection.refusal(&Command::from_args(&args)) {
            Some(refusal) => format!("-{}", refusal.error_text()),
            None if ["GET", "NOSUCH"].contains(&line.split(' ').next().unwrap_or_default()) => {
                "served".into()
            }
            None => run(connection, line),
        }
    }

    #[test]
    fn nothing_is_served_before_the_password() {
        let locked =
            || Connection::new(7).with_password(Some(Password::new(b"secret")), Arc::default());
        let (noauth, wrong) = ("-NOAUTH Authentication required.", "-WRONGPASS invalid username");
        for login in
            ["AUTH secret", "AUTH default secret", "HELLO 3 AUTH default secret SETNAME me"]
        {
            let mut connection = locked();
            for line in ["PING", "GET k", "NOSUCH", "CONFIG GET *", "CLIENT ID", "COMMAND"] {
                assert_eq!(said(&mut connection, line), noauth, "{line}");
            }
            for line in ["HELLO", "HELLO 3", "HELLO 3 SETNAME me"] {
                assert!(said(&mut connection, line).starts_with("-NOAUTH HELLO"), "{line}");
            }
            for line in [
                "AUTH Secret",
                "AUTH other secret",
                "AUTH default secre",
                "HELLO 3 AUTH default x",
                "HELLO 3 AUTH other secret",
            ] {
                assert!(said(&mut connection, line).starts_with(wrong), "{line}");
                assert!(connection.is_locked(), "{line}");
            }
            assert_eq!(connection.take_denied(), 5);
            assert_eq!(
                connection.protocol(),
                Protocol::Resp2,
                "a HELLO that failed switches nothing"
            );
            assert!(!said(&mut connection, login).starts_with('-'), "{login}");
            assert_eq!((connection.take_denied(), connection.is_locked()), (0, false));
            assert_eq!(said(&mut connection, "GET k"), "served");
            assert!(!said(&mut connection, "CONFIG GET *").contains("secret"));
            // Who is in stays in.
            assert!(said(&mut connection, "AUTH wrong").starts_with(wrong));
            assert_eq!(said(&mut connection, "GET k"), "served");
            assert_eq!(said(&mut connection, "RESET"), "+RESET");
            assert_eq!(said(&mut connection, "GET k"), noauth);
            assert_eq!(said(&mut connection, "QUIT"), "+OK");
        }
    }

    #[test]
    fn without_a_password_anybody_is_served() {
        let mut connection = Connection::new(7).with_password(None, Arc::default());
        assert_eq!(said(&mut connection, "GET k"), "served");
        assert!(said(&mut connection, "AUTH x").starts_with("-ERR AUTH <password> called without"));
        assert_eq!(said(&mut connection, "AUTH default x"), "+OK");
        assert!(said(&mut connection, "AUTH other x").starts_with("-WRONGPASS"));
        assert!(said(&mut connection, "AUTH a b c").starts_with("-ERR syntax error"));
        assert_eq!(said(&mut connection, "RESET"), "+RESET");
        assert_eq!(said(&mut connection, "GET k"), "served");
    }
}
