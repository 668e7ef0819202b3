//! What must hold between any two calls: I1 to I9 of the [module](super), checked after every step
//! in tests and debug builds.

use crate::id::{Index, ReplicaId};

use super::progress::ProgressState;
use super::state::{Leader, Raft, Role};

impl Raft {
    /// Panics if an invariant is broken: that is a bug in this folder. Free in release builds.
    #[inline]
    pub(super) fn check(&self) {
        if cfg!(any(test, debug_assertions)) && self.failure().is_none() {
            self.check_cursors();
            self.check_runs();
            self.check_writes();
            self.check_role();
            self.check_promises();
        }
    }

    /// I1.
    fn check_cursors(&self) {
        let log = &self.log;
        assert!(log.before_first().index <= log.applied(), "I1 before first <= applied");
        assert!(log.applied() <= log.applying(), "I1 applied <= applying");
        assert!(log.applying() <= log.commit(), "I1 applying <= commit");
        assert!(log.commit() <= log.last(), "I1 commit <= last");
        assert!(
            log.applying() <= log.durable() || self.config.apply_before_durable,
            "I1 applying <= durable"
        );
        assert!(log.durable() <= log.staged(), "I1 durable <= staged");
        assert!(log.staged() <= log.last(), "I1 staged <= last");
    }

    /// I2 and I4.
    fn check_runs(&self) {
        let (log, mut term) = (&self.log, self.log.before_first().term);
        // See `Recovered::find_damage`.
        let begins_late = self.config.plain && log.runs().is_empty();
        let mut start = log.before_first().index;
        for (at, run) in log.runs().iter().enumerate() {
            assert!(at > 0 || run.start == log.first(), "I2 the first run starts the log");
            assert!(
                start < run.start && run.start <= log.last(),
                "I2 runs ascend and hold entries"
            );
            assert!(if at == 0 { term <= run.term } else { term < run.term }, "I2 terms ascend");
            (start, term) = (run.start, run.term);
        }
        let empty = log.last() == log.before_first().index;
        assert_eq!(empty, log.runs().is_empty(), "I2 entries have runs");
        assert!(term <= self.term || begins_late, "I4 no entry is from the future");
        assert!(self.staged.0 <= self.term, "I4 terms do not go back");
        let kept = self.staged.1 == ReplicaId::NONE || self.staged.1 == self.vote;
        assert!(self.staged.0 < self.term || kept, "I4 a vote given is not taken back");
    }

    /// I3.
    fn check_writes(&self) {
        let (mut seq, mut vouches) = (None, Index(0));
        for write in self.log.writes() {
            assert!(seq < Some(write.seq) && vouches <= write.vouches, "I3 writes ascend");
            assert!(write.seq < self.log.next_seq(), "I3 writes have been named");
            (seq, vouches) = (Some(write.seq), write.vouches);
        }
        let covered = vouches.max(self.log.durable());
        assert_eq!(covered, self.log.staged(), "I3 writes cover what was handed out");
    }

    /// I5 and I7.
    fn check_role(&self) {
        match &self.role {
            Role::Follower { leader, .. } => {
                assert_ne!(*leader, self.config.id, "I5 nobody follows itself");
            }
            Role::PreCandidate(_) => assert!(self.is_promotable(), "I7 learners do not stand"),
            Role::Candidate(_) => {
                assert_eq!(self.vote, self.config.id, "I7 a candidate votes for itself");
            }
            Role::Leader(leader) => {
                assert_eq!(self.vote, self.config.id, "I5 a leader voted for itself");
                assert_eq!(self.staged, (self.term, self.vote), "I5 and wrote it down");
                let opened = self.log.term_at(leader.term_start);
                assert!(
                    opened == Some(self.term) || leader.term_start < self.log.first(),
                    "I5 a leader's term opens with its own entry"
                );
                self.check_peers(leader);
                self.check_reads(leader);
            }
        }
    }

    /// I6.
    fn check_peers(&self, leader: &Leader) {
        for peer in &leader.peers {
            assert!(peer.matched < peer.next, "I6 matched < next");
            assert!(peer.next <= self.log.last().next(), "I6 next <= last + 1");
            if peer.id == self.config.id {
                assert!(peer.matched <= self.log.durable(), "I5 a leader counts what is durable");
                continue;
            }
            let (mut before, mut bytes) = (peer.matched, 0);
            for &(last, b) in peer.inflights.iter() {
                assert!(before < last && last < peer.next, "I6 inflights lie between the two");
                (before, bytes) = (last, bytes + b);
            }
            assert_eq!(bytes, peer.inflights.bytes(), "I6 no bytes leak");
            let empty = peer.inflights.messages() == 0;
            assert!(empty || peer.state == ProgressState::Replicate, "I6 only pipelines are long");
        }
        let sum: u64 = leader.uncommitted.iter().map(|&(_, bytes)| bytes).sum();
        assert_eq!(sum, leader.uncommitted.bytes(), "I6 the uncommitted sum up");
    }

    /// I8.
    fn check_reads(&self, leader: &Leader) {
        let Some(reads) = &leader.reads else { return };
        let (mut seq, mut index, mut count) = (0, Index(0), 0);
        for batch in &reads.pending {
            assert!(seq < batch.seq && batch.seq <= self.read_seq, "I8 batches ascend");
            assert!(index <= batch.index && batch.index <= self.log.commit(), "I8 of the past");
            assert!(batch.index >= leader.term_start, "I8 after the first commit in term");
            (seq, index, count) = (batch.seq, batch.index, count + batch.count);
        }
        count += reads.open.map_or(0, |(_, count)| count);
        assert_eq!(count, reads.count, "I8 reads are counted");
    }

    /// I9.
    fn check_promises(&self) {
        let mut before = self.log.writes().first().map_or(self.log.next_seq(), |write| write.seq);
        for promise in self.promises.iter() {
            assert!(before <= promise.seq, "I9 promises ascend and wait for what is in flight");
            before = promise.seq;
        }
        let unwritten = self.has_unwritten();
        assert!(before < self.log.next_seq() || unwritten || self.promises.is_empty(), "I9");
    }
}
