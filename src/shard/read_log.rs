//! Entries that have left the memory of the log, for whoever reads it beside the groups.

use crate::id::{GroupId, Index, ReplicaId};

use super::event::LogRead;
use super::shard::Shard;

impl Shard {
    /// The read that brings back applied entries of `group` from `first` on, which are not in memory: some of them, in
    /// one go. The driver performs it like those of [`super::Effects::log_reads`], and hands [`super::Event::LogRead`] back
    /// when it is done with the entries; their segment stays until then.
    ///
    /// # Errors
    /// The first entry after it that can be had, if this one cannot: a snapshot stands for it. Also if the group does
    /// not live here.
    pub fn read_log(&mut self, group: GroupId, first: Index) -> Result<LogRead, Index> {
        let Some(slot) = self.slot_of(group) else { return Err(first.next()) };
        let replica = &self.replicas[slot as usize];
        let in_memory = replica.cache().first();
        // What raft has forgotten is about to leave the disk, too.
        let known = first.max(replica.status().first);
        match self.log.index().find(group, first) {
            Some(span) if first == known && first < in_memory => {
                self.truncation.on_read(span.location.segment);
                Ok(LogRead {
                    whose: self.config.identity(),
                    group,
                    replica: ReplicaId::NONE,
                    first,
                    last: span.last.min(in_memory.prev()),
                    at: span.location,
                })
            }
            _ => {
                let on_disk = self.log.index().first_from(group, known);
                let next = on_disk.map_or(in_memory, |index| index.min(in_memory));
                Err(next.max(first.next()))
            }
        }
    }
}
