//! Nodes on fault disks, under load, and what was promised to the clients.
//!
//! A power cut, whoever it hits:
//!
//! ```text
//!   disks dark ─► SIGKILL ─► disks off ─► unmount, detach ─► crash (mode, seed) ─► on ─► attach, mount
//!   nothing is    no process  what waits                     some volatile writes      ext4 replays
//!   answered      sees it     fails                          are lost                  its journal
//! ```

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger::store::slot::key_group;
use tools::rounds::cluster::{Cluster, Plan, now, pause};
use tools::rounds::ledger::Ledger;
use tools::rounds::resp::{Client, Reply};
use tools::rounds::subject::{Finding, Wrong};
use tools::rounds::writer;

use crate::cleanup::{self, Undo};
use crate::device::Device;
use crate::disk::{Faults, Mode};
use crate::image::Image;
use crate::machine::{Failed, run, stopped};
use crate::totals::Totals;

/// A disk, in bytes, for each core: a short log, its spares, and a segment that is being made.
const DISK_BYTES: u64 = 704 << 20;
/// Registers hold values of so many bytes: a write is many sectors then.
const VALUE_BYTES: usize = 6_000;
/// What a node says when it starts and finds its last write torn (`src/runtime/recovery.rs`).
const TORN: &str = "cut short by a crash";

/// What every command of the rig may be told.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Common {
    /// Decides commands, victims, pauses and what a crash takes; the machine decides the rest
    /// [default: random].
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Where disks are mounted and nodes keep their logs.
    #[arg(long, default_value = "target/power")]
    pub(crate) dir: PathBuf,
    /// The node's program [default: `outrigger` beside this program].
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// First of two ports per node.
    #[arg(long, default_value_t = 7851)]
    pub(crate) port: u16,
    /// Raft groups.
    #[arg(long, default_value_t = 8)]
    pub(crate) groups: u64,
    /// Cores of each node; each has a log of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) cores: u16,
    /// Writers at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) writers: u8,
    /// Least time without a leader before an election, in ms.
    #[arg(long, default_value_t = 300)]
    pub(crate) election_ms: u64,
    /// A fresh cluster after so many rounds; each start makes the log longer.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) fresh: u32,
}

impl Common {
    /// A cluster of so many nodes.
    pub(crate) fn plan(&self, nodes: u8, flags: &[&str]) -> Result<Plan, Failed> {
        let own = std::env::current_exe().map_err(|error| stopped("this program", error))?;
        let binary = match &self.binary {
            Some(binary) => binary.clone(),
            None => tools::rounds::cluster::binary_beside(&own)?,
        };
        Ok(Plan {
            binary,
            dir: self.dir.clone(),
            nodes,
            cores: self.cores,
            groups: self.groups,
            election_ms: self.election_ms,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            port: self.port,
            hosts: Vec::new(),
        })
    }

    /// The flags that repeat a run, but for what is particular to its command.
    pub(crate) fn replay(&self, seed: u64) -> String {
        let Self { groups, cores, writers, election_ms, fresh, port, .. } = self;
        let binary = self.binary.as_ref();
        let binary =
            binary.map_or(String::new(), |binary| format!(" --binary {}", binary.display()));
        format!(
            "--seed {seed} --groups {groups} --cores {cores} --writers {writers} \
             --election-ms {election_ms} --fresh {fresh} --port {port}{binary}"
        )
    }
}

/// The fault disks of a run, one per node; nodes come and go on them.
pub(crate) struct Shelf {
    pub(crate) devices: Vec<Device>,
    /// An empty ext4.
    blank: Image,
}

impl Shelf {
    /// Disks for so many nodes, of a size that a run can fill.
    pub(crate) fn new(plan: &Plan) -> Result<Self, Failed> {
        Self::of(plan, DISK_BYTES * u64::from(plan.cores))
    }

    /// Disks of so many bytes.
    pub(crate) fn of(plan: &Plan, bytes: u64) -> Result<Self, Failed> {
        let device = |id| {
            let folder = plan.dir.join(format!("disk-{id}"));
            Device::new(&folder, &plan.data_of(id), bytes)
        };
        let mut devices = (1..=plan.nodes).map(device).collect::<Result<Vec<_>, _>>()?;
        let blank = devices[0].format()?;
        Ok(Self { devices, blank })
    }

    /// Empty disks for all nodes, mounted.
    fn blank(&mut self) -> Result<(), Failed> {
        for device in &mut self.devices {
            device.stop()?;
            device.disk.set(|faults| *faults = Faults::default());
            device.disk.load(&self.blank);
            device.start()?;
        }
        Ok(())
    }

    /// Adds what the disks were asked for.
    pub(crate) fn tell(&self, totals: &mut Totals) {
        for device in &self.devices {
            totals.on_disk(device.disk.stats());
        }
    }

    /// Keeps what is on the disks, for whoever wants to know what went wrong.
    pub(crate) fn save(&self, plan: &Plan) {
        for (id, device) in (1..).zip(&self.devices) {
            let path = plan.dir.join(format!("disk-{id}.img"));
            match device.disk.save(&path) {
                Ok(()) => println!("what was durable on the disk of node {id}: {}", path.display()),
                Err(error) => println!("cannot keep {}: {error}", path.display()),
            }
        }
    }
}

/// One cluster, from its first start until it is thrown away.
pub(crate) struct Rig<'p> {
    pub(crate) plan: &'p Plan,
    pub(crate) cluster: Cluster<'p>,
    /// None for a cluster on a plain directory.
    pub(crate) devices: &'p mut [Device],
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) random: Rng,
    pids: Vec<Option<u32>>,
    /// How much of each node's log was read.
    read: Vec<u64>,
}

impl<'p> Rig<'p> {
    /// A new cluster on empty disks, ready; on a plain directory if there is no shelf.
    pub(crate) fn fresh(
        plan: &'p Plan,
        shelf: Option<&'p mut Shelf>,
        writers: u8,
        random: Rng,
        totals: &mut Totals,
    ) -> Result<Self, Failed> {
        let devices = match shelf {
            Some(shelf) => {
                shelf.blank()?;
                &mut shelf.devices[..]
            }
            None => {
                let _ = fs::remove_dir_all(plan.data());
                &mut []
            }
        };
        let length = |id| fs::metadata(plan.log(id)).map_or(0, |log| log.len());
        let mut rig = Self {
            plan,
            cluster: Cluster::new(plan),
            devices,
            ledgers: ledgers(writers, 0),
            random,
            pids: vec![None; usize::from(plan.nodes)],
            read: (1..=plan.nodes).map(length).collect(),
        };
        totals.clusters += 1;
        for id in 1..=plan.nodes {
            rig.start(id, "a fresh cluster")?;
        }
        rig.ready(totals)?;
        Ok(rig)
    }

    /// A node does nothing at all for so long.
    pub(crate) fn stand_still(&self, id: u8, lasts: Duration) -> Result<(), Failed> {
        let pid = self.cluster.pid(id).expect("all nodes run").to_string();
        run(&["kill", "-STOP", &pid])?;
        pause(lasts);
        run(&["kill", "-CONT", &pid]).map(drop)
    }

    /// Deletes all data, through the first node.
    pub(crate) fn delete_all(&self, patience: Duration) -> Result<(), Failed> {
        let deleted = || {
            let reply = Client::connect(self.plan.client(1)).ok()?.ask(&["FLUSHALL"]).ok()?;
            (reply == Reply::Simple("OK".into())).then_some(())
        };
        until("everything is deleted", patience, deleted).map(drop)
    }

    /// All data is deleted: every writer begins anew. `epoch` differs each time, and so do the names of keys: a
    /// write of an earlier one that comes late is no mistake.
    pub(crate) fn fresh_ledgers(&mut self, writers: u8, epoch: u32) {
        self.ledgers = ledgers(writers, epoch);
    }

    /// All nodes of the cluster.
    pub(crate) fn all(&self) -> Vec<u8> {
        (1..=self.plan.nodes).collect()
    }

    pub(crate) fn device(&mut self, id: u8) -> &mut Device {
        &mut self.devices[usize::from(id) - 1]
    }

    pub(crate) fn start(&mut self, id: u8, why: &str) -> Result<(), Failed> {
        self.cluster.start(id, why)?;
        self.started(id);
        Ok(())
    }

    /// Another node, in the place of one that is gone.
    pub(crate) fn start_as(&mut self, id: u8, node: Command, why: &str) -> Result<(), Failed> {
        self.cluster.start_as(id, node, why)?;
        self.started(id);
        Ok(())
    }

    fn started(&mut self, id: u8) {
        let pid = self.cluster.pid(id).expect("it was just started");
        self.pids[usize::from(id) - 1] = Some(pid);
        cleanup::note(Undo::Process(pid));
    }

    /// kill -9, waited for.
    pub(crate) fn kill(&mut self, ids: &[u8]) -> Result<(), Failed> {
        let killed = self.cluster.kill(ids.iter().copied());
        ids.iter().for_each(|id| self.gone(*id));
        Ok(killed?)
    }

    /// A process has ended.
    pub(crate) fn gone(&mut self, id: u8) {
        if let Some(pid) = self.pids[usize::from(id) - 1].take() {
            cleanup::done(&Undo::Process(pid));
        }
    }

    /// Waits until every group has a leader that every node knows.
    pub(crate) fn ready(&mut self, totals: &mut Totals) -> Result<(), Failed> {
        let took = self.cluster.wait_ready()?;
        totals.ready_max = totals.ready_max.max(took);
        self.listen(totals);
        Ok(())
    }

    /// Keeps what the nodes have said so far, for whoever wants to know what took long in this round.
    pub(crate) fn keep_logs(&self, round: u32) {
        for id in self.all() {
            let path = self.plan.dir.join(format!("round-{round}-node-{id}.log"));
            match std::fs::copy(self.plan.log(id), &path) {
                Ok(_) => println!("what node {id} said until then: {}", path.display()),
                Err(error) => println!("cannot keep {}: {error}", path.display()),
            }
        }
    }

    /// Cuts the power of these nodes and mounts their disks again. Their processes are gone.
    pub(crate) fn cut(
        &mut self,
        ids: &[u8],
        mode: Mode,
        totals: &mut Totals,
    ) -> Result<(), Failed> {
        for id in ids {
            self.device(*id).disk.cut();
        }
        self.cluster.shoot(ids.iter().copied());
        for id in ids {
            self.device(*id).disk.off();
        }
        self.kill(ids)?;
        self.crash(ids, mode, totals)
    }

    /// What the power cut leaves of each disk, mounted again. No process uses them.
    pub(crate) fn crash(
        &mut self,
        ids: &[u8],
        mode: Mode,
        totals: &mut Totals,
    ) -> Result<(), Failed> {
        let seeds: Vec<u64> = ids.iter().map(|_| self.random.u64(..)).collect();
        let hit = (1..).zip(self.devices.iter_mut());
        let hit = hit.filter_map(|(id, device)| {
            ids.iter().position(|hit| *hit == id).map(|at| (device, seeds[at]))
        });
        let results: Vec<_> = thread::scope(|scope| {
            let crash = |(device, seed): (&mut Device, u64)| {
                device.disk.off();
                device.stop()?;
                let crash = device.disk.crash(mode, seed);
                device.disk.on();
                device.start().map(|repaired| (crash, repaired))
            };
            let crashes: Vec<_> = hit.map(|hit| scope.spawn(move || crash(hit))).collect();
            crashes.into_iter().map(|crash| crash.join().expect("it does not panic")).collect()
        });
        for result in results {
            let (crash, repaired) = result?;
            totals.on_crash(mode, crash, repaired);
        }
        Ok(())
    }

    /// Writers run while `meanwhile` does.
    pub(crate) fn under_load<T>(
        &mut self,
        meanwhile: impl FnOnce(&mut Self) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let plan = self.plan;
        let mut ledgers = std::mem::take(&mut self.ledgers);
        let stop = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            for ledger in &mut ledgers {
                let (mut random, stop) = (self.random.fork(), &stop);
                scope.spawn(move || writer::write(ledger, plan, &mut random, stop));
            }
            let result = meanwhile(self);
            stop.store(true, Ordering::Relaxed);
            if result.is_err() {
                // Writers that wait for a node whose disk is stalled would wait long.
                for device in self.devices.iter() {
                    device.disk.off();
                }
            }
            result
        });
        self.ledgers = ledgers;
        result
    }

    /// Every write is read back, and the replicas are compared.
    pub(crate) fn check(&mut self, what: &str, totals: &mut Totals) -> Result<(), Failed> {
        let read = writer::check_all(&mut self.ledgers, self.plan, &mut self.random);
        self.cluster.all_run()?;
        read?;
        if let Some(story) = self.cluster.wait_same()? {
            totals.findings.push(Finding::new(Wrong::Disagreement, format!("{what}: {story}")));
            // One that is behind differs from one that is wrong.
            for id in self.all() {
                let info = self.info(id).unwrap_or_default();
                let groups: Vec<&str> =
                    info.lines().filter(|line| line.starts_with("group_")).collect();
                println!("node {id}: {}", groups.join(" "));
            }
        }
        self.collect(what, totals);
        self.listen(totals);
        Ok(())
    }

    /// What the writers have done and found since the last time.
    pub(crate) fn collect(&mut self, what: &str, totals: &mut Totals) {
        for ledger in &mut self.ledgers {
            totals.counts.add(&std::mem::take(&mut ledger.counts));
            totals.findings.extend(
                ledger.findings.drain(..).map(|finding| Finding {
                    what: format!("{what}: {}", finding.what),
                    ..finding
                }),
            );
        }
    }

    /// What the nodes have said since the last time.
    fn listen(&mut self, totals: &mut Totals) {
        for (id, read) in (1..=self.plan.nodes).zip(&mut self.read) {
            let text = fs::File::open(self.plan.log(id)).and_then(|mut log| {
                let mut text = String::new();
                log.seek(SeekFrom::Start(*read))?;
                log.read_to_string(&mut text)?;
                Ok(text)
            });
            let text = text.unwrap_or_default();
            // The last line may be on its way.
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            *read += whole as u64;
            for line in text[..whole].lines() {
                totals.torn_reported += u64::from(line.contains(TORN));
                if line.contains("panicked") {
                    totals.findings.push(Finding::new(Wrong::Alien, format!("node {id}: {line}")));
                }
            }
        }
    }

    /// Waits until a node has ended by itself, or serves: `None`.
    pub(crate) fn ended_or_ready(&mut self, id: u8, limit: Duration) -> Option<ExitStatus> {
        let started = now();
        while started.elapsed() < limit {
            let ended = self.cluster.wait_end(id, Duration::from_millis(20));
            if ended.is_some() || self.info(id).is_some() {
                return ended;
            }
        }
        None
    }

    /// What a node says of itself, if it answers.
    pub(crate) fn info(&self, id: u8) -> Option<String> {
        let reply = Client::connect(self.plan.client(id)).ok()?.ask(&["INFO", "outrigger"]).ok()?;
        let Reply::Bulk(Some(text)) = reply else { return None };
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// Who leads a group, as any node has it.
    pub(crate) fn leader(&self, group: u64) -> Option<u8> {
        self.all().into_iter().filter_map(|id| self.info(id)).find_map(|info| {
            let leader = of_group(&info, group, "leader")?;
            u8::try_from(leader).ok().filter(|leader| *leader != 0)
        })
    }

    /// The term of a group, as this node has it.
    pub(crate) fn term(&self, id: u8, group: u64) -> Option<u64> {
        of_group(&self.info(id)?, group, "term")
    }

    /// Whether no other node takes it for the leader of anything.
    pub(crate) fn leads_nothing(&self, id: u8) -> bool {
        let mut others = self.all().into_iter().filter(|other| *other != id);
        others.all(|other| {
            self.info(other).is_some_and(|info| {
                let mut groups = info.lines().filter(|line| line.starts_with("group_"));
                groups.all(|line| {
                    !line.contains(&format!(",leader={id},")) && !line.contains(",leader=0,")
                })
            })
        })
    }
}

fn ledgers(writers: u8, epoch: u32) -> Vec<Ledger> {
    let number = |writer: u8| epoch as usize * usize::from(writers) + usize::from(writer);
    (0..writers).map(|it| Ledger::with_large_registers(number(it), VALUE_BYTES)).collect()
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        // The processes must be gone before anybody unmounts; those that wait for a disk go when it
        // answers, or fails.
        let ids = self.all();
        for device in self.devices.iter() {
            device.disk.set(|faults| *faults = Faults::default());
        }
        self.cluster.shoot(ids.iter().copied());
        for id in ids {
            if self.cluster.pid(id).is_some()
                && self.cluster.wait_end(id, Duration::from_secs(10)).is_none()
            {
                self.devices.iter().for_each(|device| device.disk.off());
            }
            self.gone(id);
        }
        for device in self.devices.iter_mut() {
            // The next cluster, or the device's own end, tells if this fails.
            let _ = device.stop();
            device.disk.off();
            device.disk.crash(Mode::Keep, 0);
            device.disk.on();
        }
    }
}

/// Waits until `done` returns something; how long it took.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut done: impl FnMut() -> Option<T>,
) -> Result<(T, Duration), Failed> {
    let started: Instant = now();
    loop {
        if let Some(value) = done() {
            return Ok((value, started.elapsed()));
        }
        if limit < started.elapsed() {
            return Err(Failed::Stopped(format!("{what}: not within {} s", limit.as_secs())));
        }
        pause(Duration::from_millis(5));
    }
}

/// The logs of a node: one folder for each core.
pub(crate) fn logs(plan: &Plan, id: u8) -> Vec<PathBuf> {
    (0..plan.cores).map(|core| plan.data_of(id).join(format!("core-{core}"))).collect()
}

/// A key of this group.
pub(crate) fn key_of(group: u64, groups: u64) -> String {
    let mut names = (0..).map(|number: u32| format!("key:{number}"));
    let own = |name: &String| key_group(name.as_bytes(), groups).0 == group;
    names.find(own).expect("there are more names than anybody can try")
}

/// A number that a node tells of a group, of its `INFO`.
pub(crate) fn of_group(info: &str, group: u64, name: &str) -> Option<u64> {
    let line = info.lines().find(|line| line.starts_with(&format!("group_{group}:")))?;
    line.split(&format!(",{name}=")).nth(1)?.split(',').next()?.trim().parse().ok()
}
