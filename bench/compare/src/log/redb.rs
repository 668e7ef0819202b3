//! redb, a B-tree, used as a log: a transaction per batch, durable at once.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use redb::{Database, Durability, TableDefinition};

use super::batches::Writer;
use super::raft_engine::threads;
use super::{Run, Sample};

/// Entries by group and index.
const ENTRIES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("entries");

pub(super) fn measure(run: Run<'_>) -> Result<Sample> {
    let Run { cell, dir, place, warm_up, time, seed, .. } = run;
    let database = Database::create(dir.join("redb"))?;
    let is_created = AtomicBool::new(false);
    let write = |writer: &mut Writer| {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate);
        {
            let mut table = transaction.open_table(ENTRIES)?;
            let pieces: Vec<_> = writer.pieces().collect();
            for piece in pieces {
                for index in piece.first..piece.first + piece.count as u64 {
                    table.insert((piece.group, index), &writer.payload()[..])?;
                }
            }
        }
        transaction.commit()?;
        is_created.store(true, Ordering::Relaxed);
        Ok(())
    };
    threads(Writer::all(cell, seed), warm_up, time, &write, || place.counters().unwrap_or_default())
}
