//! The payloads of entries that are no plain command: changes of members, and requests of sessions.

use bytes::Bytes;

use outrigger::group::{GroupState, MemberChange, SessionRequest};
use outrigger::id::{Index, NodeId, ReplicaId, SessionId};
use outrigger::raft::{Change, ChangeKind, Transition};

use super::choices::{Choices, below, byte, number, rarely, rest};

/// One input.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match byte(&mut choices) % 4 {
        0 => written(&mut choices),
        1 => applied(&mut choices),
        2 => {
            let mut bytes = chosen(&mut choices).encode().to_vec();
            for _ in 0..=below(&mut choices, 4) {
                let at = below(&mut choices, bytes.len());
                bytes[at] = byte(&mut choices);
            }
            judge(&bytes.into());
        }
        _ => {
            let bytes = Bytes::copy_from_slice(rest(&mut choices));
            judge(&bytes);
            session(&bytes);
        }
    }
}

fn chosen(choices: &mut Choices<'_>) -> MemberChange {
    let mut change = MemberChange {
        expected: rarely(choices, 4).then(|| Index(below(choices, 3) as u64)),
        transition: [
            Transition::Auto,
            Transition::JointImplicit,
            Transition::JointExplicit,
            Transition::Cancel,
        ][below(choices, 4)],
        ..MemberChange::default()
    };
    for _ in 0..below(choices, 4) {
        let kinds =
            [ChangeKind::AddVoter, ChangeKind::AddLearner, ChangeKind::Remove, ChangeKind::Update];
        let (kind, id) = (kinds[below(choices, 4)], ReplicaId(1 + below(choices, 8) as u64));
        let port = number(choices) as u16;
        let address = match byte(choices) % 3 {
            0 => None,
            1 => Some(([127, 0, 0, byte(choices)], port).into()),
            _ => Some(([byte(choices); 16], port).into()),
        };
        change.changes.push((Change { kind, id }, address));
    }
    if rarely(choices, 4) {
        change.base = Some(first(choices));
    }
    change
}

fn first(choices: &mut Choices<'_>) -> GroupState {
    let nodes: Vec<NodeId> = (1..=1 + below(choices, 4) as u64).map(NodeId).collect();
    GroupState::first(&nodes, &[(NodeId(1), ([127, 0, 0, 1], 7101).into())])
}

fn written(choices: &mut Choices<'_>) {
    let change = chosen(choices);
    assert_eq!(MemberChange::decode(&change.encode()), Some(change));
    let (id, seq) = (SessionId(number(choices)), number(choices).max(1));
    for request in
        [SessionRequest::Open(id), SessionRequest::Close(id), SessionRequest::Run { id, seq }]
    {
        let command: &[u8] = match request {
            SessionRequest::Run { .. } => b"command",
            _ => b"",
        };
        let parsed = SessionRequest::parse(&request.payload(command));
        assert_eq!(parsed, Some((request, Bytes::from_static(command))));
    }
}

/// Change after change: what is refused changes nothing, and the state can always be written down.
fn applied(choices: &mut Choices<'_>) {
    let mut state = if rarely(choices, 4) { GroupState::default() } else { first(choices) };
    for index in 1..=1 + below(choices, 8) as u64 {
        let mut payload = chosen(choices).encode();
        if rarely(choices, 4) {
            // Leave a joint membership.
            payload = Bytes::new();
        }
        let before = state.clone();
        if state.apply(Index(index), &payload).is_err() {
            assert_eq!(state, before, "what is refused changes nothing");
        }
        assert!(before.removed.iter().all(|id| state.is_removed(*id)), "an id comes back");
        assert!(!state.membership.members().any(|id| state.is_removed(id)), "a removed member");
        assert_eq!(GroupState::decode(&state.encode()), Some(state.clone()));
    }
}

/// What is understood can be said again, and is understood the same.
fn judge(bytes: &Bytes) {
    if let Some(change) = MemberChange::decode(bytes) {
        assert_eq!(MemberChange::decode(&change.encode()).as_ref(), Some(&change));
        let mut state = GroupState::default();
        _ = state.apply(Index(1), bytes);
        assert_eq!(GroupState::decode(&state.encode()), Some(state));
    }
}

fn session(bytes: &Bytes) {
    if let Some((request, command)) = SessionRequest::parse(bytes) {
        assert_eq!(request.payload(&command), bytes, "written otherwise than read");
    }
}
