//! How long it takes until writes go on when a fault is over, and what was answered until then.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use tools::rounds::cluster::{Plan, pause};
use tools::rounds::resp::{Client, Reply, encode};

use crate::machine::Failed;
use crate::rig::{key_of, until};

/// When to stop waiting for it.
const GIVE_UP: Duration = Duration::from_secs(30);
/// What took longer than this is told about.
const TELL: Duration = Duration::from_millis(1_500);
/// Between two writes to all groups through one node.
const BETWEEN: Duration = Duration::from_millis(50);

/// How long until a write to every group was acknowledged through every node. One that came too early may
/// wait until its request times out, so nobody waits for it before the next is sent.
pub(crate) fn resume(plan: &Plan, healed: Instant) -> Result<Duration, Failed> {
    let watches: Vec<Mutex<Watch>> = (0..plan.nodes).map(|_| Mutex::default()).collect();
    let of = |id: u8| watches[usize::from(id) - 1].lock().expect("no holder of it panics");
    thread::scope(|scope| {
        let all = until("writes to all groups through all nodes", GIVE_UP, || {
            for id in (1..=plan.nodes).filter(|id| of(*id).first.is_none()) {
                let watch = &watches[usize::from(id) - 1];
                scope.spawn(move || {
                    let written = write_all(plan, id);
                    let mut watch = watch.lock().expect("no holder of it panics");
                    watch.note(healed.elapsed(), written);
                });
            }
            pause(BETWEEN);
            (1..=plan.nodes).map(|id| of(id).first).collect::<Option<Vec<_>>>()
        });
        let slow = |id: &u8| of(*id).first.is_none_or(|first| TELL < first);
        for id in (1..=plan.nodes).filter(slow) {
            for (until, why) in &of(id).refusals {
                println!("until {} ms, writes through node {id}: {why}", until.as_millis());
            }
        }
        all.map(|(all, _)| all.into_iter().max().expect("there are nodes"))
    })
}

/// What came of writes through one node.
#[derive(Default)]
struct Watch {
    /// When all groups were written for the first time.
    first: Option<Duration>,
    /// What was answered instead, before that, and when last.
    refusals: Vec<(Duration, String)>,
}

impl Watch {
    fn note(&mut self, answered: Duration, written: Result<(), String>) {
        match written {
            _ if self.first.is_some() => {}
            Ok(()) => self.first = Some(answered),
            Err(why) => match self.refusals.last_mut() {
                Some((last, before)) if *before == why => *last = answered,
                _ => self.refusals.push((answered, why)),
            },
        }
    }
}

/// Writes a key in every group through this node, just now; the first refusal if there is one.
pub(crate) fn write_all(plan: &Plan, through: u8) -> Result<(), String> {
    let mut client = Client::connect(plan.client(through)).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    for group in 0..plan.groups {
        encode(&["SET", &key_of(group, plan.groups), "x"], &mut bytes);
    }
    client.send(&bytes).map_err(|error| error.to_string())?;
    let mut refusal = Ok(());
    // All replies are taken, whatever they are.
    for _ in 0..plan.groups {
        match client.receive() {
            Ok(Reply::Simple(text)) if text == "OK" => {}
            Ok(Reply::Error(text)) => refusal = refusal.and(Err(text)),
            Ok(other) => refusal = refusal.and(Err(format!("{other:?}"))),
            Err(error) => return Err(error.to_string()),
        }
    }
    refusal
}
