//! How the transcripts write things down.

use std::fmt::Write as _;

use outrigger::id::ReplicaId;
use outrigger::raft::{Membership, ProgressState, ReplicaProgress, RoleKind};

use super::changes;
use super::message::{
    APPEND_THREAD, APPLY_THREAD, Config, Entry, HardState, Message, Payload, Snapshot,
};

/// What a node wants done, as far as it is shown.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pub(super) must_sync: bool,
    /// Leader and role, if either changed.
    pub(super) soft_state: Option<(u64, RoleKind)>,
    /// If it changed.
    pub(super) hard_state: Option<HardState>,
    pub(super) entries: Vec<Entry>,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) committed: Vec<Entry>,
    pub(super) messages: Vec<Message>,
}

impl Ready {
    pub(super) fn describe(&self) -> String {
        let mut out = String::new();
        if let Some((leader, kind)) = self.soft_state {
            let _ = writeln!(out, "Lead:{leader} State:{}", role(kind));
        }
        if let Some(state) = self.hard_state {
            let _ = writeln!(out, "HardState {}", hard_state(state));
        }
        if !self.entries.is_empty() {
            let _ = write!(out, "Entries:\n{}", entries(&self.entries));
        }
        if let Some(it) = &self.snapshot {
            let _ = writeln!(out, "Snapshot {}", snapshot(it));
        }
        if !self.committed.is_empty() {
            let _ = write!(out, "CommittedEntries:\n{}", entries(&self.committed));
        }
        if !self.messages.is_empty() {
            out += "Messages:\n";
            for it in &self.messages {
                out = out + &message(it) + "\n";
            }
        }
        if out.is_empty() {
            return "<empty Ready>".to_owned();
        }
        format!("Ready MustSync={}:\n{out}", self.must_sync)
    }
}

pub(super) fn role(kind: RoleKind) -> &'static str {
    match kind {
        RoleKind::Follower => "StateFollower",
        RoleKind::PreCandidate => "StatePreCandidate",
        RoleKind::Candidate => "StateCandidate",
        RoleKind::Leader => "StateLeader",
    }
}

fn hard_state(state: HardState) -> String {
    let vote = if state.vote == 0 { String::new() } else { format!(" Vote:{}", state.vote) };
    format!("Term:{}{vote} Commit:{}", state.term, state.commit)
}

pub(super) fn snapshot(snapshot: &Snapshot) -> String {
    let set = |ids: &[ReplicaId]| {
        let ids: Vec<_> = ids.iter().map(ReplicaId::to_string).collect();
        format!("[{}]", ids.join(" "))
    };
    let Membership { incoming, outgoing, learners, learners_next, auto_leave } =
        &snapshot.membership;
    format!(
        "Index:{} Term:{} ConfState:Voters:{} VotersOutgoing:{} Learners:{} LearnersNext:{} \
         AutoLeave:{auto_leave}",
        snapshot.index,
        snapshot.term,
        set(incoming),
        set(outgoing),
        set(learners),
        set(learners_next),
    )
}

/// One line each.
pub(super) fn entries(entries: &[Entry]) -> String {
    entries.iter().map(|it| entry(it) + "\n").collect()
}

fn entry(entry: &Entry) -> String {
    let (kind, payload) = match &entry.payload {
        Payload::Normal(data) => ("EntryNormal", format!("{data:?}")),
        Payload::Config(Config { v1: true, changes, .. }) => {
            ("EntryConfChange", changes::describe(changes))
        }
        Payload::Config(config) => ("EntryConfChangeV2", changes::describe(&config.changes)),
    };
    let space = if payload.is_empty() { "" } else { " " };
    format!("{}/{} {kind}{space}{payload}", entry.term, entry.index)
}

/// One line, or several if it holds more than one entry, a snapshot or responses.
pub(super) fn message(message: &Message) -> String {
    indented("", message)
}

fn indented(indent: &str, message: &Message) -> String {
    let mut out = format!(
        "{indent}{}->{} {} Term:{} Log:{}/{}",
        address(message.from),
        address(message.to),
        message.kind.name(),
        message.term,
        message.log_term,
        message.index
    );
    if message.reject {
        let _ = write!(out, " Rejected (Hint: {})", message.hint);
    }
    if message.commit != 0 {
        let _ = write!(out, " Commit:{}", message.commit);
    }
    if message.vote != 0 {
        let _ = write!(out, " Vote:{}", message.vote);
    }
    match &*message.entries {
        [] => {}
        [one] => {
            let _ = write!(out, " Entries:[{}]", entry(one));
        }
        several => {
            out += " Entries:[";
            for one in several {
                let _ = write!(out, "\n{indent}  {}", entry(one));
            }
            let _ = write!(out, "\n{indent}]");
        }
    }
    if let Some(it) = message.snapshot.as_ref().filter(|snapshot| snapshot.index > 0) {
        let _ = write!(out, "\n{indent}  Snapshot: {}", snapshot(it));
    }
    if !message.responses.is_empty() {
        out += " Responses:[";
        for response in &message.responses {
            out = out + "\n" + &indented(&format!("{indent}  "), response);
        }
        let _ = write!(out, "\n{indent}]");
    }
    out
}

fn address(id: u64) -> String {
    match id {
        0 => "None".to_owned(),
        APPEND_THREAD => "AppendThread".to_owned(),
        APPLY_THREAD => "ApplyThread".to_owned(),
        id => format!("{id:x}"),
    }
}

/// One member as its leader sees it.
pub(super) fn progress(progress: &ReplicaProgress, is_learner: bool) -> String {
    let (state, pending) = match progress.state {
        ProgressState::Probe => ("StateProbe", 0),
        ProgressState::Replicate => ("StateReplicate", 0),
        ProgressState::Snapshot { pending } => ("StateSnapshot", pending.0),
    };
    let mut out =
        format!("{}: {state} match={} next={}", progress.id, progress.matched, progress.next);
    if is_learner {
        out += " learner";
    }
    if progress.is_paused {
        out += " paused";
    }
    if pending > 0 {
        let _ = write!(out, " pendingSnap={pending}");
    }
    if !progress.is_active {
        out += " inactive";
    }
    if progress.inflight_messages > 0 {
        let full = if progress.is_full { "[full]" } else { "" };
        let _ = write!(out, " inflight={}{full}", progress.inflight_messages);
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::message::Kind;
    use super::*;
    use outrigger::raft::{Change, ChangeKind, Transition};

    fn normal(term: u64, index: u64, data: &str) -> Entry {
        Entry { term, index, payload: Payload::Normal(data.to_owned()) }
    }

    #[test]
    fn a_message_says_what_it_carries() {
        let mut append = Message::new(Kind::App, 1, 12, 7);
        (append.log_term, append.index, append.commit) = (6, 40, 39);
        assert_eq!(message(&append), "1->c MsgApp Term:7 Log:6/40 Commit:39");
        append.entries.push(normal(7, 41, "a \"b\""));
        let one = r#"1->c MsgApp Term:7 Log:6/40 Commit:39 Entries:[7/41 EntryNormal "a \"b\""]"#;
        assert_eq!(message(&append), one);
        append.entries.push(Entry { index: 42, ..normal(7, 42, "") });
        let two = "1->c MsgApp Term:7 Log:6/40 Commit:39 Entries:[\n  \
                   7/41 EntryNormal \"a \\\"b\\\"\"\n  7/42 EntryNormal \"\"\n]";
        assert_eq!(message(&append), two);
    }

    #[test]
    fn responses_and_snapshots_are_indented() {
        let mut write = Message::new(Kind::StorageAppend, 3, APPEND_THREAD, 2);
        write.vote = 3;
        let membership = Membership::of_voters([ReplicaId(1), ReplicaId(3)]);
        write.snapshot = Some(Snapshot { term: 1, index: 9, membership });
        let mut refusal = Message::new(Kind::AppResp, 3, 1, 2);
        (refusal.reject, refusal.hint) = (true, 8);
        write.responses = vec![refusal, Message::new(Kind::StorageAppendResp, APPEND_THREAD, 3, 2)];
        let expected = "\
3->AppendThread MsgStorageAppend Term:2 Log:0/0 Vote:3
  Snapshot: Index:9 Term:1 ConfState:Voters:[1 3] VotersOutgoing:[] Learners:[] LearnersNext:[] AutoLeave:false Responses:[
  3->1 MsgAppResp Term:2 Log:0/0 Rejected (Hint: 8)
  AppendThread->3 MsgStorageAppendResp Term:2 Log:0/0
]";
        assert_eq!(message(&write), expected);
    }

    #[test]
    fn a_ready_shows_what_changed() {
        assert_eq!(Ready::default().describe(), "<empty Ready>");
        let changes = vec![Change { kind: ChangeKind::Remove, id: ReplicaId(5) }];
        let config = Config { v1: false, transition: Transition::JointExplicit, changes };
        let ready = Ready {
            must_sync: true,
            soft_state: Some((2, RoleKind::Leader)),
            hard_state: Some(HardState { term: 4, vote: 0, commit: 3 }),
            entries: vec![Entry { term: 4, index: 8, payload: Payload::Config(config) }],
            committed: vec![Entry { term: 4, index: 7, payload: Payload::Config(Config::leave()) }],
            ..Ready::default()
        };
        let expected = "\
Ready MustSync=true:
Lead:2 State:StateLeader
HardState Term:4 Commit:3
Entries:
4/8 EntryConfChangeV2 r5
CommittedEntries:
4/7 EntryConfChangeV2
";
        assert_eq!(ready.describe(), expected);
    }
}
