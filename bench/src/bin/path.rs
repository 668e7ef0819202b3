//! The whole path of a write without a kernel: three nodes in one thread, real frames, real log batches, no
//! socket, no disk. What is left is our own work, counted: time, allocations, frames and log writes for each
//! committed entry.
//!
//! ```sh
//! cargo run --release -p bench --bin path                     # batches of 1, 16, 64 and 256
//! cargo run --release -p bench --bin path -- --batches 64 --entries 200000
//! cargo run --release -p bench --bin path -- --threads 2        # what cores share: nothing, if the times stay
//! cargo run --release -p bench --bin path -- --rounds 9         # with and without stage clocks, in turns
//! ```
//!
//! Commands arrive as bytes and are parsed in place, as from a socket; each is said to the node that leads its
//! group, or with `--forward` to any node. Frames go as bytes from one node to the next. Every write is encoded
//! into a buffer, and is durable when the turn is over.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::thread;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use clap::Parser;
use mimalloc::MiMalloc;
use outrigger::id::{ClusterId, ConnId, Incarnation, Micros, NodeId, ShardId, Tick};
use outrigger::limits;
use outrigger::runtime::explain::Explainer;
use outrigger::shard::event::Request;
use outrigger::shard::stages::Mark;
use outrigger::shard::{Config, Effects, Event, Recovering, Shard};
use outrigger::store::connection::Manner;
use outrigger::store::slot::key_group;
use outrigger::wire::reply::Reply;
use outrigger::wire::resp::RequestReader;
use outrigger::wire::{FrameReader, Lane};

/// Counts what is allocated by the thread that measures.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static ALLOCATED_BYTES: Cell<u64> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    // A thread that ends allocates after its counters are gone.
    let _ = ALLOCATIONS.try_with(|it| it.set(it.get() + 1));
    let _ = ALLOCATED_BYTES.try_with(|it| it.set(it.get() + bytes as u64));
}

#[allow(unsafe_code, reason = "an allocator is unsafe by its nature; this one only counts")]
// SAFETY: every call is handed to mimalloc as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise, handed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        // SAFETY: as above.
        unsafe { MiMalloc.realloc(memory, layout, bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a committed entry costs us, without a kernel.
#[derive(Debug, Parser)]
struct Args {
    /// Commands said at once.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    batches: Vec<usize>,
    /// Entries for each batch size, after as many as there are keys, to warm up.
    #[arg(long, default_value_t = 100_000)]
    entries: usize,
    /// Raft groups.
    #[arg(long, default_value_t = 16)]
    groups: u64,
    /// Length of a value, in bytes.
    #[arg(long, default_value_t = 256)]
    value_size: usize,
    /// Keys that are written.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Say commands to any node, so that two of three are forwarded.
    #[arg(long)]
    forward: bool,
    /// Seed of keys and nodes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many times all of it at once, each on a thread of its own, as the cores of a node are: what they share shows
    /// in the time of an entry.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    threads: u8,
    /// Follow every write with stage clocks, as the runtime does, and keep them in histograms.
    #[arg(long)]
    explain: bool,
    /// What stage clocks cost: so many rounds of each batch size without and with them, in turns.
    #[arg(long, conflicts_with_all = ["explain", "threads"], value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
}

fn main() {
    let args = Args::parse();
    println!(
        "three nodes in one thread, {} such threads, {} groups, values of {} bytes, {} keys, seed {}{}",
        args.threads,
        args.groups,
        args.value_size,
        args.keys,
        args.seed,
        if args.forward { ", two of three commands forwarded" } else { "" }
    );
    println!();
    if let Some(rounds) = args.rounds {
        return compare(&args, rounds);
    }
    println!(
        "| batch | ns/entry | allocations/entry | bytes allocated/entry | frames/entry | log writes/entry | log bytes/entry | turns/entry |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|");
    for &batch in &args.batches {
        let costs: Vec<Cost> = thread::scope(|scope| {
            let start = |_| scope.spawn(|| measure(&args, batch, args.explain));
            let threads: Vec<_> = (0..args.threads).map(start).collect();
            threads.into_iter().map(|thread| thread.join().expect("it measures")).collect()
        });
        let middle = |of: fn(&Cost) -> f64| costs.iter().map(of).sum::<f64>() / costs.len() as f64;
        let (ns, allocations, bytes) =
            (middle(|it| it.ns), middle(|it| it.allocations), middle(|it| it.bytes));
        let (frames, writes) = (middle(|it| it.frames), middle(|it| it.writes));
        let (log_bytes, turns) = (middle(|it| it.log_bytes), middle(|it| it.turns));
        println!(
            "| {batch} | {ns:.0} | {allocations:.3} | {bytes:.0} | {frames:.3} | {writes:.3} | {log_bytes:.0} | {turns:.2} |"
        );
    }
}

/// What stage clocks cost: medians of rounds without and with them, and the median of the rounds' own ratios.
fn compare(args: &Args, rounds: u16) {
    println!(
        "| batch | ns/entry without | with | ratio: median | least | most | allocations/entry with |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|");
    for &batch in &args.batches {
        let mut costs: Vec<[Cost; 2]> = Vec::new();
        for round in 0..rounds {
            // Whoever comes second finds a warm machine, or a busy one.
            let first = round % 2 == 1;
            let (a, b) = (measure(args, batch, first), measure(args, batch, !first));
            costs.push(if first { [b, a] } else { [a, b] });
        }
        let sorted = |of: &dyn Fn(&[Cost; 2]) -> f64| {
            let mut values: Vec<f64> = costs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let median = |of: &dyn Fn(&[Cost; 2]) -> f64| sorted(of)[costs.len() / 2];
        let ratio = |pair: &[Cost; 2]| pair[1].ns / pair[0].ns;
        let ratios = sorted(&ratio);
        println!(
            "| {batch} | {:.0} | {:.0} | {:.4} | {:.3} | {:.3} | {:.3} |",
            median(&|pair| pair[0].ns),
            median(&|pair| pair[1].ns),
            median(&ratio),
            ratios[0],
            ratios[ratios.len() - 1],
            median(&|pair| pair[1].allocations),
        );
    }
}

/// What a committed entry costs, all three nodes together.
#[derive(Debug)]
struct Cost {
    ns: f64,
    allocations: f64,
    bytes: f64,
    frames: f64,
    writes: f64,
    log_bytes: f64,
    turns: f64,
}

fn measure(args: &Args, batch: usize, explain: bool) -> Cost {
    let mut cluster = Cluster::new(args);
    cluster.explain = explain;
    cluster.elect();
    // Memory that is used for the first time is the kernel's work: every key is there, and the cache full.
    cluster.fill = args.keys;
    cluster.run(args, 256, args.keys as usize);
    cluster.run(args, batch, args.entries / 10);
    let before = cluster.tally;
    let start = Instant::now();
    let (allocations, bytes) = (ALLOCATIONS.get(), ALLOCATED_BYTES.get());
    cluster.run(args, batch, args.entries);
    let spent = start.elapsed();
    let (allocations, bytes) = (ALLOCATIONS.get() - allocations, ALLOCATED_BYTES.get() - bytes);
    let after = cluster.tally;
    let entries = (after.replies - before.replies) as f64;
    Cost {
        ns: spent.as_nanos() as f64 / entries,
        allocations: allocations as f64 / entries,
        bytes: bytes as f64 / entries,
        frames: (after.frames - before.frames) as f64 / entries,
        writes: (after.writes - before.writes) as f64 / entries,
        log_bytes: (after.bytes - before.bytes) as f64 / entries,
        turns: (after.turns - before.turns) as f64 / entries,
    }
}

/// Memory to receive into, in bytes, and how much of it must be free: what `runtime/buffers.rs` says.
const CHUNK_BYTES: usize = 64 << 10;
const RECEIVE_BYTES_MIN: usize = 16 << 10;

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    replies: u64,
    frames: u64,
    writes: u64,
    bytes: u64,
    turns: u64,
}

/// One node: what its runtime would hold.
struct Node {
    shard: Shard,
    fx: Effects,
    /// One reader for each peer and lane, as there is a connection for each; by node, then lane.
    readers: Vec<[FrameReader; 3]>,
    /// Something has happened that it has not thought about.
    is_awake: bool,
    explainer: Explainer,
}

struct Cluster {
    nodes: Vec<Node>,
    now: Tick,
    /// Stage clocks run.
    explain: bool,
    clock: Instant,
    disk: Vec<u8>,
    rng: fastrand::Rng,
    input: BytesMut,
    reader: RequestReader,
    tally: Tally,
    /// Who leads, by group.
    leaders: Vec<usize>,
    seq: u64,
    /// Keys that are still to be written for the first time.
    fill: u64,
}

impl Cluster {
    fn new(args: &Args) -> Self {
        let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let node = |&node: &NodeId| {
            let config = Config {
                cluster: ClusterId(1),
                node,
                incarnation: Incarnation(1),
                shard: ShardId(0),
                cores: 1,
                groups: args.groups,
                nodes: nodes.clone(),
                addresses: Vec::new(),
                election_ms: 1_000,
                heartbeat_ms: 100,
                priority: 100,
                request_ms: 60_000,
                flushes_in_flight: 2,
                flush_joins_bytes: limits::FLUSH_JOINS_BYTES,
                leases: outrigger::shard::Leases::default(),
                log_cache_bytes: 8 << 20,
                log_bytes: 1 << 40,
                snapshot_bytes_per_s: 64 << 20,
                seed: args.seed + node.0,
            };
            let recovered = Recovering::new(config).finish(Tick(0));
            Node {
                shard: recovered.expect("an empty log").0,
                fx: Effects::default(),
                readers: (0..=3).map(|_| std::array::from_fn(|_| FrameReader::new())).collect(),
                is_awake: true,
                explainer: Explainer::default(),
            }
        };
        Self {
            nodes: nodes.iter().map(node).collect(),
            now: Tick(0),
            explain: false,
            clock: Instant::now(),
            disk: Vec::new(),
            rng: fastrand::Rng::with_seed(args.seed),
            input: BytesMut::new(),
            reader: RequestReader::new(),
            tally: Tally::default(),
            leaders: vec![0; args.groups as usize],
            seq: 0,
            fill: 0,
        }
    }

    /// Time passes until every group has a leader that has committed.
    fn elect(&mut self) {
        for _ in 0..10_000 {
            self.now = self.now.plus(5);
            self.nodes.iter_mut().for_each(|node| node.is_awake = true);
            self.settle();
            let leader = |group: usize| {
                self.nodes.iter().position(|it| it.shard.replicas()[group].status().leader_ready)
            };
            let leaders: Vec<Option<usize>> = (0..self.leaders.len()).map(leader).collect();
            if leaders.iter().all(Option::is_some) {
                self.leaders = leaders.into_iter().flatten().collect();
                return;
            }
        }
        panic!("no leaders after {}", self.now.0);
    }

    /// So many entries, a batch after the other: one is committed and answered before the next is said.
    fn run(&mut self, args: &Args, batch: usize, entries: usize) {
        // What follows the key is the same in every command.
        let mut rest = format!("\r\n${}\r\n", args.value_size).into_bytes();
        rest.resize(rest.len() + args.value_size, b'v');
        rest.extend_from_slice(b"\r\n");
        let until = self.tally.replies + entries as u64;
        while self.tally.replies < until {
            let answered = self.tally.replies;
            for _ in 0..batch {
                self.say(args, &rest);
            }
            self.settle();
            assert_eq!(self.tally.replies - answered, batch as u64, "everything is answered");
            // A batch a millisecond: heartbeats and news of commits have their share.
            self.now = self.now.plus(1);
            self.nodes.iter_mut().for_each(|node| node.is_awake = true);
        }
    }

    /// One SET arrives, as bytes: the `rest` is what follows its key.
    fn say(&mut self, args: &Args, rest: &[u8]) {
        let key = match self.fill.checked_sub(1) {
            Some(key) => {
                self.fill = key;
                key
            }
            None => self.rng.u64(..args.keys),
        };
        let bytes = args.value_size + 128;
        if self.input.capacity() < bytes.max(RECEIVE_BYTES_MIN) {
            // As a core receives: into pieces of memory of which commands are slices.
            self.input.reserve(bytes.max(CHUNK_BYTES));
        }
        self.input.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$16\r\n");
        let mut text = *b"key:000000000000";
        for (digit, place) in text[4..].iter_mut().rev().zip(0..) {
            *digit = b'0' + (key / 10u64.pow(place) % 10) as u8;
        }
        self.input.extend_from_slice(&text);
        self.input.extend_from_slice(rest);
        let command = self.reader.next(&mut self.input).expect("sound").expect("whole");
        let group = key_group(&text, args.groups).0 as usize;
        let node = if args.forward { self.rng.usize(..3) } else { self.leaders[group] };
        let (conn, seq) = (ConnId(1), self.seq);
        self.seq += 1;
        let request =
            Request { conn, seq, command, after_writes: false, manner: Manner::default() };
        self.nodes[node].shard.on_event(self.now, Event::Request(request));
        self.nodes[node].is_awake = true;
    }

    /// A place of a turn was passed.
    fn mark(&mut self, at: usize, mark: Mark) {
        if self.explain {
            let micros = Micros(1 + self.clock.elapsed().as_micros() as u64);
            self.nodes[at].shard.mark(self.now, mark, micros);
        }
    }

    /// Turns, until nobody has anything to do.
    fn settle(&mut self) {
        while let Some(at) = self.nodes.iter().position(|node| node.is_awake) {
            self.mark(at, Mark::Reaped);
            self.mark(at, Mark::Gathered);
            let node = &mut self.nodes[at];
            node.is_awake = false;
            let mut fx = std::mem::take(&mut node.fx);
            node.shard.turn(self.now, &mut fx);
            self.mark(at, Mark::Decided);
            self.tally.turns += 1;
            let node = &mut self.nodes[at];
            let (writes, frames) = (!fx.writes.is_empty(), !fx.frames.is_empty());
            if let Some(segment) = fx.spare.take() {
                node.shard.on_event(self.now, Event::SpareReady(segment));
                node.is_awake = true;
            }
            for write in fx.writes.drain(..) {
                self.disk.resize(write.bytes, 0);
                write.encode_into(&mut self.disk);
                self.tally.writes += 1;
                self.tally.bytes += write.bytes as u64;
                node.shard.on_event(self.now, Event::Flushed(write.ticket));
                node.shard.reuse_write(write);
                node.is_awake = true;
            }
            if writes {
                self.mark(at, Mark::Written);
            }
            for reply in fx.replies.drain(..) {
                assert_eq!(reply.reply, Reply::Ok, "every SET succeeds");
                self.tally.replies += 1;
            }
            for (to, frame) in fx.frames.drain(..) {
                self.tally.frames += 1;
                let lane = match frame.lane {
                    Lane::Control => 0,
                    Lane::Append => 1,
                    Lane::Bulk => 2,
                };
                let receiver = &mut self.nodes[to.0 as usize - 1];
                let reader = &mut receiver.readers[at + 1][lane];
                frame.slices().for_each(|slice: &Bytes| reader.feed(slice));
                while let Some(frame) = reader.next().expect("sound") {
                    receiver.shard.on_event(self.now, Event::Frame(frame));
                    receiver.is_awake = true;
                }
                self.nodes[at].shard.reuse_frame(frame);
            }
            if frames {
                self.mark(at, Mark::Sent);
            }
            self.mark(at, Mark::Replied);
            let Node { shard, explainer, .. } = &mut self.nodes[at];
            let (commits, legs) = shard.explained();
            explainer.count(commits, legs);
            fx.roles.clear();
            fx.late_beats.clear();
            fx.peers.clear();
            self.nodes[at].fx = fx;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_committed_entry_allocates_next_to_nothing() {
        let args = Args::parse_from(["path", "--keys", "2000", "--entries", "40000"]);
        for explain in [false, true] {
            let cost = measure(&args, 64, explain);
            assert!(cost.allocations <= 0.05, "the goal for batches of 64: {cost:?}");
        }
    }
}
