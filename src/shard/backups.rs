//! Backups that clients are taking of this core's groups: each a frozen state that is handed out a piece at a
//! time, while the group goes on.

use std::collections::BTreeMap;

use crate::group::{Outgoing, Replica, refusal};
use crate::id::{GroupId, Tick};
use crate::limits;
use crate::store::backup::Verb;
use crate::wire::reply::Reply;

/// One per shard; bounded by `limits::BACKUPS_MAX` and `limits::BACKUP_SILENCE_MS_MAX`.
#[derive(Default)]
pub(super) struct Backups {
    open: BTreeMap<u64, Backup>,
    opened: u64,
}

struct Backup {
    group: GroupId,
    outgoing: Outgoing,
    /// Given up then, unless somebody asks before.
    until: Tick,
}

impl Backups {
    pub(super) fn answer(&mut self, now: Tick, replica: &Replica, verb: Verb) -> Reply {
        match verb {
            Verb::Open => self.open(now, replica),
            Verb::Next(number) => self.next(now, replica.group(), number),
            Verb::Close(number) => {
                let is_open = self.open.get(&number).is_some_and(|it| it.group == replica.group());
                if is_open {
                    self.open.remove(&number);
                }
                Reply::Int(i64::from(is_open))
            }
        }
    }

    fn open(&mut self, now: Tick, replica: &Replica) -> Reply {
        if limits::BACKUPS_MAX <= self.open.len() {
            return refusal::busy("this core has as many backups under way as it may");
        }
        let group = replica.group();
        if replica.is_gone() || replica.is_installing() {
            return refusal::no_leader(group);
        }
        let outgoing = replica.snapshot();
        let entry = outgoing.entry();
        self.opened += 1;
        let until = now.plus(limits::BACKUP_SILENCE_MS_MAX);
        self.open.insert(self.opened, Backup { group, outgoing, until });
        let numbers = [self.opened, entry.term.0, entry.index.0];
        Reply::Array(numbers.map(|number| Reply::Int(number as i64)).to_vec())
    }

    fn next(&mut self, now: Tick, group: GroupId, number: u64) -> Reply {
        let Some(backup) = self.open.get_mut(&number).filter(|it| it.group == group) else {
            let text =
                format!("no backup {number} of group {group} is open: begin again with OPEN");
            return Reply::error("ERR", text);
        };
        backup.until = now.plus(limits::BACKUP_SILENCE_MS_MAX);
        match backup.outgoing.next_piece() {
            Some(piece) => Reply::Bulk(piece),
            None => {
                self.open.remove(&number);
                Reply::Nil
            }
        }
    }

    /// Those that nobody asks for any more are given up.
    pub(super) fn expire(&mut self, now: Tick) {
        if !self.open.is_empty() {
            self.open.retain(|_, backup| now < backup.until);
        }
    }
}
