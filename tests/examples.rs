//! The worked examples of `examples/`, run as they are.
#![allow(dead_code, unreachable_pub, reason = "an example's `main` is not what is called here")]

#[path = "../examples/channels.rs"]
mod channels;
#[cfg(feature = "runtime")]
#[path = "../examples/counter.rs"]
mod counter;
#[cfg(feature = "runtime")]
#[path = "../examples/table.rs"]
mod table;

use outrigger::wire::reply::Reply;

/// A new directory beside the build: the system's temporary one may be a tmpfs without O_DIRECT.
#[cfg(feature = "runtime")]
fn dir(name: &str) -> String {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = dir.join(format!("examples-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir.to_str().expect("a plain path").to_owned()
}

/// Of its own for each process and each example. Below the range of outgoing connections.
#[cfg(feature = "runtime")]
fn peer(of: u32) -> String {
    format!("127.0.0.1:{}", 8_000 + std::process::id() % 400 * 4 + of)
}

#[test]
fn three_nodes_agree_over_channels() {
    assert_eq!(channels::run(), vec![Reply::bulk("hello"); 3]);
}

#[cfg(feature = "runtime")]
#[test]
fn the_counter_goes_on_where_it_was() {
    let (dir, peer) = (dir("counter"), peer(0));
    for total in [3, 6] {
        assert_eq!(counter::count(&dir, &peer).expect("it runs"), Reply::Int(total));
    }
    let _ = std::fs::remove_dir_all(dir);
}

#[cfg(feature = "runtime")]
#[test]
fn the_table_finds_its_rows_again_in_its_own_file_and_without_it() {
    let (dir, peer) = (dir("table"), peer(1));
    assert_eq!(table::fill(&dir, &peer).expect("it runs"), Reply::Nil);
    assert_eq!(table::fill(&dir, &peer).expect("it runs"), Reply::bulk("apple 99"));
    // The log alone makes the table again.
    std::fs::remove_file(format!("{dir}/table-0.redb")).expect("there is one");
    assert_eq!(table::fill(&dir, &peer).expect("it runs"), Reply::bulk("apple 99"));
    let _ = std::fs::remove_dir_all(dir);
}

/// Entries for a machine, without a node and a log.
#[cfg(feature = "runtime")]
struct Entries {
    all: Vec<bytes::Bytes>,
    answered: usize,
}

#[cfg(feature = "runtime")]
impl outrigger::store::batch::Source for Entries {
    fn next_entry(&mut self) -> Option<outrigger::store::batch::Committed<'_>> {
        let index = outrigger::id::Index(self.answered as u64 + 1);
        let wanted = outrigger::store::Wanted::No;
        let payload = self.all.get(self.answered)?;
        Some(outrigger::store::batch::Committed { index, payload, wanted })
    }

    fn answer(&mut self, reply: Reply) {
        assert_eq!(reply, Reply::Ok);
        self.answered += 1;
    }
}

#[cfg(feature = "runtime")]
#[test]
fn the_table_reads_what_its_thread_has_not_written_yet_and_a_snapshot_holds_it() {
    use std::collections::BTreeMap;

    use outrigger::StateMachine as _;
    use outrigger::store::batch::Batch;

    let dir = dir("recent");
    std::fs::create_dir_all(&dir).expect("a directory");
    let path = std::path::PathBuf::from(format!("{dir}/table.redb"));
    // More than may be recent at once; every seventh removes what an earlier one has written, or nothing.
    let mut model = BTreeMap::new();
    let mut rows = Vec::new();
    for number in 0..3 * table::RECENT_MAX {
        let key = format!("key {}", number * 31 % (table::RECENT_MAX + 500));
        let value = if number % 7 == 0 { String::new() } else { format!("value {number}") };
        rows.push(bytes::Bytes::from(format!("{key}={value}")));
        if value.is_empty() {
            model.remove(&key)
        } else {
            model.insert(key, value)
        };
    }
    let last = rows.len() as u64;
    let index = |index| Some(outrigger::id::Index(index));
    let mut entries = Entries { all: rows, answered: 0 };
    let mut machine = table::Table::open(&path);
    while entries.answered < entries.all.len() {
        machine.apply_batch(&mut Batch::new(&mut entries)).expect("a disk");
    }
    // Whatever the thread has got to by now.
    let same = |machine: &dyn outrigger::StateMachine| {
        assert_eq!(machine.len(), model.len() as u64);
        for (key, value) in &model {
            assert_eq!(machine.read(&key.clone().into()), Reply::bulk(value.clone()), "{key}");
        }
        assert_eq!(
            machine.read(&"key 0".into()),
            model.get("key 0").map_or(Reply::Nil, |it| Reply::bulk(it.clone()))
        );
        machine.digest()
    };
    let digest = same(&machine);

    // A snapshot, and what is executed beside it is not in there.
    let mut frozen = machine.freeze();
    let mut restoring = machine.restoring();
    entries.all.push("later=1".into());
    machine.apply_batch(&mut Batch::new(&mut entries)).expect("a disk");
    while let Some(chunk) = frozen.next_chunk(4 << 10) {
        restoring.chunk(&chunk).expect("its own chunk");
    }
    assert_ne!(machine.digest(), digest);
    // The end of a table waits for its thread, as the core does when a snapshot has taken its place.
    drop(frozen);
    drop(machine);
    let reopened = table::Table::open(&path);
    assert_eq!((reopened.durable(), reopened.len()), (index(last + 1), model.len() as u64 + 1));
    let restored = restoring.finish().expect("all of it");
    assert_eq!(same(&*restored), digest);
    drop((restored, reopened));
    let reopened = table::Table::open(&path);
    assert_eq!(
        (reopened.durable(), same(&reopened)),
        (index(last), digest),
        "it took the other's name"
    );
    // Entries that were not for it count as well, when the log is to be cut.
    let mut reopened = reopened;
    reopened.flush(outrigger::id::Index(last + 9));
    drop(reopened);
    let reopened = table::Table::open(&path);
    assert_eq!((reopened.durable(), same(&reopened)), (index(last + 9), digest));
    drop(reopened);
    let _ = std::fs::remove_dir_all(dir);
}
