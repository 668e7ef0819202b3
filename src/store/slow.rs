//! `SLOWLOG`: what is asked of it. What it answers is the shards' to know.

use crate::wire::reply::Reply;
use crate::wire::resp::{Command, integer};

/// What is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// The latest, as many as this.
    Get(usize),
    /// How many there are.
    Len,
    /// Forget them.
    Reset,
    /// What can be asked.
    Help,
}

/// What `SLOWLOG HELP` prints.
pub const HELP: &[&str] = &[
    "SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET [<count>]",
    "    Returns the latest operations that took long, 10 of them by default, -1 is all: number, second of",
    "    the end, microseconds, arguments, address and name of the client (empty), and the stages.",
    "LEN",
    "    Returns how many there are.",
    "RESET",
    "    Forgets them.",
    "HELP",
    "    Prints this help.",
];

/// Understands `SLOWLOG GET [count] | LEN | RESET | HELP`.
///
/// # Errors
/// The refusal, for anything else.
pub fn read(command: &Command) -> Result<Call, Reply> {
    let sub = command.arg(1).to_ascii_lowercase();
    match (&sub[..], command.len()) {
        (b"get", 2) => Ok(Call::Get(10)),
        (b"get", 3) => match integer(command.arg(2)).ok_or_else(Reply::not_an_integer)? {
            -1 => Ok(Call::Get(usize::MAX)),
            count => usize::try_from(count)
                .map(Call::Get)
                .map_err(|_| Reply::error("ERR", "count should be greater than or equal to -1")),
        },
        (b"len", 2) => Ok(Call::Len),
        (b"reset", 2) => Ok(Call::Reset),
        (b"help", 2) => Ok(Call::Help),
        _ => {
            let name = String::from_utf8_lossy(command.arg(1)).into_owned();
            let text = format!(
                "unknown subcommand or wrong number of arguments for '{name}'. Try SLOWLOG HELP."
            );
            Err(Reply::error("ERR", text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_understood_or_refused() {
        let call = |args: &[&[u8]]| read(&Command::from_args(args));
        assert_eq!(call(&[b"SLOWLOG", b"get"]).unwrap(), Call::Get(10));
        assert_eq!(call(&[b"SLOWLOG", b"GET", b"-1"]).unwrap(), Call::Get(usize::MAX));
        assert_eq!(call(&[b"SLOWLOG", b"GET", b"3"]).unwrap(), Call::Get(3));
        assert_eq!(call(&[b"SLOWLOG", b"LEN"]).unwrap(), Call::Len);
        assert_eq!(call(&[b"SLOWLOG", b"RESET"]).unwrap(), Call::Reset);
        assert_eq!(call(&[b"SLOWLOG", b"help"]).unwrap(), Call::Help);
        for wrong in [
            &[&b"SLOWLOG"[..], b"GET", b"-2"][..],
            &[b"SLOWLOG", b"GET", b"x"],
            &[b"SLOWLOG", b"LEN", b"1"],
            &[b"SLOWLOG", b"X"],
        ] {
            assert!(call(wrong).is_err(), "{wrong:?}");
        }
    }
}
