//! Before anything is measured: every address of every target is connected to, so that a name that is wrong is learnt
//! before the first round and not in it; and servers that say which version they are, are asked.

use crate::args::{Plan, Target};
use crate::protocol::Protocol;
use crate::resp::Resp;
use crate::zookeeper::ZooKeeper;
use crate::{conn, wire::Wire};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a server is waited for that does not know the question.
const VERSION_TIMEOUT: Duration = Duration::from_millis(300);
/// More than any `INFO` has.
const INFO_BYTES_MAX: usize = 256 << 10;

/// Connects to all addresses of all targets; the version of each target whose first address says it.
pub(crate) fn all(plan: &Plan) -> Result<Vec<Option<String>>, String> {
    let mut versions = Vec::new();
    for side in &plan.sides {
        let mut version = None;
        for (index, addr) in side.addrs.iter().enumerate() {
            let asked = one(plan, side.target, *addr).map_err(|error| {
                let whom =
                    if side.name.is_empty() { String::new() } else { format!("{}: ", side.name) };
                format!("{whom}cannot connect to {addr}: {error}; is the server there?")
            })?;
            if index == 0 {
                version = asked.and_then(info_version);
            }
        }
        versions.push(version);
    }
    Ok(versions)
}

/// Connects to one address, and takes leave; of a Redis protocol, the connection to ask on.
fn one(plan: &Plan, target: Target, addr: SocketAddr) -> std::io::Result<Option<Wire>> {
    let stream = TcpStream::connect_timeout(&addr, conn::CONNECT_TIMEOUT)?;
    match target {
        Target::Resp => conn::greet::<Resp>(stream, addr, plan.manner, &plan.access).map(Some),
        Target::Zookeeper => {
            let mut wire = conn::greet::<ZooKeeper>(stream, addr, plan.manner, &plan.access)?;
            wire.write_all(ZooKeeper::GOODBYE)?;
            Ok(None)
        }
        #[cfg(feature = "etcd")]
        Target::Etcd => Ok(None),
    }
}

/// What `INFO` says of the version; `None` if it does not say it, or not soon.
fn info_version(mut wire: Wire) -> Option<String> {
    wire.socket().set_nonblocking(false).ok()?;
    wire.socket().set_read_timeout(Some(VERSION_TIMEOUT)).ok()?;
    wire.write_all(b"*1\r\n$4\r\nINFO\r\n").ok()?;
    let (mut answer, mut piece) = (Vec::new(), [0; 16 << 10]);
    while answer.len() < INFO_BYTES_MAX && Resp.take_reply(&answer) == Ok(None) {
        match wire.read(&mut piece).ok()? {
            0 => return None,
            bytes => answer.extend_from_slice(&piece[..bytes]),
        }
    }
    version(&String::from_utf8_lossy(&answer))
}

/// `outrigger_version:…` before `redis_version:…`, which others say to please clients.
fn version(info: &str) -> Option<String> {
    ["outrigger", "redis"].iter().find_map(|server| {
        let mut fields = info.lines().filter_map(|line| line.split_once(':'));
        let (_, version) =
            fields.find(|(name, _)| name.strip_suffix("_version") == Some(server))?;
        Some(format!("{server} {}", version.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_says_who_answers() {
        let redis = "$40\r\n# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n\r\n";
        assert_eq!(version(redis).as_deref(), Some("redis 7.0.15"));
        let both = "$40\r\nredis_version:7.0.0\r\noutrigger_version:0.1.0\r\n\r\n";
        assert_eq!(version(both).as_deref(), Some("outrigger 0.1.0"));
        assert_eq!(version("-ERR unknown command\r\n"), None);
    }
}
