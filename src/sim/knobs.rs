//! What can be switched off in a world, by name: for the minimiser, and for whoever replays its find.

use super::disk::Tear;
use super::options::Options;
use crate::shard::LeasedGroups;

/// Something that a world has or has not.
#[derive(Clone, Copy)]
pub struct Knob {
    /// As it is called on the command line.
    pub name: &'static str,
    /// Whether this world has it.
    pub is_on: fn(&Options) -> bool,
    /// From now on it has not.
    pub turn_off: fn(&mut Options),
}

/// A knob that is a number, off when zero.
macro_rules! number {
    ($name:literal, $($field:tt).+) => {
        Knob {
            name: $name,
            is_on: |options| options.$($field).+ != 0,
            turn_off: |options| options.$($field).+ = 0,
        }
    };
}

/// All of them, those that strike hardest first.
pub const ALL: &[Knob] = &[
    number!("nodes.crash", nodes.crash_every_ms),
    Knob {
        name: "nodes.crash-at",
        is_on: |options| options.nodes.crash_at.is_some(),
        turn_off: |options| options.nodes.crash_at = None,
    },
    number!("nodes.crash-all", nodes.crash_all),
    number!("nodes.crash-in-turn", nodes.crash_in_turn),
    number!("nodes.crash-in-recovery", nodes.crash_in_recovery),
    number!("nodes.amnesia", nodes.wipe_every_ms),
    number!("nodes.pause", nodes.pause_every_ms),
    number!("nodes.core-stall", nodes.stall_every_ms),
    number!("nodes.mailbox-full", nodes.mailbox_full),
    number!("nodes.clock-skew", nodes.clock_skew_percent),
    number!("nodes.clock-rate", nodes.clock_rate_every_ms),
    number!("nodes.clock-jump", nodes.clock_jump_every_ms),
    number!("net.partition", net.partition_every_ms),
    number!("net.one-way", net.one_way),
    number!("net.flap", net.flap_every_ms),
    number!("net.swizzle", net.swizzle_every_ms),
    number!("net.slow-link", net.slow_link_every_ms),
    number!("net.break", net.break_link),
    number!("net.stale", net.stale),
    number!("net.corrupt", net.corrupt),
    number!("net.drop", net.drop),
    number!("net.duplicate", net.duplicate),
    number!("net.overtake", net.overtake),
    number!("net.slow", net.slow),
    number!("disk.write-error", disk.error),
    number!("disk.short-write", disk.short_write),
    number!("disk.sync-error", disk.sync_error),
    number!("disk.read-error", disk.read_error),
    number!("disk.stall", disk.stall),
    number!("disk.slow", disk.slow_every_ms),
    number!("disk.hang", disk.hang_every_ms),
    number!("disk.full", disk.full_every_ms),
    number!("disk.decay", disk.decay_every_ms),
    number!("disk.files", disk.files_every_ms),
    number!("disk.everywhere", disk.everywhere),
    number!("disk.misread", disk.misread),
    number!("disk.foreign", disk.foreign),
    Knob {
        name: "disk.recycle",
        is_on: |options| options.disk.recycles,
        turn_off: |options| options.disk.recycles = false,
    },
    Knob {
        name: "disk.tear",
        is_on: |options| options.disk.tears != [Tear::Lose],
        turn_off: |options| options.disk.tears = vec![Tear::Lose],
    },
    number!("operator", operate_every_ms),
    number!("sessions", session_clients),
    number!("coarse-turns", turn_us),
    Knob {
        name: "nearby",
        is_on: |options| options.reads_nearby,
        turn_off: |options| options.reads_nearby = false,
    },
    Knob {
        name: "leases",
        is_on: |options| options.leases.groups != LeasedGroups::None,
        turn_off: |options| options.leases.groups = LeasedGroups::None,
    },
];

impl Options {
    /// The names of what this world has.
    #[must_use]
    pub fn knobs(&self) -> Vec<&'static str> {
        ALL.iter().filter(|knob| (knob.is_on)(self)).map(|knob| knob.name).collect()
    }

    /// The same world with only these of the things it has.
    ///
    /// # Errors
    /// The name of something no world has.
    pub fn only(mut self, names: &[&str]) -> Result<Self, String> {
        if let Some(name) = names.iter().find(|name| ALL.iter().all(|knob| knob.name != **name)) {
            return Err(format!("nothing is called {name}"));
        }
        for knob in ALL.iter().filter(|knob| !names.contains(&knob.name)) {
            (knob.turn_off)(&mut self);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knob_turned_off_is_off_and_alone() {
        for seed in 0..50 {
            let options = Options::swarm(seed);
            let names = options.knobs();
            assert_eq!(options.clone().only(&names).expect("known"), options);
            for knob in ALL {
                let mut off = options.clone();
                (knob.turn_off)(&mut off);
                let rest: Vec<_> = names.iter().filter(|name| **name != knob.name).collect();
                assert!(off.knobs().iter().eq(rest), "{}", knob.name);
            }
        }
        assert!(Options::swarm(0).only(&["net.nothing"]).is_err());
    }
}
