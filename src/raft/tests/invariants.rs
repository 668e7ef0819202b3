//! A state that cannot be is noticed before anything is made of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::harness::{Cluster, message};
use crate::id::{Index, ReplicaId, Term, Tick};
use crate::raft::effects::PersistSeq;
use crate::raft::state::{Leader, Promise, Promised, Role, Votes};
use crate::raft::*;

fn leader(raft: &mut Raft) -> &mut Leader {
    match &mut raft.role {
        Role::Leader(leader) => leader,
        _ => panic!("1 leads"),
    }
}

#[test]
fn every_invariant_that_is_broken_is_named() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 2).expect("1 leads");
    cluster.settle();
    let raft = &cluster.node(1).raft;
    raft.check();
    type Edit = fn(&mut Raft);
    let edits: [(&str, Edit); 11] = [
        ("I4 terms do not go back", |it| it.staged.0 = Term(2)),
        ("I4 a vote given is not taken back", |it| it.vote = ReplicaId(3)),
        ("I4 no entry is from the future", |it| (it.term, it.staged.0) = (Term(0), Term(0))),
        ("I5 nobody follows itself", |it| {
            it.role = Role::Follower { leader: ReplicaId(1), heard: Tick(0) };
        }),
        ("I5 and wrote it down", |it| it.term = Term(2)),
        ("I7 learners do not stand", |it| {
            it.membership = Membership::of_voters([ReplicaId(2)]);
            it.role = Role::PreCandidate(Votes::default());
        }),
        ("I6 matched < next", |it| leader(it).peers[1].next = leader(it).peers[1].matched),
        ("I6 next <= last + 1", |it| leader(it).peers[2].next = Index(5)),
        ("I5 a leader counts what is durable", |it| {
            it.propose(1, 0).expect("1 leads");
            leader(it).peers[0].matched = Index(4);
            leader(it).peers[0].next = Index(5);
        }),
        ("I8 reads are counted", |it| {
            it.read().expect("1 leads");
            leader(it).reads().count = 2;
        }),
        ("I9 promises ascend", |it| {
            let what = Promised::Send(message(MessageKind::VoteResponse, 1, 2, 1));
            it.promises.push(Promise { seq: PersistSeq(0), what });
        }),
    ];
    for (named, edit) in edits {
        let mut raft = raft.clone();
        let told = catch_unwind(AssertUnwindSafe(|| {
            edit(&mut raft);
            raft.check();
        }));
        let told = told.expect_err(named);
        let told = match told.downcast_ref::<String>() {
            Some(told) => told,
            None => *told.downcast_ref::<&str>().expect("a text"),
        };
        assert!(told.contains(named), "{named}: {told}");
    }
}
