//! Asking the cores for their numbers, and putting together what they tell.
//!
//! ```text
//!  idle ── want ──► asked ── every core told ──► fresh for 100 ms, then idle
//!                     └───── 1 s is over ──────► failed: these cores did not tell; idle
//! ```

use std::sync::Arc;

use crate::id::{ShardId, Tick};
use crate::limits::{ADMIN_ANSWER_MS_MAX, ADMIN_FRESH_MS};
use crate::runtime::explain::Explained;
use crate::runtime::mailbox::Mailbox;
use crate::runtime::metrics::Durations;
use crate::runtime::shard_loop::Mail;
use crate::shard::report::ShardReport;

/// What one core tells of itself.
#[derive(Debug, Clone)]
pub struct CoreReport {
    /// What its shard knows.
    pub shard: ShardReport,
    /// From handing a log write to the kernel until it is durable.
    pub flushes: Durations,
    /// From the start of a turn to its end.
    pub turns: Durations,
    /// From sending a command on to another node until having its answer.
    pub forwards: Durations,
    /// Where the time of commits goes.
    pub explained: Explained,
    /// It hands over what it leads.
    pub draining: bool,
}

/// What can be put into the admin thread's mailbox.
#[derive(Debug)]
pub enum Letter {
    /// A core's answer to a [`Question`].
    Told(Box<CoreReport>),
    /// The node has ended.
    Stop,
}

/// A question to a core; see [`Mail::Tell`].
#[derive(Debug)]
pub struct Question {
    back: Arc<Mailbox<Letter>>,
}

impl Question {
    /// Answer it.
    pub fn answer(self, report: CoreReport) {
        // Room is certain: one question is under way for each core.
        self.back.deliver(Letter::Told(Box::new(report)));
    }
}

/// What all cores told.
#[derive(Debug)]
pub(super) struct Reports {
    /// When the last one told.
    pub(super) at: Tick,
    /// In their order.
    pub(super) cores: Vec<CoreReport>,
}

/// How a gathering ended: the reports, or the cores that did not tell in time.
pub(super) type Gathered = Result<Arc<Reports>, Vec<ShardId>>;

/// One per admin thread.
#[derive(Debug)]
pub(super) struct Gather {
    cores: Vec<Arc<Mailbox<Mail>>>,
    back: Arc<Mailbox<Letter>>,
    /// Cores that hold a question of ours.
    asked: Vec<bool>,
    /// The latest answers of a gathering that is under way.
    told: Vec<Option<CoreReport>>,
    /// When it is over, if one is under way.
    until: Option<Tick>,
    fresh: Option<Arc<Reports>>,
}

impl Gather {
    pub(super) fn new(cores: Vec<Arc<Mailbox<Mail>>>, back: Arc<Mailbox<Letter>>) -> Self {
        let count = cores.len();
        Self {
            cores,
            back,
            asked: vec![false; count],
            told: vec![None; count],
            until: None,
            fresh: None,
        }
    }

    /// Somebody wants to know: what is fresh, or nothing yet.
    pub(super) fn want(&mut self, now: Tick) -> Option<Arc<Reports>> {
        if let Some(reports) = &self.fresh
            && now.since(reports.at) < ADMIN_FRESH_MS
        {
            return Some(Arc::clone(reports));
        }
        if self.until.is_none() {
            self.until = Some(now.plus(ADMIN_ANSWER_MS_MAX));
            for (mailbox, asked) in self.cores.iter().zip(&mut self.asked) {
                // A core whose mailbox is full is asked by the next gathering.
                let question = Question { back: Arc::clone(&self.back) };
                *asked = *asked || mailbox.offer(Mail::Tell(question)).is_ok();
            }
        }
        None
    }

    /// A core told. The reports, if it was the last one that somebody waits for.
    pub(super) fn on_told(&mut self, now: Tick, report: CoreReport) -> Option<Gathered> {
        let core = usize::from(report.shard.shard.0);
        self.asked[core] = false;
        self.until?;
        self.told[core] = Some(report);
        if self.told.iter().any(Option::is_none) {
            return None;
        }
        self.until = None;
        let cores = self.told.iter_mut().filter_map(Option::take).collect();
        let reports = Arc::new(Reports { at: now, cores });
        self.fresh = Some(Arc::clone(&reports));
        Some(Ok(reports))
    }

    /// Time passes. Who did not tell, if the time of a gathering is over.
    pub(super) fn expire(&mut self, now: Tick) -> Option<Gathered> {
        if now < self.until? {
            return None;
        }
        self.until = None;
        let cores = (0..).map(ShardId).zip(&mut self.told);
        let silent = cores.filter_map(|(core, told)| told.take().is_none().then_some(core));
        Some(Err(silent.collect()))
    }

    /// When [`Self::expire`] next has something to do.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.until
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::id::{ClusterId, GroupId, Index, NodeId, ReplicaId, Term};
    use crate::raft::effects::RoleKind;
    use crate::runtime::explain::{self, Explainer};
    use crate::shard::report::{Counters, DriverReport, GroupReport, LinkReport};

    /// What core `core` of two could tell, with one group of its own.
    pub(in crate::runtime::admin) fn report(core: u16) -> CoreReport {
        let group = GroupReport {
            group: GroupId(core.into()),
            role: if core == 0 { RoleKind::Leader } else { RoleKind::Follower },
            leader: ReplicaId(1 + u64::from(core)),
            voters: [1, 2, 3].map(ReplicaId).into(),
            term: Term(4),
            commit: Index(9),
            applied: Index(8),
            first: Index(1),
            last: Index(11),
            keys: 5,
            expires: 0,
            failed: None,
            digest: None,
        };
        let link = LinkReport { node: NodeId(2), up: true, round_trip_us: Some(150) };
        let mut shard = ShardReport {
            slow: Vec::new(),
            node: NodeId(1),
            cluster: ClusterId(0xab),
            shard: ShardId(core),
            cores: 2,
            groups_total: 2,
            disk_full: false,
            groups_recalling: 0,
            log_bytes: 1 << 20,
            counters: Counters { wal_flushes: 2, entries_written: 3, ..Counters::default() },
            driver: DriverReport { links: vec![link], ..DriverReport::default() },
            groups: vec![group],
        };
        let mut flushes = Durations::default();
        flushes.record(std::time::Duration::from_micros(700));
        flushes.record(std::time::Duration::from_millis(40));
        let (turns, mut explainer) = (Durations::default(), Explainer::default());
        let mut forwards = Durations::default();
        forwards.record(std::time::Duration::from_millis(2));
        let (commit, leg) = explain::tests::explained(3, 5_000);
        explainer.count(&[commit], &[leg]);
        shard.driver.commits = explainer.lately(Tick(0));
        shard.driver.flushes = flushes.spread();
        let explained = explainer.all().clone();
        CoreReport { shard, flushes, turns, forwards, explained, draining: false }
    }

    /// A gathering over two cores whose mailboxes hold so many letters.
    fn gather(bound: usize) -> (Gather, Vec<Arc<Mailbox<Mail>>>) {
        let cores: Vec<_> =
            (0..2).map(|_| Arc::new(Mailbox::new(bound).expect("eventfd"))).collect();
        let back = Arc::new(Mailbox::new(1).expect("eventfd"));
        (Gather::new(cores.clone(), back), cores)
    }

    /// Questions in a core's mailbox, which are taken out.
    fn questions(mailbox: &Mailbox<Mail>) -> usize {
        let mut mail = Vec::new();
        mailbox.take(&mut mail);
        assert!(mail.iter().all(|letter| matches!(letter, Mail::Tell(_))));
        mail.len()
    }

    #[test]
    fn the_cores_are_asked_once_and_the_answer_serves_everybody_for_a_while() {
        let (mut gather, cores) = gather(8);
        assert!(gather.want(Tick(0)).is_none() && gather.want(Tick(1)).is_none());
        assert_eq!([questions(&cores[0]), questions(&cores[1])], [1, 1], "one gathering");
        assert!(gather.on_told(Tick(2), report(1)).is_none());
        let Some(Ok(reports)) = gather.on_told(Tick(3), report(0)) else { panic!("both told") };
        assert_eq!(reports.cores.iter().map(|it| it.shard.shard.0).collect::<Vec<_>>(), [0, 1]);
        assert!(gather.want(Tick(2 + ADMIN_FRESH_MS)).is_some(), "still fresh");
        assert_eq!(questions(&cores[0]), 0);
        assert!(gather.want(Tick(3 + ADMIN_FRESH_MS)).is_none(), "stale");
        assert_eq!(questions(&cores[0]), 1);
    }

    #[test]
    fn a_silent_core_is_named_and_not_asked_again_before_it_has_told() {
        let (mut gather, cores) = gather(8);
        assert!(gather.want(Tick(0)).is_none());
        assert!(gather.on_told(Tick(1), report(0)).is_none());
        assert!(gather.expire(Tick(ADMIN_ANSWER_MS_MAX - 1)).is_none());
        let Some(Err(silent)) = gather.expire(Tick(ADMIN_ANSWER_MS_MAX)) else { panic!("over") };
        assert_eq!(silent, [ShardId(1)]);
        questions(&cores[0]);

        assert!(gather.want(Tick(2_000)).is_none());
        assert_eq!(questions(&cores[0]), 1);
        assert_eq!(questions(&cores[1]), 1, "the first one, which it never looked at");
        // What it says at last is as good as new.
        assert!(gather.on_told(Tick(2_001), report(1)).is_none());
        assert!(matches!(gather.on_told(Tick(2_002), report(0)), Some(Ok(_))));
        assert!(gather.expire(Tick(9_000)).is_none() && gather.deadline().is_none());
    }

    #[test]
    fn a_full_mailbox_is_a_silent_core() {
        let (mut gather, cores) = gather(1);
        cores[1].offer(Mail::Stop).expect("room for one");
        assert!(gather.want(Tick(0)).is_none());
        assert!(gather.on_told(Tick(1), report(0)).is_none());
        let Some(Err(silent)) = gather.expire(Tick(ADMIN_ANSWER_MS_MAX)) else { panic!("over") };
        assert_eq!(silent, [ShardId(1)]);
        cores[1].take(&mut Vec::new());
        assert!(gather.want(Tick(2_000)).is_none());
        assert_eq!(questions(&cores[1]), 1, "there is room now");
    }
}
