//! A machine with storage of its own: a table in redb, an embedded B-tree, one file per group.
//!
//! ```sh
//! cargo run --example table              # one node, in ./table-data; run it again, and the rows are there
//! ```
//!
//! # Who makes what durable
//!
//! ```text
//!  writes ─► Outrigger's log, durable ─► apply_batch ─► ONE redb transaction for all of them, that is NOT flushed
//!                                             └─ after every 64th entry: flushed, with its index: the table's own watermark
//! ```
//!
//! The log is durable before `apply_batch` is called, so the table need not be: what its file has lost in a crash is in the
//! log still, and is executed again. Each transaction holds the rows *and* the index of the last of their entries, so the file always
//! says how far it is. After a restart the log is replayed from the last snapshot; entries at or below the
//! table's watermark have been executed, and are passed over.
//!
//! That gives a rule to machines with storage: **the reply to an entry that is passed over must be the one it got**,
//! because a session's retry is answered with it. Here a reply depends on the entry alone. A machine whose replies depend on its
//! state keeps the last replies beside the rows, or starts with an empty file and lets the log fill it.
//!
//! A transaction that fails stops this replica of its group, by name, and nothing else: what it answered in that batch is told as
//! unknown, the others of the group go on, and the next start executes the batch again. What takes many rows is done in
//! several turns: the machine yields after [`ROWS_MAX`].
//!
//! A snapshot begins with the watermark, so whoever installs it passes over what it holds already; it reads from a redb read
//! transaction, which later writes do not disturb.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use outrigger::id::{GroupId, Index, mix};
use outrigger::store::batch::{Batch, Committed, Stop};
use outrigger::store::{Frozen, RestoreError, Restoring, Wanted};
use outrigger::wire::reply::Reply;
use outrigger::{Config, Node, StateMachine};
use redb::{
    Database, Durability, ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction,
};

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
const MARK: TableDefinition<(), u64> = TableDefinition::new("watermark");
/// A flush of the table's own for so many entries. More: fewer flushes, and more to execute again after a crash.
const FLUSH_EVERY: u64 = 64;
/// Rows of one transaction, and of one turn: what is left waits while the core does something else.
const ROWS_MAX: usize = 256;
/// The largest row, so that each fits a chunk of a snapshot (`limits::SNAPSHOT_PIECE_BYTES`).
const ROW_BYTES_MAX: usize = 64 << 10;

/// `put` sets a row, and an empty value removes it: `key = value`. A read tells one row.
pub struct Table {
    path: PathBuf,
    database: Database,
    applied: u64,
}

impl Table {
    /// Opens the file, or makes it. A machine cannot go on without its disk, so failures panic: that ends the core,
    /// every unanswered call is told so, and the node says why (`Node::join`).
    pub fn open(path: &Path) -> Table {
        let database = Database::create(path).expect("the table's file");
        let transaction = database.begin_write().expect("the table's disk");
        transaction.open_table(ROWS).expect("rows");
        let applied = {
            let table = transaction.open_table(MARK).expect("watermark");
            let mark = table.get(()).expect("the table's disk");
            mark.map_or(0, |mark| mark.value())
        };
        transaction.commit().expect("the table's disk");
        Table { path: path.to_owned(), database, applied }
    }

    fn put(&mut self, index: u64, rows: &[(&[u8], &[u8])], durability: Durability) {
        let mut transaction = self.database.begin_write().expect("the table's disk");
        transaction.set_durability(durability);
        {
            let mut table = transaction.open_table(ROWS).expect("rows");
            for (key, value) in rows {
                match value {
                    [] => drop(table.remove(key).expect("the table's disk")),
                    value => drop(table.insert(key, value).expect("the table's disk")),
                }
            }
            // In one transaction: the file never holds a row without the index of its entry.
            transaction
                .open_table(MARK)
                .expect("watermark")
                .insert((), index)
                .expect("the table's disk");
        }
        transaction.commit().expect("the table's disk");
        self.applied = index;
    }

    /// Executes a batch in one transaction.
    fn execute(&mut self, batch: &mut Batch<'_>) -> Result<(), Box<dyn std::error::Error>> {
        let (mut transaction, mut applied) = (None::<WriteTransaction>, self.applied);
        for _ in 0..ROWS_MAX {
            let Some(Committed { index: Index(index), payload, .. }) = batch.next_entry() else {
                break;
            };
            let reply = match row(payload) {
                Err(refusal) => refusal,
                // Executed before the restart: the reply is a function of the entry, so it is the same.
                Ok(_) if index <= self.applied => Reply::Ok,
                Ok((key, value)) => {
                    let transaction = match &mut transaction {
                        Some(begun) => begun,
                        None => transaction.insert(self.database.begin_write()?),
                    };
                    let mut table = transaction.open_table(ROWS)?;
                    match value {
                        [] => drop(table.remove(key)?),
                        value => drop(table.insert(key, value)?),
                    }
                    applied = index;
                    Reply::Ok
                }
            };
            batch.answer(reply);
        }
        if let Some(mut transaction) = transaction {
            // In the same transaction: the file never holds a row without the index of its entry.
            transaction.open_table(MARK)?.insert((), applied)?;
            let flush = self.applied / FLUSH_EVERY < applied / FLUSH_EVERY;
            transaction.set_durability(if flush {
                Durability::Immediate
            } else {
                Durability::None
            });
            transaction.commit()?;
            self.applied = applied;
        }
        Ok(())
    }

    fn view(&self) -> ReadTransaction {
        self.database.begin_read().expect("the table's disk")
    }
}

impl StateMachine for Table {
    fn apply_batch(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop> {
        let done = self.execute(batch);
        done.map_err(|error| Stop::Group(format!("{}: {error}", self.path.display())))
    }

    fn apply(&mut self, _: Index, _: &Bytes, _: Wanted) -> Reply {
        unreachable!("the core calls `apply_batch`")
    }

    fn read(&self, payload: &Bytes) -> Reply {
        let table = self.view().open_table(ROWS).expect("rows");
        let row = table.get(&payload[..]).expect("the table's disk");
        row.map_or(Reply::Nil, |value| Reply::bulk(value.value()))
    }

    fn digest(&self) -> u64 {
        let table = self.view().open_table(ROWS).expect("rows");
        table.iter().expect("the table's disk").fold(0, |digest: u64, row| {
            let (key, value) = row.expect("the table's disk");
            let bytes = key.value().iter().chain(b"=").chain(value.value());
            digest.wrapping_add(bytes.fold(0, |hash, byte| mix(hash ^ u64::from(*byte))))
        })
    }

    fn len(&self) -> u64 {
        use redb::ReadableTableMetadata as _;
        self.view().open_table(ROWS).expect("rows").len().expect("the table's disk")
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        Box::new(View {
            transaction: self.view(),
            next: Some(Vec::new()),
            applied: Some(self.applied),
        })
    }

    fn restoring(&self) -> Box<dyn Restoring> {
        // Into a file beside this one, which is still being read: it takes this one's name when it is whole.
        let fresh = self.path.with_extension("restoring");
        let _ = std::fs::remove_file(&fresh);
        Box::new(Filling {
            path: self.path.clone(),
            table: Table::open(&fresh),
            rest: BytesMut::new(),
            applied: None,
        })
    }
}

/// The key and the value of a command, or why it is none: the same words on every replica.
fn row(payload: &[u8]) -> Result<(&[u8], &[u8]), Reply> {
    if ROW_BYTES_MAX < payload.len() {
        return Err(Reply::error("ERR", "a row of more than 64 KiB"));
    }
    let at = payload.iter().position(|byte| *byte == b'=');
    let at = at.ok_or_else(|| Reply::error("ERR", "expected key=value"))?;
    Ok((&payload[..at], &payload[at + 1..]))
}

/// ```text
///  watermark 8 │ key length 4 │ value length 4 │ key │ value │ …      little-endian, rows by key
/// ```
struct View {
    transaction: ReadTransaction,
    /// The key after which to go on; none after the last.
    next: Option<Vec<u8>>,
    applied: Option<u64>,
}

impl Frozen for View {
    fn next_chunk(&mut self, bytes_max: usize) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        if let Some(applied) = self.applied.take() {
            chunk.put_u64_le(applied);
        }
        let table = self.transaction.open_table(ROWS).expect("rows");
        let from = self.next.take().unwrap_or_default();
        for row in table.range(&from[..]..).expect("the table's disk") {
            let (key, value) = row.expect("the table's disk");
            let (key, value) = (key.value(), value.value());
            let bytes = 8 + key.len() + value.len();
            if bytes_max < chunk.len() + bytes && !chunk.is_empty() {
                self.next = Some(key.to_vec());
                break;
            }
            chunk.put_u32_le(key.len() as u32);
            chunk.put_u32_le(value.len() as u32);
            chunk.put_slice(key);
            chunk.put_slice(value);
        }
        (!chunk.is_empty()).then(|| chunk.freeze())
    }
}

/// A table that is being filled from a snapshot.
struct Filling {
    path: PathBuf,
    table: Table,
    rest: BytesMut,
    applied: Option<u64>,
}

impl Restoring for Filling {
    fn chunk(&mut self, chunk: &Bytes) -> Result<(), RestoreError> {
        self.rest.extend_from_slice(chunk);
        if self.applied.is_none() && 8 <= self.rest.len() {
            self.applied = Some(self.rest.get_u64_le());
        }
        let Some(applied) = self.applied else { return Ok(()) };
        let (bytes, mut at, mut rows) = (self.rest.split().freeze(), 0, Vec::new());
        while let Some(&head) = bytes[at..].first_chunk::<8>() {
            let len = |at: usize| {
                u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
            };
            let (key, value) = (len(0) as usize, len(4) as usize);
            let Some(row) = bytes[at + 8..].get(..key + value) else { break };
            rows.push(row.split_at(key));
            at += 8 + key + value;
        }
        self.table.put(applied, &rows, Durability::None);
        self.rest.extend_from_slice(&bytes[at..]);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn StateMachine>, RestoreError> {
        let Self { path, mut table, rest, applied } = *self;
        match applied {
            Some(applied) if rest.is_empty() => {
                // Durable before the name: from here on the file may be what a restart finds.
                table.put(applied, &[], Durability::Immediate);
                std::fs::rename(&table.path, &path).expect("the table's disk");
                table.path = path;
                Ok(Box::new(table))
            }
            _ => Err(RestoreError::CutShort { left: rest.len() }),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    fill("table-data", "127.0.0.1:7912").map(|row| println!("the row of the last run: {row:?}"))
}

/// Tells the row that the last run left, and leaves one for the next.
pub fn fill(dir: &str, peer: &str) -> Result<Reply, Box<dyn std::error::Error>> {
    // A disk may stand still for seconds; whoever has waited too long does not know what became of its command.
    let config = Config { groups: 2, request_ms: 30_000, ..Config::new(1, dir, peer.parse()?) };
    std::fs::create_dir_all(dir)?;
    let files = PathBuf::from(dir);
    let node = Node::start(config, move |group| {
        Box::new(Table::open(&files.join(format!("table-{group}.redb"))))
    })?;
    assert!(node.wait_until_ready(Duration::from_secs(30)), "no leader; see the log");
    let client = node.client();
    let before = client.read(GroupId(0), "fruit").wait()?;
    for number in 0..100 {
        client.write(GroupId(0), format!("fruit=apple {number}")).wait()?;
    }
    client.write(GroupId(1), "fruit=pear").wait()?;
    node.stop()?;
    Ok(before)
}
