//! Drives etcd's v3 API: one current-thread runtime per thread, one HTTP/2 connection per logical
//! connection, so that N connections here are comparable with N Redis connections.
//!
//! Every connection is a task that connects, starts one sender per pipeline slot, and when the
//! connection breaks collects the senders and connects again. In the open loop a pacer hands out
//! one permit per due arrival; senders take permits in the order they asked, and what counts as
//! the start is still the arrival's own time. tokio's timer counts milliseconds, so the pacer
//! sleeps on a timerfd.

use crate::etcd_wire;
use crate::record::{Record, Tally};
use crate::run::Worker;
use crate::schedule::Admit;
use crate::workload::{Kind, Op};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Version};
use rustix::time::{self as timerfd, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

/// How often a request to stop is looked for, and the live counters handed over.
const WATCH: Duration = Duration::from_millis(20);
/// First and longest pause before connecting again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What all tasks of a thread share. One thread: cells, no locks.
struct Thread {
    worker: RefCell<Worker>,
    record: RefCell<Record>,
    tally: RefCell<Tally>,
    /// Operations sent and not answered, by number: what each is, and when it was due.
    outstanding: RefCell<BTreeMap<u64, (Kind, u64)>>,
    /// Operations sent so far: the number of the next.
    sent: Cell<u64>,
    /// Open loop: one permit per arrival that is due.
    due: Option<Semaphore>,
    /// The run is over; what is dropped from now on has been counted.
    ended: Cell<bool>,
}

/// Why a sender ended before the run did: its connection broke.
struct Broken;

/// Connects, waits for the start signal, runs, and returns what was measured.
pub(crate) fn run(mut worker: Worker) -> Result<Record, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))?;
    let tasks = LocalSet::new();
    let mut senders = Vec::new();
    for addr in &worker.addrs {
        let sender = tasks.block_on(&runtime, connect(*addr));
        senders.push(
            sender.map_err(|why| format!("cannot connect to {addr}: {why}; is etcd there?"))?,
        );
    }
    let window = worker.await_start().ok_or("the run was called off")?;
    let thread = Rc::new(Thread {
        due: worker.gate.is_open().then(|| Semaphore::new(0)),
        worker: RefCell::new(worker),
        record: RefCell::new(Record::new(window)),
        tally: RefCell::new(Tally::default()),
        outstanding: RefCell::default(),
        sent: Cell::new(0),
        ended: Cell::new(false),
    });
    tasks.block_on(&runtime, all(&thread, senders))?;
    let record = thread.record.borrow().clone();
    Ok(record)
}

/// Runs every connection until the run ends.
async fn all(thread: &Rc<Thread>, senders: Vec<SendRequest<Bytes>>) -> Result<(), String> {
    let mut connections = JoinSet::new();
    let addrs = thread.worker.borrow().addrs.clone();
    for (addr, sender) in addrs.into_iter().zip(senders) {
        connections.spawn_local(connection(Rc::clone(thread), addr, sender));
    }
    if thread.due.is_some() {
        let timer = timerfd::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )
        .map_err(|error| format!("cannot make a timer: {error}"))?;
        #[expect(
            deprecated,
            reason = "unsound for types that change their descriptor; OwnedFd \
                                       never does, and the successor is an unsafe function"
        )]
        let timer =
            AsyncFd::new(timer).map_err(|error| format!("cannot watch a timer: {error}"))?;
        tokio::task::spawn_local(pace(Rc::clone(thread), timer));
    }
    let (clock, drain_ns) = (thread.worker.borrow().clock, thread.worker.borrow().drain_ns);
    let mut done_ns = None;
    // Ends when every connection has, when asked to, or when the drain has lasted long enough.
    while !connections.is_empty() {
        // A timeout only means that nothing ended meanwhile.
        let _ = tokio::time::timeout(WATCH, connections.join_next()).await;
        let worker = thread.worker.borrow();
        thread.tally.borrow_mut().hand_over(&worker.shared);
        let now_ns = clock.now_ns();
        if done_ns.is_none() && worker.gate.is_over(now_ns) {
            done_ns = Some(now_ns);
            let mut record = thread.record.borrow_mut();
            record.overdue = worker.gate.overdue(now_ns);
            let slots = worker.addrs.len() * worker.pipeline;
            let taken = thread.outstanding.borrow().len() == slots;
            record.slots_taken = 0 < record.overdue && taken;
        }
        if worker.shared.stop.load(Ordering::Relaxed) {
            thread.ended.set(true);
            thread.record.borrow_mut().due = worker.gate.sent();
            return Ok(());
        }
        if done_ns.is_some_and(|done_ns| done_ns + drain_ns <= now_ns) {
            break;
        }
    }
    thread.ended.set(true);
    let mut record = thread.record.borrow_mut();
    let mut worker = thread.worker.borrow_mut();
    let (outstanding, now_ns) = (thread.outstanding.borrow(), clock.now_ns());
    record.unknown += outstanding.len() as u64;
    if worker.gate.is_open() {
        for (kind, intended_ns) in outstanding.values() {
            record.never_answered(*kind, *intended_ns, now_ns);
        }
        worker.give_up_unsent(&mut record, now_ns);
    }
    record.due = worker.gate.sent();
    Ok(())
}

/// One connection, through all its breaks.
async fn connection(thread: Rc<Thread>, addr: SocketAddr, first: SendRequest<Bytes>) {
    let mut open = Some(first);
    let mut pause = BACK_OFF.0;
    let pipeline = thread.worker.borrow().pipeline;
    loop {
        let sender = match open.take() {
            Some(sender) => sender,
            None => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACK_OFF.1);
                if thread.is_done() {
                    return;
                }
                match connect(addr).await {
                    Ok(sender) => sender,
                    Err(_) => continue,
                }
            }
        };
        let mut slots = JoinSet::new();
        for _ in 0..pipeline {
            slots.spawn_local(slot(Rc::clone(&thread), sender.clone()));
        }
        let before = thread.answers();
        let mut broken = false;
        while let Some(ended) = slots.join_next().await {
            broken |= matches!(ended, Ok(Err(Broken)));
            if broken {
                // The others wait for replies that cannot come.
                slots.abort_all();
            }
        }
        if !broken {
            return;
        }
        let mut record = thread.record.borrow_mut();
        record.disconnects += 1;
        thread.tally.borrow_mut().disconnects += 1;
        if thread.answers() > before {
            pause = BACK_OFF.0;
        }
    }
}

/// One operation after another on one connection.
async fn slot(thread: Rc<Thread>, mut sender: SendRequest<Bytes>) -> Result<(), Broken> {
    loop {
        let permit = match &thread.due {
            Some(due) => Some(due.acquire().await.expect("nobody closes it")),
            None => None,
        };
        // Ready before the gate is asked: an operation let through is an operation sent. If the
        // connection turns out broken, dropping the permit leaves the arrival to another sender.
        sender = sender.ready().await.map_err(|_| Broken)?;
        let Some((op, intended_ns, body)) = thread.next() else { return Ok(()) };
        if let Some(permit) = permit {
            permit.forget();
        }
        let outstanding = Outstanding::new(&thread, op, intended_ns);
        let path = if op.kind == Kind::Write { etcd_wire::PUT_PATH } else { etcd_wire::RANGE_PATH };
        let mut reply = call(&mut sender, path, body).await.map_err(|_| Broken)?;
        if let (Kind::ReadModifyWrite, Reply::Good { found }) = (op.kind, &reply) {
            if !found {
                thread.missed();
            }
            sender = sender.ready().await.map_err(|_| Broken)?;
            let body = thread.put(op);
            reply = call(&mut sender, etcd_wire::PUT_PATH, body).await.map_err(|_| Broken)?;
        }
        outstanding.answered();
        thread.on_reply(op, intended_ns, &reply);
    }
}

/// An operation on its way. Dropped unanswered, its outcome is unknown; at the end of the run
/// everything still alive is counted by [`all`].
struct Outstanding<'a> {
    thread: &'a Thread,
    number: u64,
    op: Op,
    intended_ns: u64,
    answered: bool,
}

impl<'a> Outstanding<'a> {
    fn new(thread: &'a Thread, op: Op, intended_ns: u64) -> Self {
        let number = thread.sent.replace(thread.sent.get() + 1);
        thread.outstanding.borrow_mut().insert(number, (op.kind, intended_ns));
        Self { thread, number, op, intended_ns, answered: false }
    }

    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        self.thread.outstanding.borrow_mut().remove(&self.number);
        let worker = self.thread.worker.borrow();
        if !self.answered && !self.thread.ended.get() {
            let mut record = self.thread.record.borrow_mut();
            record.unknown += 1;
            if worker.gate.is_open() {
                let now_ns = worker.clock.now_ns();
                record.never_answered(self.op.kind, self.intended_ns, now_ns);
            }
        }
        if self.op.fresh {
            worker.stream.settle(self.op.key);
        }
    }
}

impl Thread {
    /// The next operation, encoded, if there is to be one.
    fn next(&self) -> Option<(Op, u64, Bytes)> {
        let mut worker = self.worker.borrow_mut();
        let now_ns = worker.clock.now_ns();
        // An open loop's permit says that an arrival is due, so waiting does not occur.
        let Admit::Send(intended_ns) = worker.gate.admit(now_ns) else { return None };
        let stream = &mut worker.stream;
        let op = stream.next_op();
        let body = match op.kind {
            Kind::Read | Kind::ReadModifyWrite => etcd_wire::range(op.key),
            Kind::Scan => etcd_wire::range_of(op.key, op.keys),
            Kind::Write => etcd_wire::put(op.key, op.value_bytes, |out| {
                stream.push_value(out, op.value_bytes);
            }),
        };
        Some((op, intended_ns, body.into()))
    }

    /// The write of an operation whose read has been answered.
    fn put(&self, op: Op) -> Bytes {
        let stream = &mut self.worker.borrow_mut().stream;
        let push_value = |out: &mut Vec<u8>| stream.push_value(out, op.value_bytes);
        etcd_wire::put(op.key, op.value_bytes, push_value).into()
    }

    /// A read found nothing.
    fn missed(&self) {
        let now_ns = self.worker.borrow().clock.now_ns();
        self.record.borrow_mut().missed(now_ns);
    }

    fn is_done(&self) -> bool {
        let worker = self.worker.borrow();
        worker.gate.is_done(worker.clock.now_ns())
    }

    fn answers(&self) -> u64 {
        self.record.borrow().samples()
    }

    fn on_reply(&self, op: Op, intended_ns: u64, reply: &Reply) {
        let now_ns = self.worker.borrow().clock.now_ns();
        let (mut record, mut tally) = (self.record.borrow_mut(), self.tally.borrow_mut());
        match reply {
            Reply::Good { found } => {
                record.answered(op.kind, intended_ns, now_ns, op.value_bytes as u64);
                if !found {
                    record.missed(now_ns);
                }
                tally.answers += 1;
                tally.latency_sum_ns += now_ns.saturating_sub(intended_ns);
            }
            Reply::Error(text) => {
                record.refused(text);
                tally.errors += 1;
            }
        }
    }
}

/// An answer.
enum Reply {
    Good { found: bool },
    Error(String),
}

/// Opens one HTTP/2 connection and leaves a task to drive it.
async fn connect(addr: SocketAddr) -> Result<SendRequest<Bytes>, String> {
    let stream = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) =
        h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
    tokio::task::spawn_local(async move {
        // Its end reaches every sender as an error of its own.
        let _ = connection.await;
    });
    Ok(sender)
}

/// One unary gRPC call.
async fn call(
    sender: &mut SendRequest<Bytes>,
    path: &str,
    body: Bytes,
) -> Result<Reply, h2::Error> {
    let reads = path == etcd_wire::RANGE_PATH;
    let request = Request::builder()
        .version(Version::HTTP_2)
        .method(Method::POST)
        .uri(format!("http://etcd{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("every part is constant");
    let (response, mut stream) = sender.send_request(request, false)?;
    stream.send_data(body, true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut message = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        // Giving the window back keeps the connection from stalling after 64 KiB.
        body.flow_control().release_capacity(chunk.len())?;
        if reads {
            message.extend_from_slice(&chunk);
        }
    }
    // An error without a message has its status in the head, otherwise it is in the trailers.
    let trailers = body.trailers().await?;
    let field = |name| {
        let value = trailers.as_ref().and_then(|t| t.get(name)).or_else(|| head.headers.get(name));
        value.map_or("", |value| value.to_str().unwrap_or("(not text)"))
    };
    Ok(match field("grpc-status") {
        "0" => Reply::Good { found: !reads || etcd_wire::found(&message) },
        code => Reply::Error(format!("{} {}", etcd_wire::status_name(code), field("grpc-message"))),
    })
}

/// Releases one permit per arrival, when it is due.
async fn pace(thread: Rc<Thread>, timer: AsyncFd<OwnedFd>) {
    let (clock, mut gate) = {
        let worker = thread.worker.borrow();
        (worker.clock, worker.gate.clone())
    };
    let due = thread.due.as_ref().expect("only an open loop has a pacer");
    loop {
        let now_ns = clock.now_ns();
        match gate.admit(now_ns) {
            Admit::Send(_) => due.add_permits(1),
            Admit::Wait(next_ns) => sleep_ns(&timer, next_ns - now_ns).await,
            Admit::Done => break,
        }
    }
    // One permit more than arrivals: whoever takes it finds the gate shut, ends, and by ending
    // passes it on, until every sender has ended.
    due.add_permits(1);
}

/// Sleeps on the timer, to the microsecond.
async fn sleep_ns(timer: &AsyncFd<OwnedFd>, ns: u64) {
    let it_value = timerfd::Timespec {
        tv_sec: (ns / 1_000_000_000) as _,
        // Zero would disarm the timer and never wake.
        tv_nsec: (ns % 1_000_000_000).max(1) as _,
    };
    let it_interval = timerfd::Timespec { tv_sec: 0, tv_nsec: 0 };
    let spec = Itimerspec { it_interval, it_value };
    if timerfd::timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &spec).is_err() {
        return tokio::time::sleep(Duration::from_nanos(ns)).await;
    }
    if let Ok(mut ready) = timer.readable().await {
        let mut expirations = [0; 8];
        let _ = rustix::io::read(timer.get_ref(), &mut expirations);
        ready.clear_ready();
    }
}
