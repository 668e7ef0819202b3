//! Which groups answer reads by lease, as an operator says it: `none`, `all`, or `0-3,7`.

use std::fmt;
use std::str::FromStr;

use crate::id::GroupId;
use crate::raft::Lease;

/// The leases of a node's groups. They must be the same on all nodes of a cluster: a lease is a
/// promise of the others. The default is no lease: every read asks a quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leases {
    /// The groups that have one.
    pub groups: LeasedGroups,
    /// By how much, in percent, the speeds of two machines' clocks may differ. Default 10; at most 50.
    /// Too little serves stale reads when a clock runs slow; more shortens the lease.
    pub drift_percent: u8,
}

impl Default for Leases {
    fn default() -> Self {
        Self { groups: LeasedGroups::default(), drift_percent: 10 }
    }
}

impl Leases {
    /// The lease of `group`, if it has one.
    #[must_use]
    pub fn of(&self, group: GroupId) -> Option<Lease> {
        let has = match &self.groups {
            LeasedGroups::None => false,
            LeasedGroups::All => true,
            LeasedGroups::Some(ranges) => {
                ranges.iter().any(|&(first, last)| (first..=last).contains(&group.0))
            }
        };
        has.then_some(Lease { drift_percent: self.drift_percent })
    }
}

/// A set of groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LeasedGroups {
    /// No group.
    #[default]
    None,
    /// Every group.
    All,
    /// These, first and last of each range.
    Some(Vec<(u64, u64)>),
}

impl FromStr for LeasedGroups {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => return Ok(Self::None),
            "all" => return Ok(Self::All),
            _ => {}
        }
        let wrong = || format!("`{text}` is not `none`, `all`, or groups such as `0-3,7`");
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last).then_some((first, last))
        };
        text.split(',').map(range).collect::<Option<_>>().map(Self::Some).ok_or_else(wrong)
    }
}

impl fmt::Display for LeasedGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::All => f.write_str("all"),
            Self::Some(ranges) => {
                let part = |&(first, last): &(u64, u64)| match first == last {
                    true => first.to_string(),
                    false => format!("{first}-{last}"),
                };
                f.write_str(&ranges.iter().map(part).collect::<Vec<_>>().join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named_one_by_one_or_in_ranges() {
        for (text, with, without) in [("all", 9, None), ("none", 9, Some(9)), ("0-3,7", 7, Some(4))]
        {
            let groups: LeasedGroups = text.parse().expect("understood");
            assert_eq!(groups.to_string(), text);
            let leases = Leases { groups, drift_percent: 5 };
            let expected = (text != "none").then_some(Lease { drift_percent: 5 });
            assert_eq!(leases.of(GroupId(with)), expected);
            assert!(without.is_none_or(|group| leases.of(GroupId(group)).is_none()));
        }
        for text in ["", "x", "3-1", "1,,2", "-"] {
            assert!(text.parse::<LeasedGroups>().is_err(), "{text}");
        }
    }
}
