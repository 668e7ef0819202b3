//! A machine with storage of its own: a table in redb, an embedded B-tree, one file per group.
//!
//! ```sh
//! cargo run --example table              # one node, in ./table-data; run it again, and the rows are there
//! ```
//!
//! # Who makes what durable
//!
//! ```text
//!  writes ─► Outrigger's log, durable ─► apply_batch ─► recent rows, in memory ─► the reply
//!            (the core)                                    │            ▲
//!                                                          ▼            │ durable up to …: what is older is forgotten
//!            (a thread of the table's own)    ONE redb transaction for all that wait, flushed, with the index of the
//!                                             last of their entries: the table's own durable watermark
//! ```
//!
//! redb waits for the disk, and a core must not: so the file is written by a thread, as tokio's `spawn_blocking` would be used
//! for. The log is durable before `apply_batch` is called, so the table need not be: what its file has lost in a crash is
//! in the log still, and is executed again. Each transaction holds the rows *and* the index of the last of their entries, so
//! the file always says how far it is. After a restart the log is replayed from the last snapshot; entries at or below
//! the table's watermark have been executed, and are passed over. And because the table says how far its file is
//! (`durable`), the log holds no copies of it: it is cut behind the watermark.
//!
//! That gives a rule to machines with storage: **the reply to an entry that is passed over must be the one it got**,
//! because a session's retry is answered with it. Here a reply depends on the entry alone. A machine whose replies depend on its
//! state keeps the last replies beside the rows, or starts with an empty file and lets the log fill it.
//!
//! Reads look among the recent rows first and in the file then. Of those rows there are [`RECENT_MAX`] at most: when the
//! disk is slower than the log, the machine yields until there is room, and other groups go on. A transaction that fails stops this
//! replica of its group, by name, and nothing else; the next start executes what the file does not have.
//!
//! A snapshot is for another node, whose log is too far behind. It begins with the watermark, so whoever installs it passes over what it holds already. It is made of the recent
//! rows and a redb read transaction, which later writes do not disturb.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{self, AtomicU64};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use outrigger::id::{GroupId, Index, mix};
use outrigger::store::batch::{Batch, Committed, Stop};
use outrigger::store::{Frozen, RestoreError, Restoring, Wanted};
use outrigger::wire::reply::Reply;
use outrigger::{Config, Node, StateMachine};
use redb::{Database, Durability, ReadTransaction, ReadableTable as _, TableDefinition};

type Failed = Box<dyn std::error::Error>;

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
const MARK: TableDefinition<(), u64> = TableDefinition::new("watermark");
/// Rows in memory that may not be durable in the file yet, of one table.
pub const RECENT_MAX: usize = 4096;
/// Rows of one turn: what is left waits while the core does something else.
const ROWS_MAX: usize = 256;
/// The largest row, so that each fits a chunk of a snapshot (`limits::SNAPSHOT_PIECE_BYTES`).
const ROW_BYTES_MAX: usize = 64 << 10;

/// By key: the index of the entry that wrote the row, and its value. Empty: the row is gone.
type Recent = BTreeMap<Bytes, (u64, Bytes)>;

/// `put` sets a row, and an empty value removes it: `key = value`. A read tells one row.
pub struct Table {
    path: PathBuf,
    database: Arc<Database>,
    /// The last entry executed.
    applied: u64,
    recent: Recent,
    keeper: Keeper,
}

impl Table {
    /// Opens the file, or makes it. A machine cannot begin without its disk, so failures panic: that ends the core,
    /// every unanswered call is told so, and the node says why (`Node::join`).
    pub fn open(path: &Path) -> Table {
        let database = Database::create(path).expect("the table's file");
        write(&database, 0, &[], Durability::Immediate).expect("the table's disk");
        Table::of(path.to_owned(), Arc::new(database), None)
    }

    /// A table whose file holds what it should, and, if it has another name to take, is made durable first.
    fn of(path: PathBuf, database: Arc<Database>, named: Option<PathBuf>) -> Table {
        let view = database.begin_read().expect("the table's disk");
        let marks = view.open_table(MARK).expect("watermark");
        let applied = marks.get(()).expect("the table's disk").expect("a watermark").value();
        let keeper = Keeper::start(Arc::clone(&database), applied, path.clone(), named);
        Table { path, database, applied, recent: Recent::new(), keeper }
    }

    fn view(&self) -> View {
        // The rows first: what is forgotten later was in the file before, and the newest is in either.
        let (recent, applied) = (self.recent.clone(), self.applied);
        let transaction = self.database.begin_read().expect("the table's disk");
        View { transaction, recent, next: Some(Vec::new()), applied: Some(applied) }
    }
}

impl StateMachine for Table {
    fn apply_batch(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop> {
        if let Some(why) = self.keeper.progress.failed.get() {
            return Err(Stop::Group(format!("{}: {why}", self.path.display())));
        }
        let durable = self.durable();
        self.recent.retain(|_, (index, _)| durable < Some(Index(*index)));
        let mut rows = Vec::new();
        while rows.len() < ROWS_MAX && self.recent.len() < RECENT_MAX {
            let Some(Committed { index: Index(index), payload, .. }) = batch.next_entry() else {
                break;
            };
            let reply = match row(payload) {
                Err(refusal) => refusal,
                // Executed before the restart: the reply is a function of the entry, so it is the same.
                Ok(_) if index <= self.applied => Reply::Ok,
                Ok((key, value)) => {
                    // Copies: the payload is a slice of something larger.
                    let row = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                    self.recent.insert(row.0.clone(), (index, row.1.clone()));
                    rows.push(row);
                    self.applied = index;
                    Reply::Ok
                }
            };
            batch.answer(reply);
        }
        if !rows.is_empty() {
            self.keeper.write(self.applied, rows);
        }
        Ok(())
    }

    fn apply(&mut self, _: Index, _: &Bytes, _: Wanted) -> Reply {
        unreachable!("the core calls `apply_batch`")
    }

    fn read(&self, payload: &Bytes) -> Reply {
        if let Some((_, value)) = self.recent.get(payload) {
            return if value.is_empty() { Reply::Nil } else { Reply::bulk(&value[..]) };
        }
        let view = self.database.begin_read().expect("the table's disk");
        let table = view.open_table(ROWS).expect("rows");
        let row = table.get(&payload[..]).expect("the table's disk");
        row.map_or(Reply::Nil, |value| Reply::bulk(value.value()))
    }

    fn digest(&self) -> u64 {
        let mut digest: u64 = 0;
        self.view().rows(&[], &mut |key, value| {
            let bytes = key.iter().chain(b"=").chain(value);
            digest = digest.wrapping_add(bytes.fold(0, |hash, byte| mix(hash ^ u64::from(*byte))));
            true
        });
        digest
    }

    fn len(&self) -> u64 {
        use redb::ReadableTableMetadata as _;
        let view = self.database.begin_read().expect("the table's disk");
        let table = view.open_table(ROWS).expect("rows");
        let mut len = table.len().expect("the table's disk");
        for (key, (_, value)) in &self.recent {
            match (table.get(&key[..]).expect("the table's disk").is_some(), value.is_empty()) {
                (true, true) => len -= 1,
                (false, false) => len += 1,
                _ => {}
            }
        }
        len
    }

    fn durable(&self) -> Option<Index> {
        Some(Index(self.keeper.progress.durable.load(atomic::Ordering::Acquire)))
    }

    fn flush(&mut self, through: Index) {
        // The thread flushes whatever it is given; this tells it of entries that were not for the table.
        self.applied = self.applied.max(through.0);
        self.keeper.write(self.applied, Vec::new());
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        Box::new(self.view())
    }

    fn restoring(&self) -> Box<dyn Restoring> {
        // Into a file beside this one, which is still being read: it takes this one's name when it is whole.
        let fresh = self.path.with_extension("restoring");
        let _ = std::fs::remove_file(&fresh);
        Box::new(Filling {
            path: self.path.clone(),
            database: Database::create(&fresh).expect("the table's file"),
            fresh,
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

/// Rows into the file, with the index of the last of their entries, in one transaction: the file never holds a row without it.
/// An empty value removes a row; the watermark never goes back.
fn write(
    database: &Database,
    applied: u64,
    rows: &[(Bytes, Bytes)],
    durability: Durability,
) -> Result<(), Failed> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(durability);
    {
        let mut table = transaction.open_table(ROWS)?;
        for (key, value) in rows {
            match &value[..] {
                [] => drop(table.remove(&key[..])?),
                value => drop(table.insert(&key[..], value)?),
            }
        }
        let mut marks = transaction.open_table(MARK)?;
        let before = marks.get(())?.map_or(0, |mark| mark.value());
        marks.insert((), applied.max(before))?;
    }
    transaction.commit()?;
    Ok(())
}

/// The thread that writes the file. It takes all that waits into one transaction, so a slow disk makes larger ones.
struct Keeper {
    /// None when it is to end.
    work: Option<Sender<Work>>,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

/// Rows of entries up to `applied`, in their order.
struct Work {
    applied: u64,
    rows: Vec<(Bytes, Bytes)>,
}

/// What the thread tells the core.
#[derive(Default)]
struct Progress {
    durable: AtomicU64,
    failed: OnceLock<String>,
}

impl Keeper {
    /// With `named`, the file is made durable as it is, and then takes the name `path`.
    fn start(
        database: Arc<Database>,
        applied: u64,
        path: PathBuf,
        named: Option<PathBuf>,
    ) -> Keeper {
        let (sender, receiver) = channel();
        let progress = Arc::new(Progress::default());
        let durable = if named.is_some() { 0 } else { applied };
        progress.durable.store(durable, atomic::Ordering::Release);
        let told = Arc::clone(&progress);
        let thread = std::thread::Builder::new().name("table".into()).spawn(move || {
            let named = match named {
                Some(fresh) => write(&database, applied, &[], Durability::Immediate)
                    .and_then(|()| Ok(std::fs::rename(fresh, path)?))
                    .map(|()| told.durable.store(applied, atomic::Ordering::Release)),
                None => Ok(()),
            };
            if let Err(error) = named.and_then(|()| keep(&database, &receiver, &told)) {
                let _ = told.failed.set(error.to_string());
            }
        });
        Keeper { work: Some(sender), progress, thread: Some(thread.expect("a thread")) }
    }

    fn write(&self, applied: u64, rows: Vec<(Bytes, Bytes)>) {
        // Who has failed takes nothing any more, and the next batch is told.
        let _ = self.work.as_ref().map(|work| work.send(Work { applied, rows }));
    }
}

fn keep(database: &Database, work: &Receiver<Work>, told: &Progress) -> Result<(), Failed> {
    while let Ok(Work { mut applied, mut rows }) = work.recv() {
        for more in work.try_iter() {
            applied = more.applied;
            rows.extend(more.rows);
        }
        write(database, applied, &rows, Durability::Immediate)?;
        told.durable.store(applied, atomic::Ordering::Release);
    }
    Ok(())
}

impl Drop for Keeper {
    /// Waits for what was begun, so that the file is closed: when the node stops, or when a snapshot has taken a table's place.
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A table as it was. As a snapshot:
///
/// ```text
///  watermark 8 │ key length 4 │ value length 4 │ key │ value │ …      little-endian, rows by key
/// ```
struct View {
    transaction: ReadTransaction,
    recent: Recent,
    /// The key with which to go on; none after the last.
    next: Option<Vec<u8>>,
    applied: Option<u64>,
}

impl View {
    /// Rows by key, from `from` on, until `each` has enough. What is in both places is as the recent one.
    fn rows(&self, from: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let table = self.transaction.open_table(ROWS).expect("rows");
        let mut file = table.range(from..).expect("the table's disk");
        let mut recent = self.recent.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        let (mut kept, mut new) = (file.next(), recent.next());
        loop {
            let old = kept.as_ref().map(|row| row.as_ref().expect("the table's disk"));
            let first = match (old, new) {
                (None, None) => return,
                (Some((key, _)), Some((recent, _))) => key.value().cmp(recent),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
            };
            let goes_on = match (first, old, new) {
                (Ordering::Less, Some((key, value)), _) => each(key.value(), value.value()),
                (_, _, Some((key, (_, value)))) if !value.is_empty() => each(key, value),
                _ => true,
            };
            if !goes_on {
                return;
            }
            if first != Ordering::Greater {
                kept = file.next();
            }
            if first != Ordering::Less {
                new = recent.next();
            }
        }
    }
}

impl Frozen for View {
    fn next_chunk(&mut self, bytes_max: usize) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        if let Some(applied) = self.applied.take() {
            chunk.put_u64_le(applied);
        }
        let from = self.next.take()?;
        let mut next = None;
        self.rows(&from, &mut |key, value| {
            if bytes_max < chunk.len() + 8 + key.len() + value.len() && !chunk.is_empty() {
                next = Some(key.to_vec());
                return false;
            }
            chunk.put_u32_le(key.len() as u32);
            chunk.put_u32_le(value.len() as u32);
            chunk.put_slice(key);
            chunk.put_slice(value);
            true
        });
        self.next = next;
        (!chunk.is_empty()).then(|| chunk.freeze())
    }
}

/// A table that is being filled from a snapshot. Nothing is flushed here: that is left to the thread of the table it becomes.
struct Filling {
    path: PathBuf,
    fresh: PathBuf,
    database: Database,
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
            let row = at + 8..at + 8 + key + value;
            if bytes.len() < row.end {
                break;
            }
            rows.push((
                bytes.slice(row.start..row.start + key),
                bytes.slice(row.start + key..row.end),
            ));
            at = row.end;
        }
        write(&self.database, applied, &rows, Durability::None).expect("the table's disk");
        self.rest.extend_from_slice(&bytes[at..]);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn StateMachine>, RestoreError> {
        let Self { path, fresh, database, rest, applied } = *self;
        if applied.is_none() || !rest.is_empty() {
            return Err(RestoreError::CutShort { left: rest.len() });
        }
        Ok(Box::new(Table::of(path, Arc::new(database), Some(fresh))))
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
