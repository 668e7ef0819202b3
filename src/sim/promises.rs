//! Whether a lease rests on promises: whoever would answer reads by one must know that a majority gives no
//! vote to anybody else, each for a time by its own clock. All clocks are known here, so a lease that
//! outlasts its promises is seen at once, and nobody has to win an election in between.

use crate::shard::LeasedGroups;

use super::safety::Checked;
use super::world::World;

impl World {
    /// Asked after every turn of a core.
    pub(super) fn leases_rest_on_promises(&self, node: usize, core: usize) -> Checked {
        if self.options.leases.groups == LeasedGroups::None {
            return Ok(());
        }
        let now = self.nodes[node].clock.read(self.now);
        for replica in self.nodes[node].cores[core].shard.settled() {
            // Only a leader is.
            if !replica.is_leased(now) {
                continue;
            }
            let status = replica.status();
            // Whoever is down gives no vote, and promises none when it starts.
            let is_free = |voter: &crate::id::ReplicaId| {
                let other = &self.nodes[voter.0 as usize - 1];
                let cores = other.cores.len() as u64;
                if *voter == status.id || cores == 0 {
                    return false;
                }
                let (group, clock) = (replica.group().0, other.clock.read(self.now));
                let there = &other.cores[(group % cores) as usize].shard;
                !there.replicas()[(group / cores) as usize].refuses_votes(clock)
            };
            let half = &status.membership.incoming;
            // So many that are bound are enough, and mostly found among the first.
            let enough = half.len().div_ceil(2);
            if half.iter().filter(|voter| !is_free(voter)).take(enough).count() < enough {
                let free = half.iter().filter(|voter| is_free(voter)).count();
                return Err(format!(
                    "lease safety: group {}: {} has a lease in term {}, and {free} of {} voters may elect \
                     somebody else",
                    replica.group(),
                    status.id,
                    status.term,
                    half.len()
                ));
            }
        }
        Ok(())
    }
}
