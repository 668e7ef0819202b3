//! What `INFO outrigger` says, parsed: `name:value` lines, one of them per group.

use std::collections::BTreeMap;

use crate::client::Client;
use crate::cluster::Node;

/// One answer of one node.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) groups: BTreeMap<u64, Group>,
}

/// One `group_<id>:` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) role: String,
    /// Node id; 0 while there is none.
    pub(crate) leader: u64,
    pub(crate) term: u64,
    pub(crate) commit: u64,
    pub(crate) applied: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) core: u64,
}

impl Info {
    pub(crate) fn of(node: &Node) -> Info {
        Info::ask(&mut node.client())
    }

    pub(crate) fn ask(client: &mut Client) -> Info {
        Info::parse(&client.say("INFO outrigger").text())
    }

    pub(crate) fn parse(text: &str) -> Info {
        let mut info = Info { fields: BTreeMap::new(), groups: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.split_once(':').expect("INFO lines are name:value");
            if let Some(id) = name.strip_prefix("group_") {
                let id = id.parse().expect("a group id is a number");
                assert!(
                    info.groups.insert(id, Group::parse(value)).is_none(),
                    "two lines of group {id}"
                );
            } else {
                info.fields.insert(name.to_owned(), value.to_owned());
            }
        }
        info
    }

    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> u64 {
        let value = self.fields.get(name).unwrap_or_else(|| panic!("INFO has no {name}"));
        value.parse().unwrap_or_else(|_| panic!("INFO {name}:{value} is no count"))
    }

    /// Whether every group of the node knows a leader.
    pub(crate) fn every_group_is_led(&self) -> bool {
        !self.groups.is_empty() && self.groups.values().all(|group| group.leader != 0)
    }

    /// How far each group is applied.
    pub(crate) fn applied(&self) -> Vec<u64> {
        self.groups.values().map(|group| group.applied).collect()
    }
}

impl Group {
    /// `role=,leader=,term=,commit=,applied=,first=,last=,core=`, in this order.
    fn parse(line: &str) -> Group {
        let pairs: Vec<(&str, &str)> =
            line.split(',').map(|pair| pair.split_once('=').expect("name=value")).collect();
        let names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
        let promised = ["role", "leader", "term", "commit", "applied", "first", "last", "core"];
        assert_eq!(names, promised, "the fields of a group line");
        let number = |at: usize| {
            let (name, value): (&str, &str) = pairs[at];
            value.parse::<u64>().unwrap_or_else(|_| panic!("{name}={value} is no number"))
        };
        Group {
            role: pairs[0].1.to_owned(),
            leader: number(1),
            term: number(2),
            commit: number(3),
            applied: number(4),
            first: number(5),
            last: number(6),
            core: number(7),
        }
    }
}
