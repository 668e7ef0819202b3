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
