//! `CLUSTER …`: what a client of Redis Cluster asks to find its way, as words.
//!
//! ```text
//!   CLUSTER SLOTS | SHARDS | NODES | INFO | MYID | KEYSLOT key | COUNTKEYSINSLOT slot | HELP
//! ```
//!
//! What changes a Redis Cluster (`MEET`, `ADDSLOTS`, `FAILOVER` …) is refused by name: here the groups
//! agree on it, and an operator says `MEMBER` (docs/operations.md).

use crate::wire::reply::Reply;
use crate::wire::resp::{Command, integer};

use super::slot;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Who serves which slots, range by range.
    Slots,
    /// The same, by shard.
    Shards,
    /// All nodes, each with the slots it leads.
    Nodes,
    /// Whether all is well, in numbers.
    Info,
    /// This node's name.
    MyId,
    /// The slot of the key at this argument.
    KeySlot,
    /// How many keys this slot holds.
    CountKeysInSlot(u16),
    /// What there is to ask.
    Help,
}

/// What `CLUSTER HELP` prints.
pub const HELP: &[&str] = &[
    "CLUSTER <subcommand> [<arg> ...]. Subcommands are:",
    "COUNTKEYSINSLOT <slot>",
    "    Returns the number of keys in <slot>, whichever node leads it.",
    "INFO",
    "    Returns whether all slots are led, and counts of nodes and slots.",
    "KEYSLOT <key>",
    "    Returns the hash slot of <key>.",
    "MYID",
    "    Returns the name of this node, 40 hex digits.",
    "NODES",
    "    Returns all nodes, each with the slots that it leads.",
    "SHARDS",
    "    Returns who leads and who replicates which slots, by shard.",
    "SLOTS",
    "    Returns who leads and who replicates which slots, range by range.",
    "HELP",
    "    Prints this help.",
];

/// Reads a `CLUSTER` command.
///
/// # Errors
/// What is wrong with it.
pub fn read(command: &Command) -> Result<Call, Reply> {
    let word = command.arg(1).to_ascii_uppercase();
    let (call, arguments) = match &word[..] {
        b"SLOTS" => (Call::Slots, 0),
        b"SHARDS" => (Call::Shards, 0),
        b"NODES" => (Call::Nodes, 0),
        b"INFO" => (Call::Info, 0),
        b"MYID" => (Call::MyId, 0),
        b"HELP" => (Call::Help, 0),
        b"KEYSLOT" => (Call::KeySlot, 1),
        b"COUNTKEYSINSLOT" => (Call::CountKeysInSlot(0), 1),
        _ => return Err(unknown(command.arg(1))),
    };
    if command.len() != 2 + arguments {
        let name = format!("cluster|{}", String::from_utf8_lossy(&word).to_lowercase());
        return Err(Reply::wrong_arity(name.as_bytes()));
    }
    if let Call::CountKeysInSlot(_) = call {
        let slot = integer(command.arg(2)).and_then(|slot| u16::try_from(slot).ok());
        let slot = slot.filter(|slot| *slot < slot::SLOTS);
        return slot
            .map(Call::CountKeysInSlot)
            .ok_or_else(|| Reply::error("ERR", "Invalid or out of range slot"));
    }
    Ok(call)
}

fn unknown(word: &[u8]) -> Reply {
    const SHOWN_MAX: usize = 64;
    let name = String::from_utf8_lossy(&word[..word.len().min(SHOWN_MAX)]).into_owned();
    Reply::error(
        "ERR",
        format!(
            "CLUSTER {name} is not supported: the groups agree on who serves what (MEMBER). CLUSTER knows SLOTS, SHARDS, NODES, INFO, MYID, KEYSLOT, COUNTKEYSINSLOT, HELP."
        ),
    )
}

/// Why `ASKING` is refused: nothing here ever answers with `-ASK`.
#[must_use]
pub(super) fn asking() -> Reply {
    Reply::error(
        "ERR",
        "ASKING is not supported: a slot never moves key by key, so no node answers with -ASK",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::command;

    #[test]
    fn calls_are_read_and_what_is_no_call_is_refused_by_name() {
        let check = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let command = Command::from_args(&args);
            command::validate(&command).and_then(|_| read(&command))
        };
        assert_eq!(check("CLUSTER SLOTS"), Ok(Call::Slots));
        assert_eq!(check("cluster shards"), Ok(Call::Shards));
        assert_eq!(check("CLUSTER KEYSLOT k"), Ok(Call::KeySlot));
        assert_eq!(check("CLUSTER COUNTKEYSINSLOT 16383"), Ok(Call::CountKeysInSlot(16_383)));
        let refused = |line: &str| check(line).expect_err(line).error_text().to_owned();
        for line in ["CLUSTER COUNTKEYSINSLOT 16384", "CLUSTER COUNTKEYSINSLOT -1"] {
            assert_eq!(refused(line), "ERR Invalid or out of range slot");
        }
        assert_eq!(
            refused("CLUSTER NODES x"),
            "ERR wrong number of arguments for 'cluster|nodes' command"
        );
        assert!(
            refused("CLUSTER MEET 10.0.0.1 1").starts_with("ERR CLUSTER MEET is not supported")
        );
        assert!(refused("CLUSTER").contains("wrong number of arguments for 'cluster'"));
        assert!(refused("ASKING").starts_with("ERR ASKING is not supported"));
    }
}
