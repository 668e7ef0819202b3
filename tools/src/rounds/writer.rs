//! One writer under load, and one reader afterwards: both work on one ledger.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use super::Failed;
use super::cluster::{Plan, now, pause};
use super::ledger::{Key, Ledger, Operation};
use super::resp::{Client, Reply, encode};

/// Most commands one writer has on their way.
const PIPELINE: usize = 12;
/// One pipeline in so many is abandoned before its answers are read, as a dying client would.
const ABANDON: u32 = 400;
/// One in so many is the last on its connection; the next goes to a random node.
const MOVE: u32 = 40;
/// After a refusal, or when a node is not there.
const BACKOFF_MS: std::ops::Range<u64> = 2..30;
/// GETs a reader sends at a time.
const CHUNK: usize = 256;
/// How long a ready cluster may refuse or not answer a read.
const READ: Duration = Duration::from_secs(60);

/// A node, and where its clients connect.
pub type Place = (u8, SocketAddr);

/// Writes to random nodes until told to stop.
pub fn write(ledger: &mut Ledger, plan: &Plan, random: &mut Rng, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let node = random.u8(1..=plan.nodes);
        match Client::connect(plan.client(node)) {
            Ok(client) => talk(ledger, client, node, random, stop),
            Err(_) => pause(Duration::from_millis(random.u64(BACKOFF_MS))),
        }
    }
}

/// Until the connection ends, by whichever side.
fn talk(ledger: &mut Ledger, mut client: Client, node: u8, random: &mut Rng, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let most = random.usize(1..=PIPELINE);
        let operations = ledger.issue(most, node, random);
        let mut bytes = Vec::new();
        for operation in &operations {
            encode(&ledger.command(*operation), &mut bytes);
        }
        if client.send(&bytes).is_err() || random.u32(..ABANDON) == 0 {
            return;
        }
        match answers(ledger, &mut client, &operations) {
            Ok(0) => {}
            Ok(_) => pause(Duration::from_millis(random.u64(BACKOFF_MS))),
            Err(_) => return,
        }
        if random.u32(..MOVE) == 0 {
            return;
        }
    }
}

/// How many were not executed, or perhaps not.
fn answers(ledger: &mut Ledger, client: &mut Client, of: &[Operation]) -> io::Result<u32> {
    let mut errors = 0;
    for operation in of {
        let reply = client.receive()?;
        errors += u32::from(matches!(reply, Reply::Error(_)));
        ledger.on_answer(*operation, &reply);
    }
    Ok(errors)
}

/// Reads every key the ledgers know and compares, each ledger by a reader of its own; returns once all have ended.
/// One ends early only if the cluster does not answer.
pub fn check_all(ledgers: &mut [Ledger], plan: &Plan, random: &mut Rng) -> Result<(), Failed> {
    let results: Vec<Result<(), Failed>> = thread::scope(|scope| {
        let readers: Vec<_> = ledgers
            .iter_mut()
            .map(|ledger| {
                let mut random = random.fork();
                scope.spawn(move || check(ledger, plan, &mut random))
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().expect("a reader does not panic")).collect()
    });
    results.into_iter().collect()
}

/// Reads every key that one ledger knows.
fn check(ledger: &mut Ledger, plan: &Plan, random: &mut Rng) -> Result<(), Failed> {
    for (node, keys) in ledger.reads(plan.nodes, random) {
        read_all(ledger, (node, plan.client(node)), &keys)?;
    }
    settle(ledger)
}

/// Reads every key the ledger knows through every one of these nodes and compares.
pub fn check_through(ledger: &mut Ledger, nodes: &[Place]) -> Result<(), Failed> {
    let keys = ledger.keys();
    for place in nodes {
        read_all(ledger, *place, &keys)?;
    }
    settle(ledger)
}

fn read_all(ledger: &mut Ledger, place: Place, keys: &[Key]) -> Result<(), Failed> {
    let mut client = None;
    keys.chunks(CHUNK).try_for_each(|chunk| read(ledger, place, &mut client, chunk))
}

fn settle(ledger: &mut Ledger) -> Result<(), Failed> {
    match ledger.settle() {
        0 => Ok(()),
        missed => Err(Failed::Start(format!("{missed} writes were not compared: a bug in `tool`"))),
    }
}

/// Reads keys through one node, again and again for as long as it refuses: a read may be repeated.
fn read(
    ledger: &mut Ledger,
    place: Place,
    client: &mut Option<Client>,
    keys: &[Key],
) -> Result<(), Failed> {
    let started = now();
    let mut left = keys.to_vec();
    loop {
        let last = match read_once(ledger, place, client, &mut left) {
            Ok(None) => return Ok(()),
            Ok(Some(refusal)) => refusal,
            Err(error) => {
                *client = None;
                error.to_string()
            }
        };
        if READ < started.elapsed() {
            let seconds = READ.as_secs();
            return Err(Failed::NotReady(format!(
                "no read through node {} in {seconds} s: {last}",
                place.0
            )));
        }
        pause(Duration::from_millis(BACKOFF_MS.end));
    }
}

/// Takes from `left` what was answered; the last refusal, if there was one.
fn read_once(
    ledger: &mut Ledger,
    (node, address): Place,
    client: &mut Option<Client>,
    left: &mut Vec<Key>,
) -> io::Result<Option<String>> {
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::connect(address)?),
    };
    let mut bytes = Vec::new();
    for key in &*left {
        encode(&["GET", &ledger.name(*key)], &mut bytes);
    }
    client.send(&bytes)?;
    let mut refused = Vec::new();
    let mut refusal = None;
    for (at, key) in left.iter().enumerate() {
        match client.receive() {
            Ok(Reply::Bulk(value)) => ledger.on_read(*key, node, value.as_deref()),
            Ok(Reply::Error(text)) => {
                refused.push(*key);
                refusal = Some(text);
            }
            Ok(other) => {
                refused.push(*key);
                refusal = Some(format!("GET is answered {other:?}"));
            }
            Err(error) => {
                refused.extend_from_slice(&left[at..]);
                *left = refused;
                return Err(error);
            }
        }
    }
    *left = refused;
    Ok(refusal)
}
