//! One run: threads connect, start together, warm up, are measured, drain.
//!
//! The main thread only sleeps: it reads the servers' counters exactly at the window's two ends,
//! shows progress, and passes on a Ctrl-C.

use crate::access::Access;
use crate::args::{Ends, Plan, Target};
use crate::procstat::{self, Snapshot};
use crate::protocol::Manner;
use crate::record::{Record, Shared};
use crate::schedule::{Arrivals, Clock, Gate, Window};
use crate::slots::Leaders;
use crate::workload::Stream;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// How often a Ctrl-C is looked for.
const WATCH_NS: u64 = 50_000_000;
/// How often the progress line changes.
const PROGRESS_NS: u64 = 1_000_000_000;

/// The number of the run that fills: no measured run has it, so none repeats its values.
pub(crate) const FILLING: u64 = u64::MAX;

/// What a generator thread is given.
pub(crate) struct Worker {
    /// One address per connection of this thread.
    pub(crate) addrs: Vec<SocketAddr>,
    /// Operations a connection may have outstanding; at least 1.
    pub(crate) pipeline: usize,
    /// How connections begin and what writes mean.
    pub(crate) manner: Manner,
    /// How connections get in.
    pub(crate) access: Arc<Access>,
    /// Who leads which key, if connections only ask for those of their nodes.
    pub(crate) leaders: Option<Arc<Leaders>>,
    /// The operations to send.
    pub(crate) stream: Stream,
    /// When to send them. Lets nothing through before [`Worker::await_start`].
    pub(crate) gate: Gate,
    /// The clock of the run.
    pub(crate) clock: Clock,
    /// Live counters, and the request to stop.
    pub(crate) shared: Arc<Shared>,
    /// How long replies are waited for after the window.
    pub(crate) drain_ns: u64,
    pace: Pace,
    news: Sender<News>,
    start: Receiver<Window>,
}

/// What turns a window into this thread's gate.
#[derive(Debug, Clone, Copy)]
struct Pace {
    rate_per_s: Option<f64>,
    quota: Option<u64>,
    thread: u64,
    threads: u64,
}

impl Worker {
    /// Says that this thread's connections are up, waits until all are, and opens the gate.
    /// `None`: another thread failed and there will be no run.
    pub(crate) fn await_start(&mut self) -> Option<Window> {
        self.news.send(News::Ready).ok()?;
        let window = self.start.recv().ok()?;
        // Sent before the start, an operation would belong to no part of the run.
        let early_ns = window.start_ns.saturating_sub(self.clock.now_ns());
        std::thread::sleep(Duration::from_nanos(early_ns));
        let Pace { rate_per_s, quota, thread, threads } = self.pace;
        let arrivals = rate_per_s.map(|r| Arrivals::new(window.start_ns, r, thread, threads));
        self.gate = Gate::new(window, arrivals, quota);
        Some(window)
    }
}

impl Worker {
    /// Arrivals that were due and not even sent count with their age, as what they would have been.
    pub(crate) fn give_up_unsent(&mut self, record: &mut Record, now_ns: u64) {
        while let Some(intended_ns) = self.gate.give_up(now_ns) {
            let (kind, _) = self.stream.next_kind();
            record.never_answered(kind, intended_ns, now_ns);
            record.unsent += 1;
        }
    }
}

/// What generator threads tell the main thread.
enum News {
    Ready,
    Finished(Box<Result<Record, String>>),
}

/// What one run measured.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// All threads' measurements.
    pub(crate) record: Record,
    /// Length of the measured window, in seconds.
    pub(crate) window_s: f64,
    /// What the servers used in it.
    pub(crate) usage: Snapshot,
    /// What the generator itself used, in microseconds of CPU time.
    pub(crate) own_cpu_us: Option<f64>,
    /// Why `usage` is incomplete, if it is.
    pub(crate) usage_problem: Option<String>,
    /// Ctrl-C ended the run early: it stands for itself, and is left out of medians.
    pub(crate) interrupted: bool,
}

/// Performs run number `run` (from 0, or [`FILLING`]) of `plan`. `stop` is set by a signal.
pub(crate) fn once(plan: &Plan, run: u64, stop: &AtomicBool) -> Result<Outcome, String> {
    let clock = Clock::start();
    let shared = Arc::new(Shared::default());
    let (news_sender, news) = mpsc::channel();
    let threads = plan.threads as u64;
    let leaders = if plan.by_slot {
        let leaders = Leaders::ask(plan.addrs[0], &plan.access)?;
        leaders.check(&plan.addrs, plan.workload.keys)?;
        Some(Arc::new(leaders))
    } else {
        None
    };
    plan.inserts.begin();
    let mut starts = Vec::new();
    for thread in 0..threads {
        let (start_sender, start) = mpsc::channel();
        starts.push(start_sender);
        let quota = match plan.ends {
            Ends::After { .. } => None,
            Ends::Requests(n) => Some(n / threads + u64::from(thread < n % threads)),
        };
        let never = Window { start_ns: 0, warm_end_ns: 0, end_ns: 0 };
        let worker = Worker {
            addrs: (0..plan.connections)
                .skip(thread as usize)
                .step_by(plan.threads)
                .map(|connection| plan.addrs[connection % plan.addrs.len()])
                .collect(),
            pipeline: plan.pipeline,
            manner: plan.manner,
            access: Arc::clone(&plan.access),
            leaders: leaders.clone(),
            stream: Stream::new(
                &plan.workload,
                Arc::clone(&plan.inserts),
                (plan.seed, run),
                (thread, threads),
            ),
            gate: Gate::new(never, None, None),
            clock,
            shared: Arc::clone(&shared),
            drain_ns: seconds_ns(plan.drain_s),
            pace: Pace { rate_per_s: plan.rate_per_s, quota, thread, threads },
            news: news_sender.clone(),
            start,
        };
        spawn(plan.target, worker, news_sender.clone())?;
    }
    drop(news_sender);
    await_ready(&news, plan.threads)?;
    let start_ns = clock.now_ns() + 1_000_000;
    let warm_end_ns = start_ns + seconds_ns(plan.warmup_s);
    let end_ns = match plan.ends {
        Ends::After { seconds } => warm_end_ns + seconds_ns(seconds),
        Ends::Requests(_) => u64::MAX,
    };
    let window = Window { start_ns, warm_end_ns, end_ns };
    for start in starts {
        // A thread that is gone has said why in its news.
        let _ = start.send(window);
    }
    Watch { plan, run, clock, window, shared: &shared, news, stop }.until_the_end()
}

fn seconds_ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

fn spawn(target: Target, worker: Worker, news: Sender<News>) -> Result<(), String> {
    let body = move || {
        let result = match target {
            Target::Resp => crate::driver_epoll::run::<crate::resp::Resp>(worker),
            Target::Zookeeper => crate::driver_epoll::run::<crate::zookeeper::ZooKeeper>(worker),
            #[cfg(feature = "etcd")]
            Target::Etcd => crate::driver_etcd::run(worker),
        };
        // The main thread may have given up already; then nobody wants the result.
        let _ = news.send(News::Finished(Box::new(result)));
    };
    let thread = std::thread::Builder::new().name("load".into()).spawn(body);
    thread.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}

fn await_ready(news: &Receiver<News>, threads: usize) -> Result<(), String> {
    for _ in 0..threads {
        match news.recv() {
            Ok(News::Ready) => {}
            Ok(News::Finished(result)) => {
                return Err(result.err().unwrap_or_else(|| "a thread ended early".into()));
            }
            Err(_) => return Err("a generator thread panicked".into()),
        }
    }
    Ok(())
}

/// The main thread during a run.
struct Watch<'a> {
    plan: &'a Plan,
    run: u64,
    clock: Clock,
    window: Window,
    shared: &'a Shared,
    news: Receiver<News>,
    stop: &'a AtomicBool,
}

/// The counters of servers and generator at one moment.
type Sample = (u64, Result<Snapshot, String>, Option<f64>);

impl Watch<'_> {
    fn sample(&self) -> Sample {
        (self.clock.now_ns(), self.plan.probe.read(), procstat::own_cpu_us())
    }

    fn until_the_end(self) -> Result<Outcome, String> {
        let Window { warm_end_ns, end_ns, .. } = self.window;
        let (mut before, mut after): (Option<Sample>, Option<Sample>) = (None, None);
        let mut progress = Progress::new(self.plan, self.run, self.clock.now_ns());
        let mut record = Record::new(self.window);
        let mut running = self.plan.threads;
        let mut interrupted = false;
        while running > 0 {
            let now_ns = self.clock.now_ns();
            if before.is_none() && warm_end_ns <= now_ns {
                before = Some(self.sample());
            }
            if after.is_none() && end_ns <= now_ns {
                after = Some(self.sample());
            }
            if !interrupted && self.stop.load(Ordering::Relaxed) {
                interrupted = true;
                self.shared.stop.store(true, Ordering::Relaxed);
                after.get_or_insert_with(|| self.sample());
            }
            progress.show(now_ns, &self);
            let next_ns = [warm_end_ns, end_ns].into_iter().filter(|&at| now_ns < at).min();
            let wait_ns = next_ns.map_or(WATCH_NS, |at| (at - now_ns).min(WATCH_NS));
            match self.news.recv_timeout(Duration::from_nanos(wait_ns)) {
                Ok(News::Finished(result)) => {
                    record.merge(&(*result)?);
                    running -= 1;
                }
                Ok(News::Ready) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("a generator thread panicked".into());
                }
            }
        }
        progress.clear();
        let after = after.unwrap_or_else(|| self.sample());
        // Interrupted in warm-up: there is no window, and the differences are zero.
        let before = before.unwrap_or_else(|| after.clone());
        let window_end_ns = match self.plan.ends {
            Ends::After { .. } => end_ns.min(after.0),
            Ends::Requests(_) => record.last_ns,
        };
        let usage = before.1.and_then(|before| after.1.map(|after| after.since(&before)));
        let usage_problem = usage.as_ref().err().cloned();
        Ok(Outcome {
            record,
            window_s: window_end_ns.saturating_sub(warm_end_ns) as f64 / 1e9,
            usage: usage.unwrap_or_default(),
            own_cpu_us: after.2.zip(before.2).map(|(after, before)| after - before),
            usage_problem,
            interrupted,
        })
    }
}

/// The progress line on standard error: rewritten in place on a terminal, else a line a second.
struct Progress {
    shown: bool,
    in_place: bool,
    label: String,
    next_ns: u64,
    last_ns: u64,
    last_answers: u64,
    last_sum_ns: u64,
}

impl Progress {
    fn new(plan: &Plan, run: u64, now_ns: u64) -> Self {
        let in_place = std::io::stderr().is_terminal();
        Self {
            shown: in_place || plan.progress,
            in_place,
            label: match run {
                FILLING => format!("{} filling", plan.name).trim().to_owned(),
                run => format!("{} run {}/{}", plan.name, run + 1, plan.runs).trim().to_owned(),
            },
            next_ns: now_ns + PROGRESS_NS,
            last_ns: now_ns,
            last_answers: 0,
            last_sum_ns: 0,
        }
    }

    fn show(&mut self, now_ns: u64, watch: &Watch<'_>) {
        if !self.shown || now_ns < self.next_ns {
            return;
        }
        let Window { start_ns, warm_end_ns, end_ns } = watch.window;
        let phase = match now_ns {
            _ if now_ns < warm_end_ns => "warming up",
            _ if now_ns < end_ns => "measuring",
            _ => "draining",
        };
        let answers = watch.shared.answers.load(Ordering::Relaxed);
        let sum_ns = watch.shared.latency_sum_ns.load(Ordering::Relaxed);
        let errors = watch.shared.errors.load(Ordering::Relaxed);
        let disconnects = watch.shared.disconnects.load(Ordering::Relaxed);
        let fresh = answers - self.last_answers;
        let per_s = fresh as f64 * 1e9 / (now_ns - self.last_ns) as f64;
        let mean_us = (sum_ns - self.last_sum_ns) as f64 / 1e3 / fresh.max(1) as f64;
        let line = format!(
            "{} · {phase} {:.0} s · {per_s:.0} ops/s · mean {mean_us:.0} µs · {errors} errors · \
             {disconnects} disconnects",
            self.label,
            now_ns.saturating_sub(start_ns) as f64 / 1e9,
        );
        let (before, after) = if self.in_place { ("\r\x1b[2K", "") } else { ("", "\n") };
        let mut stderr = std::io::stderr();
        // A closed standard error is no reason to lose a measurement.
        let _ = write!(stderr, "{before}{line}{after}").and_then(|()| stderr.flush());
        (self.next_ns, self.last_ns) = (now_ns + PROGRESS_NS, now_ns);
        (self.last_answers, self.last_sum_ns) = (answers, sum_ns);
    }

    fn clear(&self) {
        if self.in_place {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}
