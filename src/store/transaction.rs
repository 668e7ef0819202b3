//! `MULTI`, `EXEC`, `DISCARD`, `WATCH` and `UNWATCH`: several commands on one slot as one entry of the log.
//!
//! ```text
//!  WATCH k ────────────► a read: what k holds, as a number ────────► kept by the connection
//!  MULTI, SET k v, … ──► kept by the connection, answered QUEUED
//!  EXEC ───────────────► one command: slot · watched keys and numbers · the commands ──► log ──► machine
//! ```
//!
//! The machine executes all of it at one place of the log, or nothing if a watched key no longer holds what
//! it held. A connection has a [`Transaction`] from its first `MULTI` or `WATCH` until it is executed or given up.
//!
//! # Bytes
//!
//! The one command is an array like any other; clients cannot send it, because their `EXEC` has no arguments.
//!
//! ```text
//!  EXEC · slot · how many are watched · (key · its number) … · command, as it was sent …
//! ```

use bytes::Bytes;

use crate::limits;
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, integer};

use super::command::{self, Access, Spec};
use super::slot;

/// What becomes of a command of a connection with a transaction.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It is answered here.
    Reply(Reply),
    /// The same, and the transaction is over.
    Over(Reply),
    /// It is no business of the transaction.
    Pass,
    /// A read whose answer goes to [`Transaction::watched`].
    Watch,
    /// This is executed in its place, and the transaction is over.
    Execute(Command),
}

/// One connection's transaction. Bounded by [`limits::TRANSACTION_COMMANDS_MAX`] and
/// [`limits::COMMAND_BYTES_MAX`].
#[derive(Debug, Default)]
pub struct Transaction {
    /// After `MULTI`.
    is_open: bool,
    /// Something was refused: `EXEC` will be, too.
    is_spoilt: bool,
    /// The slot of all its keys.
    slot: Option<u16>,
    /// Keys that were asked about and are not known yet.
    asked: Vec<Bytes>,
    watched: Vec<(Bytes, i64)>,
    /// Copies: a slice would hold on to what the whole core receives into.
    queued: Vec<Bytes>,
    bytes: usize,
}

impl Transaction {
    /// Whether this command begins one.
    #[must_use]
    pub fn begins_with(name: &str) -> bool {
        matches!(name, "multi" | "watch" | "exec" | "discard" | "unwatch")
    }

    /// Takes the next command of the connection; it is valid.
    pub fn step(&mut self, spec: &Spec, command: &Command) -> Step {
        let error = |text: &str| Step::Reply(Reply::error("ERR", text));
        match spec.name {
            "multi" if self.is_open => error("MULTI calls can not be nested"),
            "multi" => {
                self.is_open = true;
                Step::Reply(Reply::Ok)
            }
            "watch" if self.is_open => error("WATCH inside MULTI is not allowed"),
            "watch" => match self.watch(spec, command) {
                Ok(()) => Step::Watch,
                Err(refusal) => Step::Reply(self.spoil(refusal)),
            },
            "unwatch" if !self.is_open => Step::Over(Reply::Ok),
            "discard" if self.is_open => Step::Over(Reply::Ok),
            "discard" => error("DISCARD without MULTI"),
            "exec" if !self.is_open => error("EXEC without MULTI"),
            "exec" => self.execute(),
            "quit" | "reset" => Step::Over(Reply::Ok).passed(),
            _ if !self.is_open => Step::Pass,
            _ => match self.queue(spec, command) {
                Ok(()) => Step::Reply(Reply::Simple("QUEUED")),
                Err(refusal) => Step::Reply(self.spoil(refusal)),
            },
        }
    }

    /// A command of the connection was refused before it came here.
    pub fn refused(&mut self, refusal: Reply) -> Reply {
        if self.is_open { self.spoil(refusal) } else { refusal }
    }

    /// Whether what was refused was the `EXEC` itself, which ends it.
    #[must_use]
    pub fn ends_with(refusal: &Reply) -> bool {
        refusal.error_text().starts_with(ABORT)
    }

    /// Who queued it may do other things than when it was queued.
    pub fn outdate(&mut self) {
        if self.is_open {
            self.is_spoilt = true;
            (self.queued, self.bytes) = (Vec::new(), 0);
        }
    }

    fn spoil(&mut self, refusal: Reply) -> Reply {
        self.is_spoilt = true;
        (self.queued, self.bytes) = (Vec::new(), 0);
        refusal
    }

    /// All keys are in the slot of those before.
    fn in_one_slot(&mut self, spec: &Spec, command: &Command) -> Result<(), Reply> {
        for key in spec.keys(command.len()) {
            let slot = slot::key_slot(command.arg(key));
            if *self.slot.get_or_insert(slot) != slot {
                let text = "Keys in request don't hash to the same slot: a transaction is on one";
                return Err(Reply::error("CROSSSLOT", text));
            }
        }
        Ok(())
    }

    fn make_room(&mut self, bytes: usize) -> Result<(), Reply> {
        let parts = self.queued.len() + self.watched.len() + self.asked.len();
        if limits::TRANSACTION_COMMANDS_MAX <= parts {
            let max = limits::TRANSACTION_COMMANDS_MAX;
            let text = format!("a transaction has at most {max} commands and watched keys");
            return Err(Reply::error("ERR", text));
        }
        // With what is put around each part.
        self.bytes += bytes + 64;
        if limits::COMMAND_BYTES_MAX < self.bytes {
            let max = limits::COMMAND_BYTES_MAX;
            return Err(Reply::error("ERR", format!("a transaction has at most {max} bytes")));
        }
        Ok(())
    }

    fn watch(&mut self, spec: &Spec, command: &Command) -> Result<(), Reply> {
        self.in_one_slot(spec, command)?;
        for key in command.args().skip(1) {
            self.make_room(key.len())?;
            self.asked.push(Bytes::copy_from_slice(key));
        }
        Ok(())
    }

    /// The answer to a [`Step::Watch`]; what the client hears.
    pub fn watched(&mut self, reply: Reply) -> Reply {
        let asked = std::mem::take(&mut self.asked);
        match reply {
            Reply::Array(numbers) if numbers.len() == asked.len() => {
                for (key, number) in asked.into_iter().zip(numbers) {
                    let Reply::Int(number) = number else {
                        return self.spoil(Reply::error("ERR", "no answer to WATCH"));
                    };
                    self.watched.push((key, number));
                }
                Reply::Ok
            }
            // Without knowing what the keys hold nothing may be executed.
            refusal => self.spoil(refusal),
        }
    }

    fn queue(&mut self, spec: &Spec, command: &Command) -> Result<(), Reply> {
        if spec.first_key == 0 || !matches!(spec.access, Access::Read | Access::Write) {
            let name = spec.name;
            let text =
                format!("'{name}' is not for a transaction: those are on the keys of one slot");
            return Err(Reply::error("ERR", text));
        }
        self.in_one_slot(spec, command)?;
        if self.is_spoilt {
            return Ok(());
        }
        self.make_room(command.raw.len())?;
        self.queued.push(Bytes::copy_from_slice(&command.raw));
        Ok(())
    }

    fn execute(&mut self) -> Step {
        if self.is_spoilt {
            let text = "Transaction discarded because of previous errors.";
            return Step::Over(Reply::error(ABORT, text));
        }
        let Some(slot) = self.slot else { return Step::Over(Reply::Array(Vec::new())) };
        let (slot, watched) = (slot.to_string(), self.watched.len().to_string());
        let numbers: Vec<String> = self.watched.iter().map(|(_, it)| it.to_string()).collect();
        let mut args: Vec<&[u8]> = vec![b"EXEC", slot.as_bytes(), watched.as_bytes()];
        for ((key, _), number) in self.watched.iter().zip(&numbers) {
            args.extend([&key[..], number.as_bytes()]);
        }
        args.extend(self.queued.iter().map(|command| &command[..]));
        Step::Execute(Command::from_args(&args))
    }
}

impl Step {
    /// `QUIT` and `RESET` end a transaction and are then what they always are.
    fn passed(self) -> Self {
        match self {
            Self::Over(_) => Self::Pass,
            step => step,
        }
    }
}

/// The first word of what an `EXEC` is answered with that is refused.
const ABORT: &str = "EXECABORT";

/// What an `EXEC` is answered with that is refused for this reason, in Redis' words.
#[must_use]
pub(super) fn aborted(reason: &Reply) -> Reply {
    let text = reason.error_text();
    let text = text.strip_prefix("ERR ").unwrap_or(text);
    Reply::error(ABORT, format!("Transaction discarded because of: {text}"))
}

/// A whole transaction, as it is replicated.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    /// The slot of all its keys.
    pub slot: u16,
    /// Keys, and what each must still hold.
    pub watched: Vec<(Bytes, i64)>,
    /// What to execute.
    pub commands: Vec<Command>,
}

/// Whether this is a whole transaction. No client can send one.
#[must_use]
pub fn is_whole(command: &Command) -> bool {
    1 < command.len() && command.name() == b"EXEC"
}

/// Reads a whole transaction.
///
/// # Errors
/// If no version of ours made it.
pub fn read(command: &Command) -> Result<Whole, Reply> {
    let wrong = || Reply::error("ERR", "a transaction that this version does not understand");
    let number = |at: usize| match at < command.len() {
        true => integer(command.arg(at)).ok_or_else(wrong),
        false => Err(wrong()),
    };
    let part = |at: usize| command.raw.slice_ref(command.arg(at));
    if !is_whole(command) {
        return Err(wrong());
    }
    let slot = u16::try_from(number(1)?).map_err(|_| wrong())?;
    let watched = usize::try_from(number(2)?).map_err(|_| wrong())?;
    let first = watched.checked_mul(2).and_then(|parts| parts.checked_add(3)).ok_or_else(wrong)?;
    if command.len() < first {
        return Err(wrong());
    }
    let watched = (3..first).step_by(2).map(|at| Ok((part(at), number(at + 1)?)));
    let inner = (first..command.len()).map(|at| {
        let inner = Command::parse(part(at)).map_err(|_| wrong())?;
        let spec = command::validate(&inner)?;
        let is_allowed = matches!(spec.access, Access::Read | Access::Write);
        if is_allowed && spec.first_key > 0 { Ok(inner) } else { Err(wrong()) }
    });
    Ok(Whole {
        slot,
        watched: watched.collect::<Result<_, _>>()?,
        commands: inner.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        Command::from_args(&args)
    }

    fn step(transaction: &mut Transaction, line: &str) -> Step {
        let command = command(line);
        let spec = command::validate(&command).expect(line);
        transaction.step(spec, &command)
    }

    fn said(step: &Step) -> &str {
        match step {
            Step::Reply(Reply::Error(text)) | Step::Over(Reply::Error(text)) => text,
            Step::Reply(Reply::Ok) | Step::Over(Reply::Ok) => "OK",
            Step::Reply(Reply::Simple(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_queued_is_executed_as_one() {
        let mut it = Transaction::default();
        assert_eq!(step(&mut it, "WATCH {t}k {t}l"), Step::Watch);
        assert_eq!(it.watched(Reply::Array(vec![Reply::Int(-7), Reply::Int(8)])), Reply::Ok);
        assert_eq!(step(&mut it, "GET {t}k"), Step::Pass);
        assert_eq!(said(&step(&mut it, "MULTI")), "OK");
        assert_eq!(said(&step(&mut it, "MULTI")), "ERR MULTI calls can not be nested");
        assert_eq!(said(&step(&mut it, "WATCH {t}k")), "ERR WATCH inside MULTI is not allowed");
        for line in ["INCR {t}k", "GET {t}l", "SET {t}k v EX 5"] {
            assert_eq!(said(&step(&mut it, line)), "QUEUED");
        }
        let Step::Execute(whole) = step(&mut it, "EXEC") else { panic!("not executed") };
        assert!(is_whole(&whole));
        assert!(command::validate(&whole).is_err(), "no client can send it");
        assert!(command::depends_on_time(&whole));
        let key = |key: &str| Bytes::copy_from_slice(key.as_bytes());
        let expected = Whole {
            slot: slot::key_slot(b"t"),
            watched: vec![(key("{t}k"), -7), (key("{t}l"), 8)],
            commands: ["INCR {t}k", "GET {t}l", "SET {t}k v EX 5"].map(command).to_vec(),
        };
        let read = read(&Command::parse(whole.raw).expect("an array"));
        assert_eq!(read.expect("ours"), expected);
    }

    #[test]
    fn whatever_is_refused_spoils_it() {
        let abort = "EXECABORT Transaction discarded because of previous errors.";
        let refused = [
            ("GET other", "CROSSSLOT "),
            ("FLUSHALL", "ERR 'flushall' is not for a transaction"),
            ("PING", "ERR 'ping' is not for a transaction"),
            ("SCAN 0", "ERR 'scan' is not for a transaction"),
            ("CLIENT SESSION OPEN", "ERR 'open' is not for a transaction"),
        ];
        for (line, expected) in refused {
            let mut it = Transaction::default();
            step(&mut it, "MULTI");
            step(&mut it, "SET k v");
            let refusal = step(&mut it, line);
            assert!(said(&refusal).starts_with(expected), "{line}: {refusal:?}");
            assert_eq!(said(&step(&mut it, "GET k")), "QUEUED");
            assert_eq!(said(&step(&mut it, "EXEC")), abort, "{line}");
        }
        let mut it = Transaction::default();
        step(&mut it, "MULTI");
        it.refused(Reply::error("ERR", "unknown command"));
        assert_eq!(said(&step(&mut it, "EXEC")), abort);

        let wrong = command::validate(&command("EXEC x")).expect_err("wrong");
        assert!(Transaction::ends_with(&wrong), "{wrong:?}");

        let mut it = Transaction::default();
        assert_eq!(step(&mut it, "WATCH k"), Step::Watch);
        let refusal = Reply::error("NOLEADER", "just now");
        assert_eq!(it.watched(refusal.clone()), refusal);
        step(&mut it, "MULTI");
        assert_eq!(said(&step(&mut it, "EXEC")), abort, "nobody knows what k held");
    }

    #[test]
    fn what_was_not_begun_is_not_ended() {
        let mut it = Transaction::default();
        assert_eq!(said(&step(&mut it, "EXEC")), "ERR EXEC without MULTI");
        assert_eq!(said(&step(&mut it, "DISCARD")), "ERR DISCARD without MULTI");
        assert_eq!(step(&mut it, "UNWATCH"), Step::Over(Reply::Ok));
        step(&mut it, "MULTI");
        assert_eq!(step(&mut it, "QUIT"), Step::Pass);
        assert_eq!(step(&mut it, "DISCARD"), Step::Over(Reply::Ok));
        let mut it = Transaction::default();
        step(&mut it, "MULTI");
        assert_eq!(step(&mut it, "EXEC"), Step::Over(Reply::Array(Vec::new())));
    }

    #[test]
    fn it_has_bounds() {
        let mut it = Transaction::default();
        step(&mut it, "MULTI");
        for _ in 0..limits::TRANSACTION_COMMANDS_MAX {
            assert_eq!(said(&step(&mut it, "INCR k")), "QUEUED");
        }
        assert!(said(&step(&mut it, "INCR k")).starts_with("ERR a transaction has at most"));
        let mut it = Transaction::default();
        step(&mut it, "MULTI");
        let value = vec![b'v'; limits::COMMAND_BYTES_MAX / 2];
        let set = Command::from_args(&[b"SET", b"k", &value]);
        let spec = command::lookup(b"set").expect("known");
        assert_eq!(it.step(spec, &set), Step::Reply(Reply::Simple("QUEUED")));
        let refusal = it.step(spec, &set);
        assert!(said(&refusal).starts_with("ERR a transaction has at most"), "{refusal:?}");
        assert_eq!(it.queued.len(), 0, "what will not be executed is not kept");
    }

    #[test]
    fn no_bytes_panic() {
        for line in
            ["EXEC 5", "EXEC x 0", "EXEC 5 -1", "EXEC 5 9 k 1", "EXEC 5 1 k x", "EXEC 5 0 SET"]
        {
            assert!(read(&command(line)).is_err(), "{line}");
        }
        let huge = format!("EXEC 5 {} k 1", i64::MAX);
        assert!(read(&command(&huge)).is_err());
        let nested = Command::from_args(&[b"EXEC", b"5", b"0", &command("PING").raw]);
        assert!(read(&nested).is_err(), "not a command on keys");
    }
}
