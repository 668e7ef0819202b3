//! A replica that has lost part of its log, and knows it.

use crate::id::{EntryId, Index, ReplicaId, Term, Tick};
use crate::raft::*;

use super::harness::{Cache, entry, message, test_config};

/// Replica 2 of three, with `kept` entries of term 1 applied and the rest gone.
fn forgetful(kept: u64, promises_known: bool, last: Option<EntryId>) -> Raft {
    let runs = match kept {
        0 => Vec::new(),
        _ => vec![TermRun { start: Index(1), term: Term(1) }],
    };
    let recovered = Recovered {
        hard_state: HardState { term: Term(3), vote: ReplicaId::NONE, commit: Index(kept) },
        membership: Membership::of_voters((1..=3).map(ReplicaId)),
        runs,
        last: Index(kept),
        applied: Index(kept),
        forgotten: Some(Forgotten { promises_known, last }),
        ..Recovered::default()
    };
    Raft::new(Config { id: ReplicaId(2), ..test_config(7) }, recovered, Tick(0))
}

fn ready(raft: &mut Raft, now: u64) -> Effects {
    let mut fx = Effects::default();
    raft.ready(Tick(now), &Cache { missing_below: Index(0) }, &mut fx);
    fx
}

/// What it answers to a message; its disk is quick.
fn answers(raft: &mut Raft, message: &Message, now: u64) -> Vec<Message> {
    raft.step(message, Tick(now));
    let mut fx = ready(raft, now);
    let mut sent = std::mem::take(&mut fx.send);
    if let Some(persist) = fx.persist {
        raft.on_durable(persist.seq, Tick(now));
        sent.append(&mut ready(raft, now).send);
    }
    sent
}

/// Whether it votes, in term 9, for a candidate whose log ends so.
fn votes_for(raft: &Raft, last: EntryId) -> bool {
    let mut raft = raft.clone();
    let mut request = message(MessageKind::Vote, 3, 2, 9);
    request.entry = last;
    let answers = answers(&mut raft, &request, 5_000);
    answers.iter().any(|it| it.kind == MessageKind::VoteResponse && !it.reject)
}

fn question(raft: &mut Raft, now: u64) -> Message {
    raft.tick(Tick(now));
    let sent = ready(raft, now).send;
    *sent.iter().find(|it| it.kind == MessageKind::Recall).expect("it asks")
}

fn answer(question: &Message, from: u64, term: u64, last: Option<EntryId>) -> Message {
    let mut answer = message(MessageKind::RecallResponse, from, 2, term);
    (answer.context, answer.reject) = (question.context, last.is_none());
    answer.entry = last.unwrap_or_default();
    answer
}

/// Seed 60000301 of the simulator: entry 3/42 was committed by the leader and this replica.
#[test]
fn it_elects_nobody_whose_log_may_lack_what_it_had() {
    let known = forgetful(29, true, Some(entry(3, 42)));
    assert!(!votes_for(&known, entry(2, 60)), "3/42 may be committed");
    assert!(!votes_for(&known, entry(3, 41)));
    assert!(votes_for(&known, entry(3, 42)), "what was in front of it is in that log, too");
    assert!(votes_for(&known, entry(4, 30)), "a later leader had all that was committed");
    for unknown in [forgetful(29, true, None), forgetful(29, false, Some(entry(3, 42)))] {
        assert!(!votes_for(&unknown, entry(8, 1_000)));
    }
}

#[test]
fn it_never_stands_for_election() {
    let mut raft = forgetful(29, true, Some(entry(1, 30)));
    for now in (0..10_000).step_by(50) {
        raft.tick(Tick(now));
        let sent = ready(&mut raft, now).send;
        assert!(sent.iter().all(|it| it.kind == MessageKind::Recall), "{sent:?}");
    }
    answers(&mut raft, &message(MessageKind::TimeoutNow, 1, 2, 3), 10_000);
    assert_eq!(raft.status().role, RoleKind::Follower);
    assert_eq!(raft.rare.as_ref().and_then(|rare| rare.called), None, "nor later, for that");
}

#[test]
fn without_its_promises_it_heeds_no_leader_until_every_other_voter_has_told_its_term() {
    let mut raft = forgetful(29, false, None);
    let asked = question(&mut raft, 0);
    assert!(asked.reject, "it does not know its promises");
    let mut append = message(MessageKind::Append, 1, 2, 3);
    (append.entry, append.run_term, append.count) = (entry(1, 29), Term(3), 1);
    for message in [append, message(MessageKind::Heartbeat, 1, 2, 3)] {
        let sent = answers(&mut raft, &message, 10);
        assert!(sent.iter().all(|it| it.kind == MessageKind::Recall), "{sent:?}");
    }
    // The leader of term 3 answers. The other may be the one it voted for in term 5.
    answers(&mut raft, &answer(&asked, 1, 3, Some(entry(3, 30))), 20);
    assert!(!raft.forgotten().expect("it is not whole").promises_known);
    // An answer to somebody else's question is none.
    let mut stale = answer(&asked, 3, 3, None);
    stale.context ^= 1;
    answers(&mut raft, &stale, 25);
    assert!(!raft.forgotten().expect("it is not whole").promises_known);
    answers(&mut raft, &answer(&asked, 3, 5, None), 30);
    let known = raft.forgotten().expect("its entries are still missing");
    assert!(known.promises_known);
    assert_eq!(raft.status().term, Term(5), "what it may have promised is kept");
    let sent = answers(&mut raft, &append, 40);
    assert!(sent.iter().all(|it| it.entry.index == Index(0)), "term 3 is over: {sent:?}");
    assert_eq!(raft.status().last.index, Index(29));
}

#[test]
fn a_leader_speaks_for_voters_that_were_removed() {
    let mut raft = forgetful(29, false, None);
    let asked = question(&mut raft, 0);
    let mut for_the_removed = answer(&asked, 1, 4, Some(entry(4, 30)));
    for_the_removed.hint = Index(3);
    answers(&mut raft, &for_the_removed, 10);
    assert!(!raft.forgotten().expect("it is not whole").promises_known, "only of replica 3");
    answers(&mut raft, &answer(&asked, 1, 4, Some(entry(4, 30))), 20);
    assert!(raft.forgotten().expect("its entries are missing").promises_known);
}

#[test]
fn it_is_whole_when_its_log_agrees_with_its_leaders_to_the_end_and_is_durable() {
    let mut raft = forgetful(29, true, Some(entry(3, 31)));
    let asked = question(&mut raft, 0);
    assert_eq!((asked.reject, asked.entry.index), (false, Index(29)));
    // The leader has not heard of the loss: it goes by what was acknowledged before.
    let mut heartbeat = message(MessageKind::Heartbeat, 1, 2, 3);
    heartbeat.commit = Index(31);
    answers(&mut raft, &heartbeat, 10);
    assert_eq!((raft.status().commit, raft.status().failure), (Index(29), None));
    answers(&mut raft, &answer(&asked, 1, 3, Some(entry(3, 31))), 20);
    assert!(raft.forgotten().is_some());
    let mut append = message(MessageKind::Append, 1, 2, 3);
    (append.entry, append.run_term, append.count) = (entry(1, 29), Term(3), 1);
    answers(&mut raft, &append, 30);
    assert!(raft.forgotten().is_some(), "31 is still missing");
    append.entry = entry(3, 30);
    raft.step(&append, Tick(40));
    let persist = ready(&mut raft, 40).persist.expect("an entry to write");
    assert!(raft.forgotten().is_some(), "31 is not durable");
    raft.on_durable(persist.seq, Tick(50));
    assert_eq!(raft.forgotten(), None);
    assert_eq!(ready(&mut raft, 50).recalled, [Recalled::Everything]);
}

#[test]
fn a_new_leader_is_asked_anew() {
    let mut raft = forgetful(29, true, Some(entry(3, 31)));
    let asked = question(&mut raft, 0);
    let mut append = message(MessageKind::Append, 1, 2, 3);
    append.entry = entry(1, 29);
    answers(&mut raft, &append, 10);
    // Term 4 begins before the answer of term 3's leader comes, or after.
    answers(&mut raft, &answer(&asked, 1, 3, Some(entry(3, 30))), 20);
    append = message(MessageKind::Append, 3, 2, 4);
    append.entry = entry(1, 29);
    answers(&mut raft, &append, 30);
    assert!(raft.forgotten().is_some(), "that leader's log ends elsewhere");
    answers(&mut raft, &answer(&asked, 3, 4, Some(entry(1, 29))), 40);
    assert_eq!(raft.forgotten(), None);
}

#[test]
fn a_leader_takes_its_word_for_what_it_has_lost() {
    let mut cluster = super::harness::Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 5).expect("1 leads");
    cluster.settle();
    let term = cluster.status(1).term.0;
    let matched = |cluster: &super::harness::Cluster| {
        let status = cluster.status(1);
        let found = status.progress().find(|peer| peer.id == ReplicaId(2));
        found.expect("a member").matched
    };
    assert_eq!(matched(&cluster), Index(6));
    let mut lost = message(MessageKind::Recall, 2, 1, term);
    lost.entry.index = Index(2);
    cluster.inject(lost);
    assert_eq!(matched(&cluster), Index(2));
    cluster.turn(1);
    let told = cluster.sent(MessageKind::RecallResponse, 2);
    assert_eq!((told[0].reject, told[0].entry), (false, cluster.status(1).last));
    assert!(!cluster.sent(MessageKind::Append, 2).is_empty(), "and it is sent what it lacks");
}

#[test]
fn who_asks_is_answered_by_whoever_knows_its_own_promises() {
    let mut asked = message(MessageKind::Recall, 3, 2, 5);
    (asked.context, asked.entry.index) = (77, Index(9));
    let mut ignorant = forgetful(29, false, None);
    assert_eq!(answers(&mut ignorant, &asked, 10), []);
    assert_eq!(ignorant.status().term, Term(5), "it has heard of the term all the same");
    let mut knowing = forgetful(29, true, Some(entry(3, 31)));
    let [answer] = answers(&mut knowing, &asked, 10)[..] else { panic!("one answer") };
    let said = (answer.kind, answer.to, answer.term, answer.context);
    assert_eq!(said, (MessageKind::RecallResponse, ReplicaId(3), Term(5), 77));
    assert!(answer.reject && answer.entry == EntryId::default(), "it does not lead");
    // A leader that was asked by somebody who does not know its promises does not send it entries for that.
    let mut cluster = super::harness::Cluster::new(3);
    cluster.elect(1);
    let mut lost = message(MessageKind::Recall, 2, 1, 1);
    lost.reject = true;
    cluster.inject(lost);
    let status = cluster.status(1);
    assert!(status.progress().all(|peer| peer.matched == Index(1)));
}

#[test]
fn a_leader_it_may_not_heed_is_asked_when_it_is_time_or_nobody_knows_it() {
    let mut raft = forgetful(29, false, None);
    question(&mut raft, 0);
    let asked = |raft: &mut Raft, from, now| {
        let sent = answers(raft, &message(MessageKind::Heartbeat, from, 2, 3), now);
        sent.iter().map(|it| (it.kind, it.to.0)).collect::<Vec<_>>()
    };
    assert_eq!(asked(&mut raft, 1, 49), [], "it was asked a moment ago");
    assert_eq!(asked(&mut raft, 1, 50), [(MessageKind::Recall, 1)]);
    assert_eq!(asked(&mut raft, 9, 49), [(MessageKind::Recall, 9)], "the group may have changed");
    assert_eq!(raft.status().leader, ReplicaId::NONE);
}

/// What it asks when `now` has come, of any one.
fn is_lonely(raft: &mut Raft, now: u64) -> bool {
    question(raft, now).hint > Index(0)
}

#[test]
fn whoever_has_heard_no_leader_for_long_says_so() {
    let election = test_config(7).election_ticks;
    let mut raft = forgetful(29, true, Some(entry(3, 42)));
    assert!(!is_lonely(&mut raft, 0));
    assert!(!is_lonely(&mut raft, 3 * election - 1));
    assert!(is_lonely(&mut raft, 3 * election + election / 2));
    answers(&mut raft, &message(MessageKind::Heartbeat, 1, 2, 3), 4 * election);
    assert!(!is_lonely(&mut raft, 5 * election));
    // One whose term is over leads nobody.
    answers(&mut raft, &message(MessageKind::Heartbeat, 1, 2, 2), 7 * election);
    assert!(is_lonely(&mut raft, 8 * election));
}

#[test]
fn a_member_that_does_not_lead_gives_what_it_has_applied_if_that_is_more() {
    let offer = |kept: u64, has: u64, is_lonely: bool| {
        let mut raft = forgetful(kept, true, None);
        let mut asked = message(MessageKind::Recall, 3, 2, 3);
        (asked.entry.index, asked.hint) = (Index(has), Index(u64::from(is_lonely)));
        let sent = answers(&mut raft, &asked, 10);
        let offers: Vec<_> =
            sent.iter().filter(|it| it.kind == MessageKind::Snapshot).copied().collect();
        offers.first().map(|it| (it.to, it.term, it.entry))
    };
    assert_eq!(offer(29, 28, true), Some((ReplicaId(3), Term(0), entry(1, 29))));
    assert_eq!(offer(29, 29, true), None);
    assert_eq!(offer(29, 28, false), None, "a leader may come");
    assert_eq!(offer(0, 0, true), None);
}

#[test]
fn a_member_without_its_promises_gives_what_it_has_applied_all_the_same() {
    let mut raft = forgetful(29, false, None);
    let mut asked = message(MessageKind::Recall, 3, 2, 3);
    (asked.entry.index, asked.hint) = (Index(5), Index(1));
    let sent = answers(&mut raft, &asked, 10);
    assert!(sent.iter().any(|it| it.kind == MessageKind::Snapshot), "what is committed is so");
    assert!(sent.iter().all(|it| it.kind != MessageKind::RecallResponse), "its term is not known");
}

/// It has the state up to 3/35, and behind that its own log up to `last`.
fn rejoined(raft: &mut Raft, last: u64) -> Restored {
    let runs = match last {
        35 => Vec::new(),
        _ => vec![TermRun { start: Index(36), term: Term(3) }],
    };
    let behind = Behind { runs, last: Index(last), commit: Index(37) };
    let membership = Membership::of_voters((1..=3).map(ReplicaId));
    raft.rejoin(entry(3, 35), membership, behind, Tick(50))
}

#[test]
fn it_is_whole_when_the_last_entry_it_ever_had_is_back() {
    let mut raft = forgetful(29, true, Some(entry(3, 42)));
    assert_eq!(rejoined(&mut raft, 42), Restored::Yes);
    let status = raft.status();
    assert_eq!((status.first, status.last), (Index(36), entry(3, 42)));
    assert_eq!((status.commit, status.durable), (Index(37), Index(42)));
    assert_eq!(raft.forgotten(), None);
    let recalled = ready(&mut raft, 60).recalled;
    assert_eq!(recalled, [Recalled::Everything], "it is to be recorded");
    assert!(votes_for(&raft, entry(3, 42)));
    assert!(!votes_for(&raft, entry(3, 41)));
}

#[test]
fn it_is_not_whole_without_the_last_entry_it_ever_had() {
    for (last, is_whole) in [(40, false), (42, true), (43, true)] {
        let mut raft = forgetful(29, true, Some(entry(3, 42)));
        rejoined(&mut raft, last);
        assert_eq!(raft.forgotten().is_none(), is_whole, "{last}");
    }
    for what in [(true, None), (false, Some(entry(3, 36)))] {
        let mut raft = forgetful(29, what.0, what.1);
        rejoined(&mut raft, 42);
        assert!(raft.forgotten().is_some(), "{what:?}");
    }
    // What lies in front of what is committed was replaced, if it is not there.
    let mut raft = forgetful(29, true, Some(entry(2, 37)));
    rejoined(&mut raft, 42);
    assert_eq!(raft.forgotten(), None);
}

/// A log of term 3 with so many entries, of which five are applied.
fn five_applied_of(last: u64) -> Recovered {
    Recovered {
        hard_state: HardState { term: Term(3), vote: ReplicaId::NONE, commit: Index(5) },
        membership: Membership::of_voters((1..=3).map(ReplicaId)),
        runs: vec![TermRun { start: Index(1), term: Term(3) }],
        last: Index(last),
        applied: Index(5),
        ..Recovered::default()
    }
}

#[test]
fn it_is_whole_though_the_power_fails_before_that_is_recorded() {
    let start = |last: u64| {
        let forgotten = Some(Forgotten { promises_known: true, last: Some(entry(3, 42)) });
        let recovered = Recovered { forgotten, ..five_applied_of(last) };
        let mut raft = Raft::new(Config { id: ReplicaId(2), ..test_config(7) }, recovered, Tick(0));
        (raft.forgotten().is_none(), ready(&mut raft, 0).recalled)
    };
    assert_eq!(start(42), (true, vec![Recalled::Everything]));
    assert_eq!(start(41), (false, vec![]));
}

#[test]
fn whoever_is_lonely_does_not_wait_for_a_leader_that_is_gone() {
    let election = test_config(7).election_ticks;
    let mut raft = forgetful(29, true, Some(entry(3, 42)));
    answers(&mut raft, &message(MessageKind::Heartbeat, 1, 2, 3), 10);
    assert_eq!(raft.status().leader, ReplicaId(1));
    assert!(!is_lonely(&mut raft, 2 * election));
    assert_eq!(raft.status().leader, ReplicaId(1));
    assert!(is_lonely(&mut raft, 4 * election));
    assert_eq!((raft.status().leader, raft.status().term), (ReplicaId::NONE, Term(3)));
    assert!(raft.may_rejoin(entry(3, 35)));
}

/// Two know that an entry is committed and lack those in front of it; the third has them, and does not know.
#[test]
fn what_one_knows_to_be_committed_is_told_to_those_who_have_it() {
    let election = test_config(7).election_ticks;
    let mut raft = forgetful(29, true, Some(entry(3, 42)));
    raft.note_committed(entry(2, 33));
    assert_eq!(question(&mut raft, 0).commit, Index(0), "a leader may come");
    let mut asked = question(&mut raft, 4 * election);
    assert_eq!((asked.run_term, asked.commit), (Term(2), Index(33)));
    (asked.from, asked.to, asked.hint) = (ReplicaId(3), ReplicaId(2), Index(1));
    let knows = |term: u64, asked: &Message| {
        let recovered = Recovered {
            hard_state: HardState { term: Term(3), vote: ReplicaId::NONE, commit: Index(29) },
            membership: Membership::of_voters((1..=3).map(ReplicaId)),
            runs: vec![
                TermRun { start: Index(1), term: Term(1) },
                TermRun { start: Index(31), term: Term(term) },
            ],
            last: Index(40),
            applied: Index(29),
            ..Recovered::default()
        };
        let mut raft = Raft::new(Config { id: ReplicaId(2), ..test_config(7) }, recovered, Tick(0));
        answers(&mut raft, asked, 10);
        raft.status().commit
    };
    assert_eq!(knows(2, &asked), Index(33));
    assert_eq!(knows(3, &asked), Index(29), "it has another in that place");
    asked.hint = Index(0);
    assert_eq!(knows(2, &asked), Index(29), "a leader may come");
}

#[test]
fn a_state_is_taken_from_a_member_only_by_one_that_is_lost_and_follows_nobody() {
    let last = entry(3, 35);
    let mut raft = forgetful(29, true, Some(entry(3, 42)));
    assert!(raft.may_rejoin(last));
    assert!(!raft.may_rejoin(entry(1, 29)), "it has as much");
    answers(&mut raft, &message(MessageKind::Heartbeat, 1, 2, 3), 10);
    assert!(!raft.may_rejoin(last), "its leader sends what is missing");
    assert_eq!(rejoined(&mut raft, 42), Restored::No);
    let whole = Recovered {
        membership: Membership::of_voters((1..=3).map(ReplicaId)),
        ..Recovered::default()
    };
    let whole = Raft::new(Config { id: ReplicaId(2), ..test_config(7) }, whole, Tick(0));
    assert!(!whole.may_rejoin(last), "only its leader may replace what it has");
    // The state is of a higher term than it knew.
    let mut raft = forgetful(29, true, Some(entry(3, 42)));
    raft.heed_term_of(entry(5, 35), Tick(0));
    assert_eq!(raft.status().term, Term(5));
}

/// An append of the leader of term 3 behind entry 1/29.
fn behind_29(count: u32) -> Message {
    let mut append = message(MessageKind::Append, 1, 2, 3);
    (append.entry, append.run_term, append.count) = (entry(1, 29), Term(3), count);
    append
}

#[test]
fn it_asks_every_other_member() {
    let mut raft = forgetful(29, true, Some(entry(3, 31)));
    raft.tick(Tick(0));
    let asked = ready(&mut raft, 0).send;
    assert_eq!(asked.iter().map(|it| it.to.0).collect::<Vec<_>>(), [1, 3]);
}

/// Seed 200646 of the simulator: the leader had joined with a change that this replica has lost. Nobody else could make
/// it begin anew, and it went on from what it counted before.
#[test]
fn it_asks_its_leader_though_it_does_not_know_it_as_a_member() {
    let mut raft = forgetful(29, true, Some(entry(3, 31)));
    question(&mut raft, 0);
    answers(&mut raft, &message(MessageKind::Heartbeat, 9, 2, 3), 10);
    let again = test_config(7).election_ticks / 2;
    raft.tick(Tick(again));
    let asked = ready(&mut raft, again).send;
    assert_eq!(asked.iter().map(|it| it.to.0).collect::<Vec<_>>(), [1, 3, 9]);
}

#[test]
fn it_has_no_vote_to_give_in_the_term_it_comes_back_in() {
    let mut raft = forgetful(29, false, Some(entry(3, 42)));
    let asked = question(&mut raft, 0);
    for from in [1, 3] {
        answers(&mut raft, &answer(&asked, from, 3, None), 10);
    }
    assert!(raft.forgotten().expect("its entries are missing").promises_known);
    let votes = |term: u64| {
        let mut raft = raft.clone();
        let mut request = message(MessageKind::Vote, 3, 2, term);
        request.entry = entry(3, 50);
        let said = answers(&mut raft, &request, 5_000);
        said.iter().any(|it| it.kind == MessageKind::VoteResponse && !it.reject)
    };
    assert!(!votes(3), "it may have voted for another");
    assert!(votes(4));
}

#[test]
fn where_its_log_has_to_reach_only_its_leader_says_and_the_first_time_counts() {
    let mut raft = forgetful(29, true, Some(entry(3, 31)));
    let asked = question(&mut raft, 0);
    answers(&mut raft, &behind_29(0), 10);
    answers(&mut raft, &answer(&asked, 3, 3, None), 20);
    assert!(raft.forgotten().is_some(), "3 does not lead");
    for last in [30, 40] {
        answers(&mut raft, &answer(&asked, 1, 3, Some(entry(3, last))), 30);
    }
    assert!(raft.forgotten().is_some());
    answers(&mut raft, &behind_29(1), 40);
    assert_eq!(raft.forgotten(), None, "that leader's log goes on growing");
}

#[test]
fn that_its_log_agreed_with_an_earlier_leaders_makes_it_not_whole() {
    let mut raft = forgetful(29, true, Some(entry(3, 42)));
    let asked = question(&mut raft, 0);
    answers(&mut raft, &behind_29(2), 10);
    answers(&mut raft, &answer(&asked, 3, 4, Some(entry(3, 30))), 20);
    assert!(raft.forgotten().is_some(), "it has not heard where it agrees with 3");
    let mut append = message(MessageKind::Append, 3, 2, 4);
    append.entry = entry(3, 30);
    answers(&mut raft, &append, 30);
    assert_eq!(raft.forgotten(), None);
}

#[test]
fn a_leaders_word_about_the_commit_index_is_taken_as_far_as_the_logs_agree() {
    let commit = |from: u64, term: u64, commit: u64| {
        let mut raft = forgetful(29, true, Some(entry(3, 31)));
        answers(&mut raft, &behind_29(1), 10);
        let mut heartbeat = message(MessageKind::Heartbeat, from, 2, term);
        heartbeat.commit = Index(commit);
        answers(&mut raft, &heartbeat, 20);
        assert_eq!(raft.status().failure, None);
        raft.status().commit
    };
    assert_eq!(commit(1, 3, 31), Index(30));
    assert_eq!(commit(3, 4, 30), Index(29), "it may hold another entry 30");
}

#[test]
fn the_last_entry_it_ever_had_counts_when_it_is_durable() {
    let mut raft = forgetful(29, true, Some(entry(3, 42)));
    rejoined(&mut raft, 40);
    let mut append = message(MessageKind::Append, 1, 2, 3);
    (append.entry, append.run_term, append.count) = (entry(3, 40), Term(3), 2);
    raft.step(&append, Tick(60));
    let persist = ready(&mut raft, 60).persist.expect("entries to write");
    assert!(raft.forgotten().is_some());
    raft.on_durable(persist.seq, Tick(70));
    assert_eq!(raft.forgotten(), None);
}

#[test]
fn while_a_state_is_about_to_be_taken_nothing_else_makes_it_whole() {
    let is_whole = |rejoins: bool| {
        let mut raft = forgetful(29, true, Some(entry(3, 31)));
        let asked = question(&mut raft, 0);
        if rejoins {
            raft.begin_rejoin();
        }
        answers(&mut raft, &behind_29(0), 10);
        answers(&mut raft, &answer(&asked, 1, 3, Some(entry(1, 29))), 20);
        raft.forgotten().is_none()
    };
    assert_eq!((is_whole(false), is_whole(true)), (true, false));
}

#[test]
fn a_state_is_taken_by_a_member_that_knows_its_term() {
    let behind = Behind { runs: Vec::new(), last: Index(35), commit: Index(35) };
    let took = |term: u64, members: &[u64]| {
        let mut raft = forgetful(29, true, Some(entry(3, 42)));
        let membership = Membership::of_voters(members.iter().copied().map(ReplicaId));
        raft.rejoin(entry(term, 35), membership, behind.clone(), Tick(50))
    };
    assert_eq!(took(3, &[1, 2, 3]), Restored::Yes);
    assert_eq!(took(4, &[1, 2, 3]), Restored::No, "its own term is 3");
    assert_eq!(took(3, &[1, 3]), Restored::No, "it has left");
    // A term that it knows is nothing new: it goes on following its leader.
    let mut raft = forgetful(29, true, Some(entry(3, 42)));
    answers(&mut raft, &message(MessageKind::Heartbeat, 1, 2, 3), 10);
    raft.heed_term_of(entry(3, 35), Tick(20));
    assert_eq!(raft.status().leader, ReplicaId(1));
}

/// An island begins in the middle of a term, right behind where the log of the one that is asked ends.
#[test]
fn what_lies_in_front_of_what_is_committed_in_its_term_is_committed() {
    for (term, is_known) in [(3, true), (2, false), (4, false)] {
        let config = Config { id: ReplicaId(2), ..test_config(7) };
        let mut raft = Raft::new(config, five_applied_of(9), Tick(0));
        let mut asked = message(MessageKind::Recall, 3, 2, 3);
        (asked.entry.index, asked.hint) = (Index(5), Index(1));
        (asked.run_term, asked.commit) = (Term(term), Index(10));
        answers(&mut raft, &asked, 10);
        assert_eq!(raft.status().commit, Index(if is_known { 9 } else { 5 }), "{term}/10");
    }
}

/// Everything it ever had is here, by a leader that is gone before it said where its own log ends.
#[test]
fn it_is_whole_when_a_leader_gave_all_back_and_died() {
    let mut raft = forgetful(5, true, Some(entry(1, 9)));
    let mut append = message(MessageKind::Append, 1, 2, 3);
    (append.entry, append.run_term, append.count) = (entry(1, 5), Term(1), 4);
    answers(&mut raft, &append, 10);
    assert_eq!((raft.status().last, raft.status().durable), (entry(1, 9), Index(9)));
    for now in (100..100_000).step_by(100) {
        raft.tick(Tick(now));
        ready(&mut raft, now);
    }
    assert_eq!(raft.forgotten(), None);
}

#[test]
fn what_waits_for_a_write_in_flight_waits_for_it_though_a_snapshot_comes() {
    let config = Config { id: ReplicaId(2), ..test_config(7) };
    let mut raft = Raft::new(config, five_applied_of(5), Tick(0));
    let mut request = message(MessageKind::Vote, 3, 2, 9);
    request.entry = entry(3, 5);
    raft.step(&request, Tick(5_000));
    let fx = ready(&mut raft, 5_000);
    assert!(fx.persist.is_some() && fx.send.is_empty());
    let mut append = message(MessageKind::Append, 3, 2, 9);
    (append.entry, append.run_term, append.count) = (entry(3, 5), Term(9), 1);
    raft.step(&append, Tick(5_001));
    raft.step(&request, Tick(5_002));
    let mut snapshot = message(MessageKind::Snapshot, 3, 2, 9);
    snapshot.entry = entry(9, 20);
    let membership = Membership::of_voters((1..=3).map(ReplicaId));
    assert_eq!(raft.restore(&snapshot, membership, Tick(5_003)), Restored::Yes);
    let sent = ready(&mut raft, 5_003).send;
    assert!(sent.iter().all(|it| it.kind != MessageKind::VoteResponse), "{sent:?}");
}

/// A voter that is whole in term 4, whose log ends with 4/13, of which 10 are applied and known to be committed; seed
/// 2007115 of the simulator.
fn ends_with_4_13(voters: u64, configs: &[u64]) -> Raft {
    let recovered = Recovered {
        hard_state: HardState { term: Term(4), vote: ReplicaId::NONE, commit: Index(10) },
        membership: Membership::of_voters((1..=voters).map(ReplicaId)),
        runs: vec![
            TermRun { start: Index(1), term: Term(2) },
            TermRun { start: Index(11), term: Term(4) },
        ],
        last: Index(13),
        applied: Index(10),
        ..Recovered::default()
    };
    let config = Config { id: ReplicaId(2), ..test_config(7) };
    let mut raft = Raft::new(config, recovered, Tick(0));
    configs.iter().for_each(|&index| raft.note_config(Index(index)));
    raft
}

/// Its commit index after those have said, in a term, how far their logs had reached in it (nothing: zero).
fn after_claims(raft: &mut Raft, claims: &[(u64, u64, u64)]) -> Index {
    for &(from, term, last) in claims {
        let mut asked = message(MessageKind::Recall, from, 2, term);
        (asked.entry.index, asked.hint) = (Index(10), Index(last + 1));
        answers(raft, &asked, 10);
    }
    raft.status().commit
}

#[test]
fn what_a_quorum_had_in_its_term_is_committed_though_nobody_is_left_who_knows() {
    let commit = |claims: &[_]| after_claims(&mut ends_with_4_13(3, &[]), claims).0;
    assert_eq!(commit(&[(1, 4, 14), (3, 4, 14)]), 13, "14 is not here");
    assert_eq!(commit(&[(1, 4, 14), (3, 4, 0)]), 13, "it has this one itself");
    assert_eq!(commit(&[(1, 4, 12), (3, 4, 11)]), 12);
    assert_eq!(commit(&[(1, 4, 0), (3, 4, 0)]), 10, "their last entries were of earlier terms");
    assert_eq!(commit(&[(1, 3, 14), (3, 3, 14)]), 10, "that term is over");
    assert_eq!(commit(&[(1, 5, 14), (3, 5, 14)]), 10, "5/14 is not this log's");
    // The latest of each counts, and of voters only; what was said of another term is forgotten.
    let mut raft = ends_with_4_13(3, &[]);
    assert_eq!(after_claims(&mut raft, &[(1, 4, 14), (1, 4, 0), (3, 4, 12)]), Index(12));
    let mut five = ends_with_4_13(5, &[]);
    let claims = [(1, 4, 14), (3, 4, 14), (6, 4, 14), (4, 4, 12)];
    assert_eq!(after_claims(&mut five, &claims), Index(10), "5 has not spoken");
    assert_eq!(after_claims(&mut five, &[(5, 4, 0)]), Index(13));
    let mut later = ends_with_4_13(3, &[]);
    after_claims(&mut later, &[(1, 4, 14), (3, 5, 14)]);
    assert_eq!(later.status().commit, Index(10));
}

/// Two have lost what lies in front of what they know, and the third, which is whole, has that and nothing behind it (seed
/// 6045087). It asks nobody, so it speaks when it is asked.
#[test]
fn who_is_whole_says_when_asked_how_far_its_log_reached() {
    let says = |raft: &mut Raft, term| {
        let mut asked = message(MessageKind::Recall, 3, 2, term);
        asked.entry.index = Index(10);
        let answers = answers(raft, &asked, 10);
        answers.iter().find(|it| it.kind == MessageKind::RecallResponse).expect("it answers").commit
    };
    assert_eq!(says(&mut ends_with_4_13(3, &[]), 4), Index(14));
    assert_eq!(says(&mut ends_with_4_13(3, &[]), 5), Index(1), "its last entry is of another term");
    // A candidate may yet lead in its term, and a leader does.
    let mut raft = ends_with_4_13(3, &[]);
    raft.campaign(Tick(10));
    ready(&mut raft, 10);
    for role in [RoleKind::PreCandidate, RoleKind::Candidate, RoleKind::Leader] {
        let status = raft.status();
        assert_eq!(status.role, role);
        let expected = if role == RoleKind::PreCandidate { 14 } else { 0 };
        let term = status.term.0;
        assert_eq!(says(&mut raft, term), Index(expected), "{role:?}");
        let kind = match role {
            RoleKind::PreCandidate => MessageKind::PreVoteResponse,
            _ => MessageKind::VoteResponse,
        };
        answers(&mut raft, &message(kind, 1, 2, 5), 20);
    }
}

#[test]
fn what_is_committed_behind_the_end_of_the_log_is_told() {
    let mut raft = forgetful(29, true, Some(entry(3, 42)));
    let asked = question(&mut raft, 0);
    let mut claim = message(MessageKind::Recall, 3, 2, 3);
    (claim.entry.index, claim.hint) = (Index(29), Index(43));
    let mut told = |message: &Message| {
        raft.step(message, Tick(10));
        ready(&mut raft, 10).recalled
    };
    assert_eq!(told(&claim), [], "1 may lead");
    let mut speaks = answer(&asked, 1, 3, None);
    assert_eq!(told(&speaks), [], "it says nothing of itself");
    speaks.commit = Index(1);
    assert_eq!(told(&speaks), [Recalled::Committed(entry(3, 42))]);
    assert_eq!(told(&speaks), [], "once");
}

/// With its own last entry it speaks for a quorum only once that is durable.
#[test]
fn a_claim_is_of_what_is_durable() {
    let mut raft = ends_with_4_13(3, &[]);
    let mut append = message(MessageKind::Append, 1, 2, 4);
    (append.entry, append.run_term, append.count) = (entry(4, 13), Term(4), 1);
    raft.step(&append, Tick(0));
    let mut fx = ready(&mut raft, 0);
    let mut asked = message(MessageKind::Recall, 3, 2, 4);
    (asked.entry.index, asked.hint) = (Index(10), Index(15));
    let from_1 = Message { from: ReplicaId(1), hint: Index(1), ..asked };
    raft.step(&from_1, Tick(10));
    raft.step(&asked, Tick(10));
    assert_eq!(raft.status().commit, Index(10));
    raft.on_durable(fx.persist.take().expect("an entry").seq, Tick(20));
    raft.step(&asked, Tick(30));
    assert_eq!(raft.status().commit, Index(14));
}

/// The leader of the term may live, and not know yet what a quorum has: a read there would be of less than one here.
#[test]
fn nothing_is_made_of_claims_while_a_voter_may_lead() {
    let mut raft = ends_with_4_13(5, &[]);
    assert_eq!(after_claims(&mut raft, &[(1, 4, 14), (3, 4, 14), (4, 4, 14)]), Index(10));
    answers(&mut raft, &message(MessageKind::Heartbeat, 5, 2, 4), 20);
    assert_eq!(after_claims(&mut raft, &[(1, 4, 14), (3, 4, 14), (4, 4, 14)]), Index(10));
    // It is one of those who have lost something: it leads no more.
    assert_eq!(after_claims(&mut raft, &[(5, 4, 0)]), Index(13));
}

/// The leader may have counted with the voters that the change brings.
#[test]
fn nothing_is_learned_while_a_change_of_membership_is_under_way() {
    let claims = [(1, 4, 14), (3, 4, 14)];
    assert_eq!(after_claims(&mut ends_with_4_13(3, &[12]), &claims), Index(10));
    assert_eq!(after_claims(&mut ends_with_4_13(3, &[]), &claims), Index(13));
}

#[test]
fn whoever_is_lonely_says_how_far_its_log_reached_in_its_term() {
    let claimed = |promises_known, last| {
        let mut raft = forgetful(29, promises_known, last);
        let election = test_config(7).election_ticks;
        question(&mut raft, 0);
        question(&mut raft, 4 * election).hint
    };
    assert_eq!(claimed(true, Some(entry(3, 42))), Index(43));
    assert_eq!(claimed(true, Some(entry(2, 42))), Index(1), "its term is another");
    assert_eq!(claimed(true, None), Index(1));
    assert_eq!(claimed(false, Some(entry(3, 42))), Index(1), "it does not know its term");
    // A leader hears no claims: it counts what it is told itself.
    let mut raft = forgetful(29, true, Some(entry(3, 42)));
    assert_eq!(question(&mut raft, 0).hint, Index(0));
}
