//! The `redis` crate's cluster client against a running cluster (`tests/cluster.sh` starts one).
//!
//! ```text
//!   clients check --nodes 127.0.0.1:7001,…     commands, tags, replicas
//!   clients soak  --nodes 127.0.0.1:7001,…     writers that count; somebody else moves the leaders
//! ```
//!
//! In the soak every writer has keys of its own and sets them to 1, 2, 3 … A write that was answered is
//! read back, through a replica every other time, and must be there. A write whose outcome is unknown ends
//! its key: what may still happen to it is nobody's fault. What was certainly not executed is sent again.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Parser, Subcommand};
use redis::cluster::{ClusterClient, ClusterConnection};
use redis::cluster_read_routing::RandomReplicaStrategy;
use redis::{RedisError, RedisResult};

/// Words after which nothing was executed (docs/commands.md), so that the same may be sent again.
const NOT_EXECUTED: &[&str] = &["CLUSTERDOWN", "BUSY", "LOADING", "MOVED", "NOLEADER"];
/// Keys that one writer sets in turn.
const KEYS: u64 = 32;
/// How often one command is sent before the cluster is taken for dead: a minute.
const ATTEMPTS_MAX: u32 = 600;
const PAUSE: Duration = Duration::from_millis(100);

type Failed = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(name = "clients")]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Client addresses of some nodes.
    #[arg(long, value_delimiter = ',', global = true, default_value = "127.0.0.1:7001")]
    nodes: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Commands that a cluster client must be able to send.
    Check,
    /// Writes that are counted and read back.
    Soak {
        /// Connections that write at once.
        #[arg(long, default_value_t = 4)]
        writers: u64,
        /// Writes of each.
        #[arg(long, default_value_t = 2000)]
        writes: u64,
    },
}

fn main() -> ExitCode {
    let Arguments { what, nodes } = Arguments::parse();
    let done = match what {
        What::Check => check(&nodes),
        What::Soak { writers, writes } => soak(&nodes, writers, writes),
    };
    match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("clients: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A connection to the whole cluster; with `replicas`, one that reads from them.
fn connect(nodes: &[String], replicas: bool) -> Result<ClusterConnection, Failed> {
    Ok(client(nodes, replicas)?.get_connection()?)
}

fn client(nodes: &[String], replicas: bool) -> RedisResult<ClusterClient> {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("redis://{node}")).collect();
    let builder = ClusterClient::builder(nodes);
    let builder =
        if replicas { builder.read_routing_strategy(RandomReplicaStrategy) } else { builder };
    builder.build()
}

/// A connection that is made anew when it has met a dead node.
///
/// The crate asks a node that refuses connections again and again, and looks for the key's new owner only
/// when some other key's reply tells it to: whoever insists on one key has to connect anew.
struct Link {
    client: ClusterClient,
    connection: ClusterConnection,
}

impl Link {
    fn new(nodes: &[String], replicas: bool) -> Result<Link, Failed> {
        let client = client(nodes, replicas)?;
        let connection = client.get_connection()?;
        Ok(Link { client, connection })
    }

    /// Keeps what it has as long as nobody answers.
    fn renew(&mut self) {
        if let Ok(connection) = self.client.get_connection() {
            self.connection = connection;
        }
    }
}

fn check(nodes: &[String]) -> Result<String, Failed> {
    let mut here = connect(nodes, false)?;
    let mut near = connect(nodes, true)?;
    let keys: Vec<String> = (0..200).map(|number| format!("crate:{number}")).collect();
    for key in &keys {
        redis::cmd("SET").arg(key).arg(key).exec(&mut here)?;
        let value: String = redis::cmd("GET").arg(key).query(&mut near)?;
        expect(&format!("GET {key} of a replica"), &value, key)?;
    }
    let counted: i64 = redis::cmd("INCRBY").arg("crate:n").arg(5).query(&mut here)?;
    expect("INCRBY", &counted, &5)?;
    redis::cmd("MSET").arg(&["{crate}a", "1", "{crate}b", "2"]).exec(&mut here)?;
    let values: Vec<i64> = redis::cmd("MGET").arg(&["{crate}a", "{crate}b"]).query(&mut near)?;
    expect("MGET of one tag", &values, &vec![1, 2])?;
    // The crate cuts these by slot, and puts the replies together.
    let gone: i64 = redis::cmd("DEL").arg(&keys).query(&mut here)?;
    expect("DEL over all nodes", &gone, &200)?;
    Ok("the redis crate's cluster client is served".into())
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, expected: &T) -> Result<(), Failed> {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, got {got:?}").into())
}

#[derive(Debug, Default)]
struct Tally {
    written: u64,
    unknown: u64,
    again: u64,
}

#[expect(clippy::disallowed_methods, reason = "a client of its own process, which has threads")]
fn soak(nodes: &[String], writers: u64, writes: u64) -> Result<String, Failed> {
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let nodes = nodes.to_vec();
            thread::spawn(move || write(&nodes, writer, writes))
        })
        .collect();
    let mut all = Tally::default();
    for thread in threads {
        let tally = thread.join().map_err(|_| "a writer panicked; its report is above")??;
        all.written += tally.written;
        all.unknown += tally.unknown;
        all.again += tally.again;
    }
    if all.written + all.unknown < writers * writes {
        return Err(format!("not every write was made: {all:?}").into());
    }
    Ok(format!(
        "the redis crate: {} writes read back, {} unknown, {} sent again, lost 0",
        all.written, all.unknown, all.again
    ))
}

fn write(nodes: &[String], writer: u64, writes: u64) -> Result<Tally, Failed> {
    let mut here = Link::new(nodes, false)?;
    let mut near = Link::new(nodes, true)?;
    let mut tally = Tally::default();
    let mut kept: BTreeMap<String, u64> = BTreeMap::new();
    let mut lives = vec![0; KEYS as usize];
    for number in 1..=writes {
        let place = number % KEYS;
        let key = format!("soak:crate:{writer}:{place}:{}", lives[place as usize]);
        let set = |it: &mut ClusterConnection| redis::cmd("SET").arg(&key).arg(number).exec(it);
        match insist(&mut here.connection, &mut tally.again, set) {
            Ok(()) => {
                tally.written += 1;
                kept.insert(key.clone(), number);
            }
            Err(error) => {
                eprintln!("SET {key} {number}: {error}");
                tally.unknown += 1;
                kept.remove(&key);
                lives[place as usize] += 1;
                continue;
            }
        }
        let reader = if number % 2 == 0 { &mut near } else { &mut here };
        read_back(reader, &key, number, &mut tally.again)?;
    }
    for (key, number) in kept {
        read_back(&mut here, &key, number, &mut tally.again)?;
    }
    Ok(tally)
}

/// A read changes nothing: it is sent until it is answered.
fn read_back(from: &mut Link, key: &str, number: u64, again: &mut u64) -> Result<(), Failed> {
    let mut last = None;
    for _ in 0..ATTEMPTS_MAX {
        let get = |it: &mut ClusterConnection| redis::cmd("GET").arg(key).query(it);
        match insist::<Option<u64>>(&mut from.connection, again, get) {
            Ok(found) if found == Some(number) => return Ok(()),
            Ok(found) => return Err(format!("LOST: {key} is {found:?}, not {number}").into()),
            Err(error) => {
                last = Some(error);
                pause();
                from.renew();
            }
        }
    }
    Err(format!("{key} cannot be read: {last:?}").into())
}

/// Sends a command again as long as it is certain that it was not executed.
fn insist<T>(
    to: &mut ClusterConnection,
    again: &mut u64,
    mut send: impl FnMut(&mut ClusterConnection) -> RedisResult<T>,
) -> RedisResult<T> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match send(to) {
            Err(error) if is_not_executed(&error) && attempts < ATTEMPTS_MAX => {
                *again += 1;
                pause();
            }
            done => return done,
        }
    }
}

fn is_not_executed(error: &RedisError) -> bool {
    error.code().is_some_and(|code| NOT_EXECUTED.contains(&code))
}

#[expect(clippy::disallowed_methods, reason = "a client waits for a cluster in real time")]
fn pause() {
    thread::sleep(PAUSE);
}
