//! The commands of transcripts in which whole groups interact.

use outrigger::id::ReplicaId;
use outrigger::raft::Transition;

use super::changes;
use super::compare::NOTHING;
use super::group::{Group, Recipient, Stop};
use super::message::{Config, Kind, Message, Payload, Snapshot};
use super::node::Options;
use super::render;
use super::script::{Case, Command, Nonsense, number, truth};

/// Carries out one command, and those in its input, and returns what they print.
pub(super) fn run(group: &mut Group, case: &Case) -> Result<String, Nonsense> {
    let result = if case.command.name == "propose-conf-change" {
        propose_config(group, &case.command, &case.input)
    } else {
        obey(group, &case.command).and_then(|()| obey_all(group, &case.input))
    };
    let is_quiet = group.out.is_quiet();
    let mut said = group.out.take();
    match result {
        Ok(()) => {}
        Err(Stop::Nonsense(nonsense)) => return Err(nonsense),
        Err(Stop::Said(error)) if is_quiet => return Ok(error),
        Err(Stop::Said(error)) => said += &error,
    }
    Ok(if said.is_empty() { NOTHING.to_owned() } else { said })
}

/// Commands in the input of another, one per line; an error is printed, and the next is carried out.
fn obey_all(group: &mut Group, commands: &str) -> Result<(), Stop> {
    for line in commands.lines() {
        let Some(command) = Command::parse(line)? else { continue };
        match obey(group, &command) {
            Err(Stop::Said(error)) if !group.out.is_quiet() => group.out.lines(&error),
            other => other?,
        }
    }
    Ok(())
}

fn obey(group: &mut Group, command: &Command) -> Result<(), Stop> {
    match &*command.name {
        "_breakpoint" => {}
        "add-nodes" => add_nodes(group, command)?,
        "campaign" => group.node(command.number_at(0)?)?.campaign(),
        "compact" => {
            let (id, index) = (command.number_at(0)?, command.number_at(1)?);
            group.node(id)?.compact(index)?;
            raft_log(group, id)?;
        }
        "deliver-msgs" => deliver(group, command)?,
        "forget-leader" => group.node(command.number_at(0)?)?.forget_leader(),
        "log-level" => {
            let name = command.arguments.first().map_or("", |argument| &argument.key);
            group.out.set_level_named(name)?;
        }
        "process-append-thread" => {
            each(group, command, "processing append thread", Group::process_append)?;
        }
        "process-apply-thread" => {
            each(group, command, "processing apply thread", Group::process_apply)?;
        }
        "process-ready" => each(group, command, "handling Ready", Group::process_ready)?,
        "propose" => propose(group, command)?,
        "raft-log" => raft_log(group, command.number_at(0)?)?,
        "raft-state" => raft_state(group),
        "report-unreachable" => {
            let [at, lost] = command.numbers()?[..] else {
                let error = "must specify exactly two node indexes: node on which to report, \
                             and reported node";
                return Err(Stop::Said(error.to_owned()));
            };
            let lost = group.node(lost)?.id();
            group.node(at)?.on_unreachable(lost);
        }
        "send-snapshot" => send_snapshot(group, command)?,
        "set-randomized-election-timeout" => {
            let timeout = command.value("timeout").map_or(Ok(0), number)?;
            if timeout == 0 {
                return Err(Nonsense("a timeout is needed".to_owned()).into());
            }
            group.node(command.number_at(0)?)?.set_election_timeout(timeout);
        }
        "stabilize" => stabilize(group, command)?,
        "status" => status(group, command.number_at(0)?)?,
        "tick" => tick(group, command, command.number_at(1)?)?,
        "tick-election" => {
            let count = group.node(command.number_at(0)?)?.options().election_ticks;
            tick(group, command, count)?;
        }
        "tick-heartbeat" => {
            let count = group.node(command.number_at(0)?)?.options().heartbeat_ticks;
            tick(group, command, count)?;
        }
        "transfer-leadership" => {
            let party = |key: &str| {
                let value = command.value(key).map_or(Ok(0), number)?;
                let is_node = (1..=group.members().len() as u64).contains(&value);
                if is_node { Ok(value) } else { Err(Nonsense(format!("{key} names no node"))) }
            };
            let (from, to) = (party("from")?, party("to")?);
            group.node(from)?.transfer(to);
        }
        other => return Err(Nonsense(format!("unknown command {other:?}")).into()),
    }
    Ok(())
}

fn add_nodes(group: &mut Group, command: &Command) -> Result<(), Stop> {
    let (mut options, mut snapshot) = (Options::default(), Snapshot::default());
    let (mut voters, mut learners) = (Vec::new(), Vec::new());
    let mut content = false;
    for argument in command.arguments.iter().skip(1) {
        for value in &argument.values {
            match &*argument.key {
                "voters" => voters.push(ReplicaId(number(value)?)),
                "learners" => learners.push(ReplicaId(number(value)?)),
                "election-tick" => options.election_ticks = number(value)?,
                "heartbeat-tick" => options.heartbeat_ticks = number(value)?,
                "inflight" => {
                    options.inflight_max = usize::try_from(number(value)?).unwrap_or(usize::MAX);
                }
                "index" => snapshot.index = number(value)?,
                // What a state machine holds is never shown.
                "content" => content = true,
                "async-storage-writes" => options.async_writes = truth(value)?,
                "prevote" => options.pre_vote = truth(value)?,
                "checkquorum" => options.check_quorum = truth(value)?,
                "max-committed-size-per-ready" => options.apply_bytes_max = number(value)?,
                "disable-conf-change-validation" => options.unchecked_changes = truth(value)?,
                "step-down-on-removal" => options.step_down_on_removal = truth(value)?,
                "read-only" => match &**value {
                    "safe" => options.lease_reads = false,
                    "lease-based" => options.lease_reads = true,
                    _ => {
                        return Err(Stop::Said(format!("invalid read-only option {value:?}")));
                    }
                },
                other => return Err(Nonsense(format!("unknown option {other:?}")).into()),
            }
        }
    }
    snapshot.membership.incoming = voters.into();
    snapshot.membership.learners = learners.into();
    if options.apply_bytes_max == 0 {
        options.apply_bytes_max = u64::MAX;
    }
    if options.heartbeat_ticks == 0 || options.election_ticks <= options.heartbeat_ticks {
        let what = "an election timeout is longer than the time between heartbeats, which is not 0";
        return Err(Nonsense(what.to_owned()).into());
    }
    if options.inflight_max == 0 {
        return Err(Nonsense("inflight=0 lets nothing be sent".to_owned()).into());
    }
    if options.lease_reads && !options.check_quorum {
        return Err(Nonsense("reads by lease need checkquorum=true".to_owned()).into());
    }
    if content || snapshot != Snapshot::default() {
        snapshot.term = 1;
    }
    for _ in 0..command.number_at(0)? {
        group.add(&options, &snapshot)?;
    }
    Ok(())
}

fn propose(group: &mut Group, command: &Command) -> Result<(), Stop> {
    let [id, data] = &command.arguments[..] else {
        return Err(Nonsense("propose takes a node and what it proposes".to_owned()).into());
    };
    if !data.values.is_empty() {
        return Err(Nonsense("what is proposed has no value".to_owned()).into());
    }
    group.node(number(&id.key)?)?.propose(Payload::Normal(data.key.clone()))?;
    Ok(())
}

fn propose_config(group: &mut Group, command: &Command, input: &str) -> Result<(), Stop> {
    let id = command.number_at(0)?;
    let (mut v1, mut transition) = (false, Transition::Auto);
    for argument in command.arguments.iter().skip(1) {
        for value in &argument.values {
            match (&*argument.key, &**value) {
                ("v1", value) => v1 = truth(value)?,
                ("transition", "auto") => transition = Transition::Auto,
                ("transition", "implicit") => transition = Transition::JointImplicit,
                ("transition", "explicit") => transition = Transition::JointExplicit,
                ("transition", other) => {
                    return Err(Stop::Said(format!("unknown transition {other}")));
                }
                (other, _) => return Err(Stop::Said(format!("unknown command {other}"))),
            }
        }
    }
    let changes = changes::parse(input)?;
    if v1 && (changes.len() > 1 || transition != Transition::Auto) {
        let error = "v1 conf change can only have one operation and no transition";
        return Err(Stop::Said(error.to_owned()));
    }
    if v1 && changes.is_empty() {
        return Err(Nonsense("a v1 change needs one operation".to_owned()).into());
    }
    group.node(id)?.propose(Payload::Config(Config { v1, transition, changes }))?;
    Ok(())
}

fn deliver(group: &mut Group, command: &Command) -> Result<(), Stop> {
    let (mut kind, mut recipients) = (None, Vec::<Recipient>::new());
    for argument in &command.arguments {
        if argument.values.is_empty() {
            recipients.push(Recipient { id: number(&argument.key)?, drop: false });
        }
        for value in &argument.values {
            match &*argument.key {
                "drop" => {
                    let id = number(value)?;
                    if recipients.iter().any(|recipient| recipient.id == id) {
                        let what = format!("messages to {id} are both delivered and dropped");
                        return Err(Nonsense(what).into());
                    }
                    recipients.push(Recipient { id, drop: true });
                }
                "type" => {
                    let unknown = || Nonsense(format!("unknown message type {value:?}"));
                    kind = Some(Kind::from_name(value).ok_or_else(unknown)?);
                }
                other => return Err(Nonsense(format!("unknown argument {other:?}")).into()),
            }
        }
    }
    if group.deliver(kind, &recipients)? == 0 {
        group.out.lines("no messages");
    }
    Ok(())
}

/// Does the same with every node named; more than one are told apart by titles.
fn each(
    group: &mut Group,
    command: &Command,
    title: &str,
    act: fn(&mut Group, u64) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let ids = command.numbers()?;
    for &id in &ids {
        if ids.len() > 1 {
            group.titled(id, title, |group| act(group, id))?;
        } else {
            act(group, id)?;
        }
    }
    Ok(())
}

fn raft_log(group: &mut Group, id: u64) -> Result<(), Stop> {
    let storage = &group.node(id)?.storage;
    let told = if storage.last() < storage.first() {
        let (first, last) = (storage.first(), storage.last());
        format!("log is empty: first index={first}, last index={last}")
    } else {
        render::entries(storage.entries())
    };
    group.out.lines(&told);
    Ok(())
}

fn raft_state(group: &mut Group) {
    let mut told = String::new();
    for member in group.members() {
        let status = member.node.status();
        let voter = if status.membership.is_voter(status.id) { "Voter" } else { "Non-Voter" };
        let role = render::role(status.role);
        told += &format!(
            "{}: {role} ({voter}) Term:{} Lead:{}\n",
            status.id, status.term, status.leader
        );
    }
    group.out.lines(&told);
}

/// Of a leader; others track nobody.
fn status(group: &mut Group, id: u64) -> Result<(), Stop> {
    let status = group.node(id)?.status();
    let told: String = status
        .progress()
        .map(|member| render::progress(&member, status.membership.learners.contains(&member.id)))
        .collect();
    group.out.lines(&told);
    Ok(())
}

fn send_snapshot(group: &mut Group, command: &Command) -> Result<(), Stop> {
    let [from, to] = command.numbers()?[..] else {
        return Err(Nonsense("send-snapshot takes two nodes".to_owned()).into());
    };
    let to = group.node(to)?.id();
    let node = group.node(from)?;
    let mut message = Message::new(Kind::Snap, node.id(), to, node.status().term.0);
    message.snapshot = Some(node.snapshot().clone());
    group.out.lines(&render::message(&message));
    group.send(message);
    Ok(())
}

fn stabilize(group: &mut Group, command: &Command) -> Result<(), Stop> {
    let mut ids = command.numbers()?;
    if ids.is_empty() {
        ids = (1..=group.members().len() as u64).collect();
    }
    let before = group.out.level();
    for argument in command.arguments.iter().filter(|argument| !argument.values.is_empty()) {
        if argument.key != "log-level" {
            return Err(Nonsense(format!("unknown argument {:?}", argument.key)).into());
        }
        for level in &argument.values {
            group.out.set_level_named(level)?;
        }
    }
    let result = group.stabilize(&ids);
    group.out.set_level(before);
    result
}

fn tick(group: &mut Group, command: &Command, count: u64) -> Result<(), Stop> {
    let node = group.node(command.number_at(0)?)?;
    for _ in 0..count {
        node.tick();
    }
    Ok(())
}
