//! The smallest machine there is: a counter per group, replicated, in about thirty lines.
//!
//! ```sh
//! cargo run --example counter            # one node, in ./counter-data; run it again, and it goes on counting
//! ```

use std::time::Duration;

use bytes::Bytes;
use outrigger::id::{GroupId, Index};
use outrigger::store::{Frozen, Restoring, Wanted, whole};
use outrigger::wire::reply::Reply;
use outrigger::{Config, Node, StateMachine};

struct Counter(i64);

impl StateMachine for Counter {
    fn apply(&mut self, _: Index, payload: &Bytes, _: Wanted) -> Reply {
        // Every replica executes this: bytes that make no sense get the same refusal on each.
        let Ok(step) = str::from_utf8(payload).unwrap_or("").parse::<i64>() else {
            return Reply::error("ERR", "not a number");
        };
        self.0 = self.0.wrapping_add(step);
        Reply::Int(self.0)
    }
    fn read(&self, _: &Bytes) -> Reply {
        Reply::Int(self.0)
    }
    fn digest(&self) -> u64 {
        self.0 as u64
    }
    fn len(&self) -> u64 {
        1
    }
    fn freeze(&self) -> Box<dyn Frozen> {
        whole::frozen(self.0.to_le_bytes().to_vec())
    }
    fn restoring(&self) -> Box<dyn Restoring> {
        whole::restoring(|bytes| {
            Some(Box::new(Counter(i64::from_le_bytes(bytes.try_into().ok()?))))
        })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    count("counter-data", "127.0.0.1:7911").map(|total| println!("the counter is at {total:?}"))
}

/// Counts three on, and says how far it has come.
pub fn count(dir: &str, peer: &str) -> Result<Reply, Box<dyn std::error::Error>> {
    // A disk may stand still for seconds; whoever has waited too long does not know what became of its command.
    let config = Config { groups: 1, request_ms: 30_000, ..Config::new(1, dir, peer.parse()?) };
    let node = Node::start(config, |_group| Box::new(Counter(0)))?;
    assert!(node.wait_until_ready(Duration::from_secs(30)), "no leader; see the log");
    let client = node.client();
    client.write(GroupId(0), "1").wait()?;
    client.write(GroupId(0), "2").wait()?;
    let total = client.read(GroupId(0), "").wait()?;
    node.stop()?;
    Ok(total)
}
