//! The directory of the node that a log belongs to, if the log still lies in it: whose it is, and with whom its groups
//! began. Of its `identity.toml` only that is read, line by line.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::group::GroupState;
use crate::id::{ClusterId, NodeId, ShardId};
use crate::wal::Identity;

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Home {
    cluster: Option<u64>,
    node: Option<u64>,
    /// None if the node joined later.
    bootstrap: BTreeMap<NodeId, SocketAddr>,
}

impl Home {
    /// That of the node whose core's log is `dir`, and which core that is. Nothing if it lies elsewhere.
    pub(crate) fn of_log(dir: &Path) -> Option<(Self, ShardId)> {
        let dir = dir.canonicalize().ok()?;
        let core = dir.file_name()?.to_str()?.strip_prefix("core-")?.parse().ok()?;
        // The second says what the first does, if that has decayed.
        let texts = ["identity.toml", "identity.toml.old"]
            .into_iter()
            .filter_map(|name| fs::read_to_string(dir.parent()?.join(name)).ok());
        let home =
            texts.map(|text| Self::parse(&text)).find(|it| it.identity(ShardId(core)).is_some());
        home.map(|home| (home, ShardId(core)))
    }

    fn parse(text: &str) -> Self {
        let mut home = Self::default();
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            }
            let Some((name, value)) = line.split_once('=') else { continue };
            let (name, value) = (name.trim().trim_matches('"'), value.trim().trim_matches('"'));
            match (section, name) {
                ("", "cluster") => home.cluster = u64::from_str_radix(value, 16).ok(),
                ("", "node") => home.node = value.parse().ok(),
                ("bootstrap", node) => {
                    if let (Ok(node), Ok(address)) = (node.parse().map(NodeId), value.parse()) {
                        home.bootstrap.insert(node, address);
                    }
                }
                _ => {}
            }
        }
        home
    }

    /// Of the log of its core `shard`.
    pub(crate) fn identity(&self, shard: ShardId) -> Option<Identity> {
        let (cluster, node) = (ClusterId(self.cluster?), NodeId(self.node?));
        Some(Identity { cluster, node, shard })
    }

    /// What its groups began with; nothing if the node joined later.
    pub(crate) fn beginning(&self) -> Option<GroupState> {
        if self.bootstrap.is_empty() {
            return None;
        }
        let nodes: Vec<NodeId> = self.bootstrap.keys().copied().collect();
        let addresses: Vec<_> = self.bootstrap.iter().map(|(node, it)| (*node, *it)).collect();
        Some(GroupState::first(&nodes, &addresses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_the_node_is_and_with_whom_it_began() {
        let text = "format = 2\ncluster = \"00000000000000c1\"\nnode = 1\ncores = 2\n\n[bootstrap]\n\
                    1 = \"10.0.0.1:7379\"\n2 = \"[::1]:7379\"\n\n[known.2]\nbirth = 3\n# kept twice\n";
        let home = Home::parse(text);
        let identity = home.identity(ShardId(1)).expect("all of it is there");
        assert_eq!((identity.cluster, identity.node), (ClusterId(0xc1), NodeId(1)));
        let members: Vec<u64> =
            home.beginning().expect("two").membership.members().map(|it| it.0).collect();
        assert_eq!(members, [1, 2]);
        assert_eq!(Home::parse("decayed").identity(ShardId(0)), None);
    }
}
