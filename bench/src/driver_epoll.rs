//! Drives RESP and ZooKeeper servers: one thread, one epoll set, many connections.
//!
//! The generator shares its cores with the servers, so a turn costs as little as it can: one
//! `epoll_pwait2`, then per ready connection one read, the replies stepped over in place, the
//! freed slots refilled, one write. Nothing is allocated once the buffers have grown. In the open
//! loop the wait ends at the next arrival, to the microsecond; nothing spins.

use crate::conn::Conn;
use crate::protocol::{Protocol, Reply};
use crate::record::{Record, Tally};
use crate::run::Worker;
use crate::schedule::Admit;
use crate::workload::{Kind, Op, Stream};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Longest wait: how soon a request to stop is seen on an idle thread.
const WAIT_NS_MAX: u64 = 50_000_000;
/// Events taken per turn.
const EVENTS_MAX: usize = 256;

/// A request written and not yet answered. Replies come in the order of requests.
#[derive(Debug, Clone, Copy)]
struct Pending {
    intended_ns: u64,
    op: Op,
    /// What was written is a write. Of an operation that reads and then writes, the second half.
    is_write: bool,
}

/// One generator thread.
struct Driver<P> {
    worker: Worker,
    epoll: OwnedFd,
    conns: Vec<Conn>,
    /// Each connection's side of the protocol.
    sides: Vec<P>,
    /// What each connection still owes, oldest first.
    pending: Vec<VecDeque<Pending>>,
    pending_count: usize,
    /// Connections that may have a free slot, the longest idle first, and whether each is in
    /// that queue. This is what spreads an open loop's arrivals evenly.
    free: VecDeque<usize>,
    is_free: Vec<bool>,
    /// Connections down or opening; only while there are some are their timers looked at.
    down_count: usize,
    /// Reads that were answered just now and whose writes are to follow; empty between turns.
    halves: Vec<Pending>,
    /// Nothing will be sent any more, but the second halves of what was.
    done: bool,
    record: Record,
    tally: Tally,
}

/// Connects, waits for the start signal, runs, and returns what was measured.
pub(crate) fn run<P: Protocol>(worker: Worker) -> Result<Record, String> {
    // The default of 50 µs would make every arrival of an open loop late by as much.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| format!("epoll: {e}"))?;
    let mut conns = Vec::with_capacity(worker.addrs.len());
    for (slot, addr) in worker.addrs.iter().enumerate() {
        let conn =
            Conn::open::<P>(&epoll, *addr, slot as u64, worker.manner, Arc::clone(&worker.access))
                .map_err(|error| {
                    format!("cannot connect to {addr}: {error}; is the server there?")
                })?;
        conns.push(conn);
    }
    let mut worker = worker;
    let Some(window) = worker.await_start() else { return Err("the run was called off".into()) };
    let count = conns.len();
    Driver {
        record: Record::new(window),
        pending: (0..count).map(|_| VecDeque::with_capacity(worker.pipeline)).collect(),
        pending_count: 0,
        free: (0..count).collect(),
        is_free: vec![true; count],
        down_count: 0,
        halves: Vec::new(),
        done: false,
        tally: Tally::default(),
        sides: (0..count).map(|_| P::new(worker.manner)).collect(),
        epoll,
        conns,
        worker,
    }
    .turns()
}

impl<P: Protocol> Driver<P> {
    fn turns(mut self) -> Result<Record, String> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        let mut drain_end_ns = u64::MAX;
        loop {
            let mut now_ns = self.worker.clock.now_ns();
            let next_ns = self.feed(&mut now_ns);
            if self.worker.gate.is_over(now_ns) && drain_end_ns == u64::MAX {
                drain_end_ns = now_ns + self.worker.drain_ns;
                self.record.overdue = self.worker.gate.overdue(now_ns);
                let slots = self.conns.len() * self.worker.pipeline;
                self.record.slots_taken = 0 < self.record.overdue && self.pending_count == slots;
            }
            let stopped = self.worker.shared.stop.load(Ordering::Relaxed);
            if stopped || drain_end_ns <= now_ns || (self.done && self.pending_count == 0) {
                // A run that was interrupted calls nothing unknown: it did not wait.
                if !stopped {
                    self.record.unknown += self.pending_count as u64;
                    self.give_up(now_ns);
                }
                self.record.due = self.worker.gate.sent();
                self.say_goodbye();
                return Ok(self.record);
            }
            let retry_ns = self.reopen_due(now_ns);
            let until_ns = next_ns.min(retry_ns).min(drain_end_ns);
            let wait_ns = until_ns.saturating_sub(now_ns).min(WAIT_NS_MAX);
            let timeout = Timespec { tv_sec: 0, tv_nsec: wait_ns as _ };
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&timeout),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(format!("epoll: {error}")),
            }
            for event in &events {
                self.on_ready(event.data.u64() as usize);
            }
            self.tally.hand_over(&self.worker.shared);
        }
    }

    /// Fills free slots with what is due; returns when the next operation is.
    fn feed(&mut self, now_ns: &mut u64) -> u64 {
        while let Some(slot) = self.free.pop_front() {
            self.is_free[slot] = false;
            if !self.conns[slot].is_up() || self.pending[slot].len() >= self.worker.pipeline {
                continue;
            }
            // A closed loop fills the connection; an open one gives each connection one arrival
            // in turn, and the rest of its slots wait for the next round.
            let room = if self.worker.gate.is_open() { 1 } else { self.worker.pipeline };
            let admit = self.send(slot, *now_ns, room);
            if self.pending[slot].len() < self.worker.pipeline && self.conns[slot].is_up() {
                self.is_free[slot] = true;
                if let Admit::Wait(next_ns) = admit {
                    self.free.push_front(slot);
                    return next_ns;
                }
                self.free.push_back(slot);
            }
            match admit {
                Admit::Done => break,
                Admit::Wait(next_ns) => return next_ns,
                // The write took its time; what comes after is sent no earlier than now.
                Admit::Send(_) => *now_ns = self.worker.clock.now_ns(),
            }
        }
        // Without a free slot the gate was not asked, and the end of sending must still be seen.
        self.done |= self.worker.gate.is_done(*now_ns);
        u64::MAX
    }

    /// Encodes up to `room` operations for one connection and writes them at once. Returns the
    /// gate's last word.
    fn send(&mut self, slot: usize, now_ns: u64, room: usize) -> Admit {
        let (conn, side) = (&mut self.conns[slot], &mut self.sides[slot]);
        let pending = &mut self.pending[slot];
        let mut admit = Admit::Send(now_ns);
        for _ in 0..room {
            if pending.len() >= self.worker.pipeline {
                break;
            }
            admit = self.worker.gate.admit(now_ns);
            let Admit::Send(intended_ns) = admit else { break };
            let stream = &mut self.worker.stream;
            let mut op = stream.next_op();
            if let Some(leaders) = &self.worker.leaders {
                // Some key is its node's, or the run would not have begun.
                while !leaders.is_leader(self.worker.addrs[slot], op.key) {
                    op = stream.next_op();
                }
            }
            match op.kind {
                Kind::Read | Kind::ReadModifyWrite => side.push_read(&mut conn.out, op.key),
                Kind::Scan => side.push_scan(&mut conn.out, op.key, op.keys),
                Kind::Write => push_write(side, &mut conn.out, op, stream),
            }
            pending.push_back(Pending { intended_ns, op, is_write: op.kind == Kind::Write });
            self.pending_count += 1;
        }
        self.done |= admit == Admit::Done;
        if !conn.out.is_empty() && conn.flush(&self.epoll).is_err() {
            self.break_off(slot, now_ns);
        }
        admit
    }

    /// Handles one connection that epoll reports.
    fn on_ready(&mut self, slot: usize) {
        let now_ns = self.worker.clock.now_ns();
        if !self.conns[slot].is_up() {
            if self.conns[slot].came_up::<P>(&self.epoll, now_ns) {
                self.down_count -= 1;
                self.offer(slot);
            }
            return;
        }
        if self.take_replies(slot, now_ns).is_err() {
            return self.break_off(slot, now_ns);
        }
        if self.worker.gate.is_open() {
            // Arrivals are dealt out by `feed`. What a full socket left behind goes now.
            self.offer(slot);
            if self.conns[slot].flush(&self.epoll).is_err() {
                self.break_off(slot, now_ns);
            }
        } else {
            let pipeline = self.worker.pipeline;
            self.send(slot, now_ns, pipeline);
        }
    }

    /// Reads and steps over every whole reply.
    fn take_replies(&mut self, slot: usize, now_ns: u64) -> Result<(), ()> {
        loop {
            let more = self.conns[slot].fill().map_err(|_| ())?;
            let mut at = 0;
            let (input, side) = (self.conns[slot].input(), &mut self.sides[slot]);
            while let Some((bytes, reply)) = side.take_reply(&input[at..]).map_err(|garbage| {
                self.record
                    .refused(&format!("(garbage) {garbage:?}: the reply is not {}", P::NAME));
                self.tally.errors += 1;
            })? {
                // A reply nobody asked for: the stream cannot be trusted any further.
                let Some(asked) = self.pending[slot].pop_front() else {
                    self.record.refused("(unasked) a reply came without a request");
                    self.tally.errors += 1;
                    return Err(());
                };
                self.pending_count -= 1;
                at += bytes;
                let Pending { intended_ns, op, is_write } = asked;
                // A write of a key that is not there wrote nothing.
                let refused = match &reply {
                    Reply::Refused(text) => Some(text.as_str()),
                    Reply::Nil if is_write => Some("NIL the key does not exist"),
                    Reply::Good | Reply::Nil => None,
                };
                if let Some(text) = refused {
                    self.record.refused(text);
                    self.tally.errors += 1;
                } else {
                    if op.kind == Kind::ReadModifyWrite && !is_write {
                        self.halves.push(Pending { is_write: true, ..asked });
                    } else {
                        self.record.answered(op.kind, intended_ns, now_ns, op.value_bytes as u64);
                        self.tally.answers += 1;
                        self.tally.latency_sum_ns += now_ns.saturating_sub(intended_ns);
                    }
                    if reply == Reply::Nil {
                        self.record.missed(now_ns);
                    }
                }
                if op.fresh {
                    self.worker.stream.settle(op.key);
                }
            }
            // On the slots of their reads, and written to the socket with whatever is sent next: at the end of this turn.
            for half in self.halves.drain(..) {
                let (side, out) = (&mut self.sides[slot], &mut self.conns[slot].out);
                push_write(side, out, half.op, &mut self.worker.stream);
                self.pending[slot].push_back(half);
                self.pending_count += 1;
            }
            if at > 0 {
                self.conns[slot].consume(at);
                self.conns[slot].is_well();
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Marks a connection as one that may have a free slot.
    fn offer(&mut self, slot: usize) {
        if !self.is_free[slot] {
            self.is_free[slot] = true;
            self.free.push_back(slot);
        }
    }

    /// A connection broke: nobody knows what became of the operations it still owed.
    fn break_off(&mut self, slot: usize, now_ns: u64) {
        let lost = self.pending[slot].len();
        for Pending { intended_ns, op, .. } in self.pending[slot].drain(..) {
            if self.worker.gate.is_open() {
                self.record.never_answered(op.kind, intended_ns, now_ns);
            }
            if op.fresh {
                self.worker.stream.settle(op.key);
            }
        }
        self.pending_count -= lost;
        self.record.unknown += lost as u64;
        self.record.disconnects += 1;
        self.tally.disconnects += 1;
        self.sides[slot] = P::new(self.worker.manner);
        self.conns[slot].break_off(now_ns);
        self.down_count += 1;
    }

    /// What an open loop had due and is not answered, or was not even sent, counts with its age.
    fn give_up(&mut self, now_ns: u64) {
        if !self.worker.gate.is_open() {
            return;
        }
        for Pending { intended_ns, op, .. } in self.pending.iter().flatten() {
            self.record.never_answered(op.kind, *intended_ns, now_ns);
        }
        self.worker.give_up_unsent(&mut self.record, now_ns);
    }

    /// Takes leave of the server, so that it need not find out by a timeout that we are gone.
    fn say_goodbye(&mut self) {
        for conn in self.conns.iter_mut().filter(|conn| conn.is_up() && !P::GOODBYE.is_empty()) {
            conn.out.extend_from_slice(P::GOODBYE);
            // A courtesy: a connection too full to take it is closed without.
            let _ = conn.flush(&self.epoll);
        }
    }

    /// Reconnects what is due; returns when the next is.
    fn reopen_due(&mut self, now_ns: u64) -> u64 {
        let mut next_ns = u64::MAX;
        if self.down_count == 0 || self.done {
            return next_ns;
        }
        for conn in &mut self.conns {
            if conn.retry_ns().is_some_and(|retry_ns| retry_ns <= now_ns) {
                conn.reopen(&self.epoll, now_ns);
            }
            next_ns = next_ns.min(conn.retry_ns().unwrap_or(u64::MAX));
        }
        next_ns
    }
}

/// Appends the write of an operation that has one.
fn push_write<P: Protocol>(side: &mut P, out: &mut Vec<u8>, op: Op, stream: &mut Stream) {
    side.push_write(out, op.key, op.fresh, op.value_bytes, |out| {
        stream.push_value(out, op.value_bytes);
    });
}
