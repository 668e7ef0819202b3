//! The first reads after a restart. A node that serves before it has its log or its snapshot back answers with
//! nothing, for a moment; a check that waits until everybody is ready comes too late to see it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use tools::rounds::cluster::{Plan, pause};
use tools::rounds::ledger::Ledger;
use tools::rounds::resp::{Client, Reply};
use tools::rounds::subject::{Finding, Wrong};

use crate::machine::Failed;
use crate::rig::Rig;
use crate::totals::Totals;

/// Between two reads through one node.
const PAUSE: Duration = Duration::from_millis(1);

impl Rig<'_> {
    /// Reads through these nodes while `meanwhile` starts them and waits for them. No writer runs: each answer is held
    /// against what is known. An error is none, nor is a connection that fails.
    pub(crate) fn first_reads<T>(
        &mut self,
        what: &str,
        ids: &[u8],
        totals: &mut Totals,
        meanwhile: impl FnOnce(&mut Self, &mut Totals) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let plan = self.plan;
        let readers = Readers {
            ledgers: Mutex::new(std::mem::take(&mut self.ledgers)),
            judged: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        };
        let result = thread::scope(|scope| {
            for id in ids {
                let (mut random, readers) = (self.random.fork(), &readers);
                scope.spawn(move || readers.read(plan, *id, &mut random));
            }
            let result = meanwhile(self, totals);
            readers.stop.store(true, Ordering::Relaxed);
            result
        });
        totals.restarts += 1;
        totals.first_reads += readers.judged.into_inner();
        self.ledgers = readers.ledgers.into_inner().expect("no holder of this lock panics");
        // Also if the nodes never were ready.
        self.collect(what, totals);
        result
    }
}

/// What one thread per node shares.
struct Readers {
    ledgers: Mutex<Vec<Ledger>>,
    /// Answers that came before the nodes were ready.
    judged: AtomicU64,
    stop: AtomicBool,
}

impl Readers {
    /// Reads through one node until told to stop.
    fn read(&self, plan: &Plan, id: u8, random: &mut Rng) {
        let mut client = None;
        while !self.stop.load(Ordering::Relaxed) {
            if self.read_one(plan, id, &mut client, random).is_err() {
                client = None;
            }
            pause(PAUSE);
        }
    }

    fn read_one(
        &self,
        plan: &Plan,
        id: u8,
        client: &mut Option<Client>,
        random: &mut Rng,
    ) -> io::Result<()> {
        let client = match client {
            Some(client) => client,
            None => client.insert(Client::connect(plan.client(id))?),
        };
        let (at, key, name) = {
            let ledgers = self.ledgers();
            let at = random.usize(..ledgers.len());
            let Some(key) = ledgers[at].known_key(random) else { return Ok(()) };
            (at, key, ledgers[at].name(key))
        };
        let reply = client.ask(&["GET", &name])?;
        let is_first = !self.stop.load(Ordering::Relaxed);
        let ledger = &mut self.ledgers()[at];
        match reply {
            Reply::Error(_) => return Ok(()),
            Reply::Bulk(value) => ledger.on_look(key, id, value.as_deref()),
            Reply::Simple(_) | Reply::Integer(_) => {
                let story = format!("{name}: GET through node {id} is answered {reply:?}");
                ledger.findings.push(Finding::new(Wrong::Alien, story));
            }
        }
        self.judged.fetch_add(u64::from(is_first), Ordering::Relaxed);
        Ok(())
    }

    fn ledgers(&self) -> MutexGuard<'_, Vec<Ledger>> {
        self.ledgers.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    /// What is found through a node that says this to everything, and how many answers were judged.
    fn through(answer: &'static [u8]) -> (Vec<Wrong>, u64) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let plan = Plan {
            binary: "x".into(),
            dir: "x".into(),
            nodes: 1,
            cores: 1,
            groups: 1,
            election_ms: 300,
            flags: Vec::new(),
            port: listener.local_addr().expect("bound").port(),
            hosts: Vec::new(),
        };
        let mut random = Rng::with_seed(1);
        let mut ledger = Ledger::new(0);
        let operation = ledger.overwrite(&mut random);
        ledger.on_answer(operation, &Reply::Bulk(None));
        let readers = Readers {
            ledgers: Mutex::new(vec![ledger]),
            judged: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            let reader = scope.spawn(|| readers.read(&plan, 1, &mut random));
            let (mut node, _) = listener.accept().expect("it connects");
            let mut question = [0; 64];
            for _ in 0..2 {
                assert_ne!(node.read(&mut question).expect("it asks"), 0);
                node.write_all(answer).expect("it listens");
            }
            // The second answer was taken when there is a third question.
            assert_ne!(node.read(&mut question).expect("it asks"), 0);
            readers.stop.store(true, Ordering::Relaxed);
            drop(node);
            reader.join().expect("it does not panic");
        });
        let ledger = readers.ledgers.into_inner().expect("no holder of this lock panics").remove(0);
        let wrongs = ledger.findings.iter().map(|finding| finding.wrong).collect();
        (wrongs, readers.judged.into_inner())
    }

    #[test]
    fn nothing_is_a_finding_and_a_refusal_is_none() {
        assert_eq!(through(b"$-1\r\n"), (vec![Wrong::Lost; 2], 2));
        assert_eq!(through(b"$1\r\n0\r\n"), (vec![], 2));
        assert_eq!(through(b"-LOADING it reads its log\r\n"), (vec![], 0));
        assert_eq!(through(b":0\r\n"), (vec![Wrong::Alien; 2], 2));
    }
}
