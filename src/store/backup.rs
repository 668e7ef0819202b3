//! `BACKUP`: one group's data as this node has applied it, piece by piece, over a client's connection.
//!
//! ```text
//!   BACKUP OPEN group ─► (number, term, index) ─► BACKUP NEXT group number … ─► piece, piece, …, nil
//!                                                 BACKUP CLOSE group number       it is given up
//! ```
//!
//! A piece is a snapshot's ([`crate::group::snapshot`]), with its own checksum; the last one has a digest over
//! all. `outrigger ctl backup` says these words and keeps the pieces.

use crate::id::GroupId;
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, integer};

/// What a `BACKUP` command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The group.
    pub group: GroupId,
    /// What.
    pub verb: Verb,
}

/// What is wanted of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// That it begins: of what is applied now.
    Open,
    /// Its next piece.
    Next(u64),
    /// That it ends.
    Close(u64),
}

/// Reads a `BACKUP` command.
///
/// # Errors
/// What is wrong with it.
pub fn read(command: &Command) -> Result<Call, Reply> {
    let usage = || {
        let text = "syntax error: BACKUP OPEN group | NEXT group number | CLOSE group number";
        Reply::error("ERR", text)
    };
    let number = |at: usize| {
        let number = integer(command.arg(at)).and_then(|number| u64::try_from(number).ok());
        number.ok_or_else(Reply::not_an_integer)
    };
    let word = command.arg(1).to_ascii_uppercase();
    let verb = match (&word[..], command.len()) {
        (b"OPEN", 3) => Verb::Open,
        (b"NEXT", 4) => Verb::Next(number(3)?),
        (b"CLOSE", 4) => Verb::Close(number(3)?),
        _ => return Err(usage()),
    };
    Ok(Call { group: GroupId(number(2)?), verb })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read() {
        let read = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            read(&Command::from_args(&args))
        };
        let call = |group, verb| Ok(Call { group: GroupId(group), verb });
        assert_eq!(read("BACKUP OPEN 3"), call(3, Verb::Open));
        assert_eq!(read("backup next 3 7"), call(3, Verb::Next(7)));
        assert_eq!(read("BACKUP CLOSE 3 7"), call(3, Verb::Close(7)));
        for line in
            ["BACKUP OPEN", "BACKUP OPEN x", "BACKUP NEXT 3", "BACKUP CLOSE 3 -1", "BACKUP 3"]
        {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
