//! When an operation may be sent, and from when its latency counts.
//!
//! ```text
//! start ──warm-up──► warm_end ──── the window ────► end ──drain──► replies still owed
//! ```
//!
//! Closed loop: a free slot sends at once; the server's pace is the generator's pace. Open loop:
//! arrival `k` is due at `start + k / rate` whatever the server does. An arrival that finds every
//! slot taken waits, and its latency still counts from when it was due. A stalled server
//! therefore shows its stall once per arrival it delayed, not once per connection; leaving those
//! waits out is what is called coordinated omission.
//!
//! When the window ends, arrivals that were due in it and found no slot are still sent, for as long as replies are waited
//! for. Left out, a server could shorten its percentiles by being too slow for them.
//!
//! Arrivals are evenly spaced, so the queue of waiting ones is a single number: the next index.

/// The generator's clock: nanoseconds since it was made. Copied to every thread of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    /// A clock that starts at 0 now.
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Nanoseconds since the start.
    pub(crate) fn now_ns(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// The times of one run, in nanoseconds of its [`Clock`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// When sending begins.
    pub(crate) start_ns: u64,
    /// When measuring begins; `start_ns <= warm_end_ns`.
    pub(crate) warm_end_ns: u64,
    /// When measuring ends, and nothing is due any more; `u64::MAX` if a number of requests ends the run instead.
    pub(crate) end_ns: u64,
}

/// Evenly spaced arrivals of one thread.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    /// When this thread's arrival 0 is due.
    first_ns: f64,
    interval_ns: f64,
    next_index: u64,
}

impl Arrivals {
    /// Arrivals of thread `thread` of `threads` at `rate_per_s` in all. Threads interleave, so
    /// the sum is evenly spaced too.
    pub(crate) fn new(start_ns: u64, rate_per_s: f64, thread: u64, threads: u64) -> Self {
        let spacing_ns = 1e9 / rate_per_s;
        Self {
            first_ns: start_ns as f64 + spacing_ns * thread as f64,
            interval_ns: spacing_ns * threads as f64,
            next_index: 0,
        }
    }

    fn due_ns(&self) -> u64 {
        // Multiplied, not summed: no error builds up over millions of arrivals.
        (self.first_ns + self.interval_ns * self.next_index as f64) as u64
    }
}

/// The answer to "may I send?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admit {
    /// Send; latency counts from this time.
    Send(u64),
    /// Nothing is due before this time.
    Wait(u64),
    /// Never again in this run.
    Done,
}

/// Lets one thread's operations through at their time.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    window: Window,
    arrivals: Option<Arrivals>,
    /// Operations of the window still to send.
    quota: u64,
}

impl Gate {
    /// A gate; `arrivals` makes it an open loop. `quota` counts from the end of warm-up.
    pub(crate) fn new(window: Window, arrivals: Option<Arrivals>, quota: Option<u64>) -> Self {
        Self { window, arrivals, quota: quota.unwrap_or(u64::MAX) }
    }

    /// Asks at time `now_ns` to send one operation. `Admit::Send` takes it.
    pub(crate) fn admit(&mut self, now_ns: u64) -> Admit {
        if self.is_done(now_ns) {
            return Admit::Done;
        }
        let intended_ns = match &mut self.arrivals {
            None => now_ns,
            Some(arrivals) => {
                let due_ns = arrivals.due_ns();
                if self.window.end_ns <= due_ns {
                    return Admit::Done;
                }
                if now_ns < due_ns {
                    return Admit::Wait(due_ns);
                }
                arrivals.next_index += 1;
                due_ns
            }
        };
        if self.window.warm_end_ns <= intended_ns {
            self.quota -= 1;
        }
        Admit::Send(intended_ns)
    }

    /// Whether nothing will be let through any more, asked without taking anything.
    pub(crate) fn is_done(&self, now_ns: u64) -> bool {
        let end_ns = self.window.end_ns;
        self.quota == 0
            || match &self.arrivals {
                None => end_ns <= now_ns,
                Some(arrivals) => end_ns <= arrivals.due_ns(),
            }
    }

    /// Whether the window is over: from then on replies are waited for, and nothing new is due.
    pub(crate) fn is_over(&self, now_ns: u64) -> bool {
        self.quota == 0 || self.window.end_ns <= now_ns
    }

    /// Arrivals let through so far.
    pub(crate) fn sent(&self) -> u64 {
        self.arrivals.as_ref().map_or(0, |arrivals| arrivals.next_index)
    }

    /// Takes the next arrival due by `now_ns` (or the window's end), to be given up: when it was due.
    pub(crate) fn give_up(&mut self, now_ns: u64) -> Option<u64> {
        let until_ns = now_ns.min(self.window.end_ns);
        let arrivals = self.arrivals.as_mut().filter(|_| self.quota > 0)?;
        let due_ns = arrivals.due_ns();
        (due_ns < until_ns).then(|| {
            arrivals.next_index += 1;
            due_ns
        })
    }

    /// Whether arrivals follow a schedule.
    pub(crate) fn is_open(&self) -> bool {
        self.arrivals.is_some()
    }

    /// Arrivals due by `now_ns` (or the window's end) that were never let through.
    pub(crate) fn overdue(&self, now_ns: u64) -> u64 {
        let Some(arrivals) = &self.arrivals else { return 0 };
        let until_ns = now_ns.min(self.window.end_ns) as f64;
        let due = ((until_ns - arrivals.first_ns) / arrivals.interval_ns).ceil().max(0.0) as u64;
        due.saturating_sub(arrivals.next_index).min(self.quota)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { start_ns: 1_000, warm_end_ns: 2_000, end_ns: 10_000 };

    #[test]
    fn a_closed_loop_sends_at_once_until_the_end() {
        let mut gate = Gate::new(WINDOW, None, None);
        assert_eq!(gate.admit(1_500), Admit::Send(1_500));
        assert_eq!(gate.admit(9_999), Admit::Send(9_999));
        assert_eq!(gate.admit(10_000), Admit::Done);
    }

    #[test]
    fn a_late_arrival_counts_from_when_it_was_due() {
        // One arrival every 1,000 ns.
        let mut gate = Gate::new(WINDOW, Some(Arrivals::new(1_000, 1e6, 0, 1)), None);
        assert_eq!(gate.admit(1_000), Admit::Send(1_000));
        assert_eq!(gate.admit(1_200), Admit::Wait(2_000));
        // The server stalled until 4,500: three arrivals are owed, each with its own due time.
        assert_eq!(gate.overdue(4_500), 3);
        assert_eq!(gate.admit(4_500), Admit::Send(2_000));
        assert_eq!(gate.admit(4_500), Admit::Send(3_000));
        assert_eq!(gate.admit(4_500), Admit::Send(4_000));
        assert_eq!(gate.admit(4_500), Admit::Wait(5_000));
        // It stalled again, past the window's end: what was due in it is sent all the same, and nothing else.
        assert!(gate.is_over(20_000) && !gate.is_done(20_000));
        assert_eq!(gate.overdue(20_000), 5);
        assert_eq!(gate.admit(20_000), Admit::Send(5_000));
        assert_eq!(gate.admit(20_000), Admit::Send(6_000));
        // Arrivals 7,000 to 9,000 never got their turn, and each has an age.
        let given_up: Vec<u64> = std::iter::from_fn(|| gate.give_up(30_000)).collect();
        assert_eq!(given_up, [7_000, 8_000, 9_000]);
        assert_eq!((gate.admit(30_000), gate.overdue(30_000)), (Admit::Done, 0));
        assert_eq!(gate.sent(), 9);
    }

    #[test]
    fn threads_share_the_rate_and_interleave() {
        let mut first = Gate::new(WINDOW, Some(Arrivals::new(1_000, 1e6, 0, 2)), None);
        let mut second = Gate::new(WINDOW, Some(Arrivals::new(1_000, 1e6, 1, 2)), None);
        assert_eq!(first.admit(9_000), Admit::Send(1_000));
        assert_eq!(second.admit(9_000), Admit::Send(2_000));
        assert_eq!(first.admit(9_000), Admit::Send(3_000));
    }

    #[test]
    fn a_quota_counts_from_the_end_of_warm_up() {
        let window = Window { end_ns: u64::MAX, ..WINDOW };
        let mut gate = Gate::new(window, None, Some(2));
        assert_eq!(gate.admit(1_999), Admit::Send(1_999));
        assert_eq!(gate.admit(2_000), Admit::Send(2_000));
        assert_eq!(gate.admit(2_001), Admit::Send(2_001));
        assert_eq!(gate.admit(2_002), Admit::Done);
    }
}
