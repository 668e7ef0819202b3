//! Rehearsed at a start: what the log comes to under somebody who starts it wrongly, and what the last replica of every
//! group would go on from alone (contract row 59). Nothing is written.
//!
//! | started | held to |
//! |---|---|
//! | with another number of cores or groups | a group that lies here and would live elsewhere is named |
//! | alone, and part of the log is gone | refused: the others may know what it promised |
//! | alone, where a group is not whole, or this node is no voter of it | refused for that group |
//! | alone, otherwise | what is written then makes a log in which this node is the only member of each group, with all entries that it held |

use bytes::BytesMut;

use crate::group::{AloneRefusal, Replica};
use crate::id::{GroupId, Index};
use crate::shard::{Alone, Config, RecoverError, Recovery, Shard};

use super::safety::Checked;
use super::world::World;

impl World {
    /// Somebody changed `--cores` or `--groups` of a node that has a log, which comes to `intact`.
    pub(super) fn rehearse_moved(
        &mut self,
        (node, core): (usize, usize),
        config: &Config,
        intact: &Shard,
    ) -> Checked {
        let other = match self.rng.bool() {
            true => Config { cores: config.cores + 1, ..config.clone() },
            false => Config { groups: config.groups.div_ceil(2), ..config.clone() },
        };
        self.outcome.faults.moved += 1;
        let (cores, groups) = (other.cores, other.groups);
        let lives_here = |group: GroupId| {
            group.0 < groups && group.0 % u64::from(cores) == u64::from(config.shard.0)
        };
        // Who votes alone begins a term at once, and has written nothing of it.
        let is_strange =
            |replica: &Replica| !lives_here(replica.group()) && Index(0) < replica.status().durable;
        let is_known = |group| intact.replicas().iter().any(|it| it.group() == group);
        match self.replay(node, core, other) {
            Err(RecoverError::ForeignGroup { group, .. })
                if is_known(group) && !lives_here(group) =>
            {
                Ok(())
            }
            Ok(_) if !intact.replicas().iter().any(is_strange) => Ok(()),
            Ok(_) => Err(format!(
                "damage unseen: node {node} core {core} starts with {cores} cores and {groups} groups"
            )),
            Err(error) => Err(format!(
                "node {node} core {core} with {cores} cores and {groups} groups: {error}"
            )),
        }
    }

    /// Somebody tells a node, whose log comes to `whole`, to go on alone.
    pub(super) fn rehearse_alone(
        &mut self,
        (node, core): (usize, usize),
        config: &Config,
        (whole, report): (&Shard, &Recovery),
    ) -> Checked {
        if self.embedded.is_some() {
            // What goes on alone executes what nobody has committed, and the machine tells whoever watches.
            return Ok(());
        }
        let this = self.nodes[node].replica();
        let alone = self.read_log(node, core, config.clone()).and_then(|log| log.finish_alone());
        let of = |group: GroupId| whole.replicas().iter().find(|it| it.group() == group);
        let is_lost = !report.losses.is_empty();
        let is_right = match &alone {
            Err(RecoverError::Damage(damage)) => report.losses.first() == Some(damage),
            Err(RecoverError::Alone(refusal)) => !is_lost && is_refused_rightly(*refusal, of),
            Err(_) => false,
            Ok(_) => !is_lost,
        };
        let place = format!("node {node} core {core}");
        if !is_right {
            return Err(format!("{place} is to go on alone: {:?}", alone.err()));
        }
        self.outcome.faults.alone += 1;
        let Ok((Alone { groups, writes }, log)) = alone else { return Ok(()) };
        let segment = log.log.position.next_segment;
        let mut file = BytesMut::zeroed(self.options.segment_bytes);
        let mut data = Vec::new();
        for write in &writes {
            if write.segment != segment {
                // So many groups that one segment does not hold them.
                return Ok(());
            }
            write.encode_unpadded(&mut data);
            file[write.offset as usize..][..data.len()].copy_from_slice(&data);
        }
        if !writes.is_empty() {
            self.nodes[node].disks[core].mistake(segment, file.freeze());
        }
        let started = self.replay(node, core, config.clone());
        self.nodes[node].disks[core].read_well();
        let (shard, report) =
            started.map_err(|error| format!("{place} does not start alone: {error}"))?;
        for (survivor, replica) in groups.iter().zip(shard.replicas()) {
            let more = survivor.run.as_ref().map_or(0, |run| run.entries.len() as u64);
            let (status, last) = (replica.status(), survivor.last.plus(more));
            let is_alone = status.membership.members().eq([this]) && replica.forgotten().is_none();
            let held = of(survivor.group).map(|before| before.status().last.index);
            if !is_alone
                || !report.losses.is_empty()
                || held != Some(survivor.last)
                || (status.last.index, status.applied) != (last, last)
            {
                return Err(format!("{place} goes on alone with {survivor:?} as {status:?}"));
            }
        }
        Ok(())
    }
}

/// Whether the replica that would start is as unfit as is said.
fn is_refused_rightly<'a>(
    refusal: AloneRefusal,
    of: impl Fn(GroupId) -> Option<&'a Replica>,
) -> bool {
    match refusal {
        // What it holds and has not applied may take it out.
        AloneRefusal::NoVoter(group) => of(group).is_some_and(|it| {
            let status = it.status();
            let is_voter = status.membership.is_voter(status.id);
            it.is_gone() || !is_voter || status.applied < status.last.index
        }),
        AloneRefusal::Adrift(group) | AloneRefusal::Forgetful(group) => {
            of(group).is_some_and(|it| it.forgotten().is_some())
        }
        AloneRefusal::Machine(group) => of(group).is_some_and(|it| it.status().failure.is_some()),
    }
}
