//! What a node says of itself, read from `INFO outrigger`.

use std::collections::BTreeMap;

/// Numbers by name, and the groups.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Info {
    numbers: BTreeMap<String, u64>,
    pub(super) groups: BTreeMap<u64, Group>,
}

/// One replica.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) role: String,
    pub(super) leader: u64,
    pub(super) commit: u64,
    pub(super) applied: u64,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Info {
    pub(super) fn read(text: &str) -> Self {
        let mut info = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.trim_end().split_once(':')) {
            if let Some(group) = name.strip_prefix("group_").and_then(|id| id.parse().ok()) {
                info.groups.insert(group, Group::read(value));
            } else if let Ok(number) = value.parse() {
                info.numbers.insert(name.to_owned(), number);
            }
        }
        info
    }

    /// A counter; none before the first.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }

    pub(super) fn led(&self) -> u64 {
        self.number("groups_led")
    }

    /// Groups whose leader it does not know.
    pub(super) fn leaderless(&self) -> usize {
        self.groups.values().filter(|group| group.leader == 0).count()
    }
}

impl Group {
    fn read(text: &str) -> Self {
        let mut group = Self::default();
        for (name, value) in text.split(',').filter_map(|field| field.split_once('=')) {
            let number = value.parse().unwrap_or(0);
            match name {
                "role" => value.clone_into(&mut group.role),
                "leader" => group.leader = number,
                "commit" => group.commit = number,
                "applied" => group.applied = number,
                "first" => group.first = number,
                "last" => group.last = number,
                _ => {}
            }
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read() {
        let info = Info::read(
            "# Outrigger\r\nnode_id:1\r\ngroups_led:1\r\nsnapshots_received:4\r\n\
             group_0:role=leader,leader=1,term=2,commit=9,applied=8,first=3,last=10,core=0\r\n\
             group_1:role=follower,leader=0,term=2\r\n",
        );
        assert_eq!((info.led(), info.leaderless()), (1, 1));
        assert_eq!((info.number("snapshots_received"), info.number("absent")), (4, 0));
        let group = &info.groups[&0];
        assert_eq!((group.commit, group.applied, group.first, group.last), (9, 8, 3, 10));
        assert_eq!(group.role, "leader");
    }
}
