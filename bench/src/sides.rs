//! Targets side by side: what `--target` says of each, and what all of them together come to.
//!
//! ```text
//!  --target etcd                                       the protocol of --addr (and of targets that name none)
//!  --target old=127.0.0.1:7001,127.0.0.1:7002          a target by name; repeated, they are compared
//!  --target peer=etcd://127.0.0.1:2379                 with a protocol of its own
//! ```

use crate::args::Target;
use clap::ValueEnum;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Where `cargo load` connects when nothing says otherwise.
const ADDR_DEFAULT: &str = "127.0.0.1:6379";

/// One `--target`, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flag {
    /// A protocol alone.
    Protocol(Target),
    /// A target by name.
    Named {
        /// What it is called in tables and plots.
        name: String,
        /// Its own protocol, if it says one.
        protocol: Option<Target>,
        /// HOST:PORT, at least one.
        addrs: Vec<String>,
    },
}

impl FromStr for Flag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, rest)) = text.split_once('=') else {
            return Target::from_str(text, true).map(Self::Protocol).map_err(|_| {
                format!("'{text}' is neither a protocol ({}) nor NAME=HOST:PORT", protocols())
            });
        };
        if name.trim().is_empty() {
            return Err(format!("'{text}' has no name before the '='"));
        }
        let (protocol, addrs) = match rest.split_once("://") {
            None => (None, rest),
            Some((protocol, addrs)) => {
                let known = Target::from_str(protocol, true)
                    .map_err(|_| format!("'{protocol}' is no protocol; {} are", protocols()))?;
                (Some(known), addrs)
            }
        };
        let addrs = addrs.split(',').map(|addr| addr.trim().to_owned()).collect();
        Ok(Self::Named { name: name.trim().to_owned(), protocol, addrs })
    }
}

fn protocols() -> String {
    let values = Target::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    values.map(|value| value.get_name().to_owned()).collect::<Vec<_>>().join(", ")
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Side {
    /// What it is called; empty if it is the only one and has no name.
    pub(crate) name: String,
    /// Its protocol.
    pub(crate) target: Target,
    /// Where it listens; at least one.
    pub(crate) addrs: Vec<SocketAddr>,
}

/// All targets, in the order of the command line; at least one.
pub(crate) fn of(flags: &[Flag], addrs: &[String]) -> Result<Vec<Side>, String> {
    let mut protocol = None;
    let mut named = Vec::new();
    for flag in flags {
        match flag {
            Flag::Protocol(_) if protocol.is_some() => {
                return Err("--target: two protocols; targets with a protocol each have a name: \
                            NAME=PROTOCOL://HOST:PORT"
                    .into());
            }
            Flag::Protocol(target) => protocol = Some(*target),
            Flag::Named { name, protocol, addrs } => named.push((name, *protocol, addrs)),
        }
    }
    let protocol = protocol.unwrap_or(Target::Resp);
    if named.is_empty() {
        let addrs = if addrs.is_empty() { &[ADDR_DEFAULT.to_owned()] } else { addrs };
        let addrs = resolve("--addr", addrs)?;
        return Ok(vec![Side { name: String::new(), target: protocol, addrs }]);
    }
    if !addrs.is_empty() {
        return Err("--addr and --target NAME=… both say where to connect; leave --addr out".into());
    }
    let mut sides: Vec<Side> = Vec::new();
    for (name, own, addrs) in named {
        if sides.iter().any(|side| side.name == *name) {
            return Err(format!("--target: two targets are called '{name}'"));
        }
        let addrs = resolve(&format!("--target {name}="), addrs)?;
        sides.push(Side { name: name.clone(), target: own.unwrap_or(protocol), addrs });
    }
    Ok(sides)
}

fn resolve(flag: &str, names: &[String]) -> Result<Vec<SocketAddr>, String> {
    let one = |name: &String| {
        name.to_socket_addrs()
            .map_err(|error| format!("{flag} {name}: {error}; write HOST:PORT"))?
            .next()
            .ok_or_else(|| format!("{flag} {name}: the name has no address"))
    };
    names.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(flags: &str, addrs: &[&str]) -> Result<Vec<Side>, String> {
        let flags = flags.split_whitespace().map(str::parse).collect::<Result<Vec<Flag>, _>>()?;
        of(&flags, &addrs.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_protocol_alone_is_that_of_the_addresses() {
        let sides = sides("zookeeper", &["127.0.0.1:1", "127.0.0.1:2"]).unwrap();
        assert_eq!((sides.len(), sides[0].name.as_str()), (1, ""));
        assert_eq!((sides[0].target, sides[0].addrs.len()), (Target::Zookeeper, 2));
    }

    #[test]
    fn targets_keep_their_order_and_may_have_a_protocol_of_their_own() {
        let sides = sides("a=127.0.0.1:1,127.0.0.1:2 b=zookeeper://127.0.0.1:3", &[]).unwrap();
        let seen: Vec<_> =
            sides.iter().map(|s| (s.name.as_str(), s.target, s.addrs.len())).collect();
        assert_eq!(seen, [("a", Target::Resp, 2), ("b", Target::Zookeeper, 1)]);
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for (flags, addrs, word) in [
            ("redis", &[][..], "neither a protocol"),
            ("=127.0.0.1:1", &[], "no name"),
            ("a=http://127.0.0.1:1", &[], "'http' is no protocol"),
            ("a=127.0.0.1:1 a=127.0.0.1:2", &[], "two targets"),
            ("resp zookeeper", &[], "two protocols"),
            ("a=nowhere", &[], "HOST:PORT"),
            ("a=127.0.0.1:1", &["127.0.0.1:2"], "leave --addr out"),
        ] {
            let problem = sides(flags, addrs).unwrap_err();
            assert!(problem.contains(word), "{flags}: {problem}");
        }
    }
}
