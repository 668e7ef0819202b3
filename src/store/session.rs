//! `CLIENT SESSION …`: what a client says to have its writes executed exactly once
//! (docs/commands.md, "Sessions").

use crate::id::SessionId;
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, integer};

use super::command::{self, Access, NO_KEYS, Spec, spec};

/// What the client wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// A new session.
    Open,
    /// The end of one.
    Close(SessionId),
    /// To have this command executed once, however often it says so.
    Run {
        /// In this session.
        id: SessionId,
        /// As this request of it; 1 or more.
        seq: u64,
        /// A valid command that writes.
        command: Command,
    },
}

const OPEN: Spec = spec("open", 3, Access::Session, NO_KEYS, "Opens a session.");
const RUN: Spec = spec("run", -6, Access::Session, NO_KEYS, "Runs a command once.");
const CLOSE: Spec = spec("close", 4, Access::Session, NO_KEYS, "Closes a session.");

/// What `CLIENT SESSION HELP` prints.
pub const HELP: &[&str] = &[
    "CLIENT SESSION <subcommand> [<arg> ...]. Subcommands are:",
    "OPEN",
    "    Opens a session in every group and returns its id.",
    "RUN <id> <seq> <command> [<arg> ...]",
    "    Runs a command that writes, as request <seq> of the session. Sent again with the same <seq>",
    "    it is not executed again, and returns what it returned the first time. <seq> is 1 or more",
    "    and ascends from request to request.",
    "CLOSE <id>",
    "    Forgets the session. Returns 1 if it was open in any group, else 0.",
    "HELP",
    "    Prints this help.",
];

/// Whether this is `CLIENT SESSION …`.
#[must_use]
pub fn is_session(command: &Command) -> bool {
    command.name().eq_ignore_ascii_case(b"client")
        && 2 <= command.len()
        && command.arg(1).eq_ignore_ascii_case(b"session")
}

/// The subcommand of a `CLIENT SESSION …` that concerns groups; none if the connection answers it.
///
/// # Errors
/// If it is no such subcommand, or not enough of one.
pub(super) fn lookup(command: &Command) -> Result<Option<&'static Spec>, Reply> {
    let word = if command.len() < 3 { b"help" } else { command.arg(2) };
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let found = [&OPEN, &RUN, &CLOSE].into_iter().find(|spec| is(spec.name));
    match found {
        Some(spec) if spec.takes(command.len()) => Ok(Some(spec)),
        Some(spec) => Err(Reply::wrong_arity(format!("client|session|{}", spec.name).as_bytes())),
        None if is("help") && command.len() <= 3 => Ok(None),
        None => {
            let name = String::from_utf8_lossy(word).into_owned();
            Err(Reply::error(
                "ERR",
                format!(
                    "unknown subcommand or wrong number of arguments for '{name}'. Try CLIENT SESSION HELP."
                ),
            ))
        }
    }
}

/// Reads a `CLIENT SESSION` command that [`command::validate`] has let through, or is asked to.
///
/// # Errors
/// If it cannot be executed as written.
pub fn read(command: &Command) -> Result<Call, Reply> {
    let spec = lookup(command)?;
    let number =
        |at: usize| integer(command.arg(at)).and_then(|n| u64::try_from(n).ok()).filter(|&n| n > 0);
    let id = || {
        number(3)
            .map(SessionId)
            .ok_or_else(|| Reply::error("ERR", "a session's id is a number, as OPEN returned it"))
    };
    match spec.map(|spec| spec.name) {
        Some("open") => Ok(Call::Open),
        Some("close") => Ok(Call::Close(id()?)),
        Some("run") => {
            let id = id()?;
            let seq = number(4).ok_or_else(|| {
                Reply::error("ERR", "a request's number is an integer of 1 or more")
            })?;
            let inner: Vec<&[u8]> = command.args().skip(5).collect();
            let inner = Command::from_args(&inner);
            let spec = command::validate(&inner)?;
            if !matches!(spec.access, Access::Write | Access::AllWrite) {
                let name = String::from_utf8_lossy(inner.name()).to_lowercase();
                return Err(Reply::error(
                    "ERR",
                    format!(
                        "CLIENT SESSION RUN is for commands that write, '{name}' does not: send it by itself"
                    ),
                ));
            }
            Ok(Call::Run { id, seq, command: inner })
        }
        _ => Err(Reply::error("ERR", "the connection answers this command itself")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<Call, String> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let command = Command::from_args(&args);
        assert!(is_session(&command), "{line}");
        let read = read(&command);
        let valid = command::validate(&command);
        assert_eq!(read.as_ref().err(), valid.err().as_ref(), "{line}");
        read.map_err(|refusal| refusal.error_text().to_owned())
    }

    #[test]
    fn calls_are_read() {
        assert_eq!(check("client session open"), Ok(Call::Open));
        assert_eq!(check("CLIENT SESSION CLOSE 17"), Ok(Call::Close(SessionId(17))));
        let run =
            Call::Run { id: SessionId(17), seq: 3, command: Command::from_args(&[b"INCR", b"k"]) };
        assert_eq!(check("CLIENT Session RUN 17 3 INCR k"), Ok(run));
        assert!(check("CLIENT SESSION RUN 17 3 FLUSHALL").is_ok());
    }

    #[test]
    fn what_cannot_be_run_once_is_refused_before_it_is_sent_anywhere() {
        let not_a_write = |name: &str| {
            format!(
                "ERR CLIENT SESSION RUN is for commands that write, '{name}' does not: send it by itself"
            )
        };
        let cases = [
            ("CLIENT SESSION RUN 17 0 INCR k", "ERR a request's number is an integer of 1 or more"),
            ("CLIENT SESSION RUN 17 x INCR k", "ERR a request's number is an integer of 1 or more"),
            (
                "CLIENT SESSION RUN x 1 INCR k",
                "ERR a session's id is a number, as OPEN returned it",
            ),
            ("CLIENT SESSION CLOSE -1", "ERR a session's id is a number, as OPEN returned it"),
            (
                "CLIENT SESSION RUN 17 1",
                "ERR wrong number of arguments for 'client|session|run' command",
            ),
            (
                "CLIENT SESSION OPEN 17",
                "ERR wrong number of arguments for 'client|session|open' command",
            ),
            ("CLIENT SESSION RUN 17 1 INCR", "ERR wrong number of arguments for 'incr' command"),
            ("CLIENT SESSION RUN 17 1 GET k", &not_a_write("get")),
            ("CLIENT SESSION RUN 17 1 PING", &not_a_write("ping")),
            ("CLIENT SESSION RUN 17 1 CLIENT SESSION OPEN", &not_a_write("client")),
            (
                "CLIENT SESSION RENEW 17",
                "ERR unknown subcommand or wrong number of arguments for 'RENEW'. Try CLIENT SESSION HELP.",
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(check(line), Err(expected.to_owned()), "{line}");
        }
    }
}
