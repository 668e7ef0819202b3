//! `outrigger doctor DIR`: what a node would find on this machine, measured and said in one page, with
//! advice. It starts nothing and leaves nothing behind.

use std::fmt::{self, Write as _};
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits;

use super::disk::{Flushes, Scratch};
use super::fatal::Fatal;
use super::preflight;

/// Blocks written by each method.
const WRITES: usize = 200;
/// No longer than this for them.
const TIME: Duration = Duration::from_secs(5);
/// Times the file of 4 MiB is written for the bandwidth.
const ROUNDS: usize = 16;
/// A flush above this, at the 99th percentile, delays heartbeats and elections at the default timeouts.
const SLOW_FLUSH: Duration = Duration::from_millis(10);
/// No device makes a block durable in less, unless it has a cache that outlives the power.
const INCREDIBLE_FLUSH: Duration = Duration::from_micros(15);

/// The command line of `doctor`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where a node would keep everything; need not exist.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Cores the node would use, one executor each.
    #[arg(long, value_name = "C", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(limits::CORES_MAX)))]
    pub cores: u16,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Report {
    /// What stands in a node's way; empty if nothing does.
    obstacles: Vec<String>,
    dir: PathBuf,
    filesystem: String,
    free_mib: Option<u64>,
    flushes: Option<Flushes>,
    bytes_per_s: Option<u64>,
    kernel: String,
    clients: Option<usize>,
    governor: Option<String>,
    /// Cores the node would use, and those that the machine lets it use.
    cores: u16,
    processors: Option<usize>,
}

/// Prints the page.
///
/// # Errors
/// When a node could not start here; the page says why.
pub fn doctor(options: &Options) -> Result<(), Fatal> {
    let report = Report::of(&options.dir, options.cores);
    print!("{report}");
    match report.obstacles.len() {
        0 => Ok(()),
        1 => Err(Fatal::new("no node belongs here: 1 obstacle, see above")),
        count => Err(Fatal::new(format!("no node belongs here: {count} obstacles, see above"))),
    }
}

impl Report {
    /// What is found at `dir`, which is made for that if it is missing, and then removed.
    fn of(dir: &Path, cores: u16) -> Self {
        let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
        let missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
        let report = Self::of_made(dir, cores);
        for dir in missing {
            // Somebody else may have put something there meanwhile: it stays then.
            let _ = fs::remove_dir(dir);
        }
        report
    }

    fn of_made(dir: &Path, cores: u16) -> Self {
        let mut obstacles = Vec::new();
        let mut note = |checked: Result<(), Fatal>| {
            obstacles.extend(checked.err().map(|fatal| fatal.to_string()));
        };
        note(preflight::io_uring());
        note(preflight::memlock(cores));
        note(preflight::direct_io(dir));
        let clients = preflight::open_files(limits::CONNECTIONS_DEFAULT)
            .map_err(|fatal| note(Err(fatal)))
            .ok();
        let (mut flushes, mut bytes_per_s) = (None, None);
        if let Ok(scratch) = Scratch::new(dir) {
            flushes = scratch.flushes(WRITES, TIME).ok();
            bytes_per_s = scratch.bandwidth(ROUNDS).ok();
        }
        let stat = rustix::fs::statvfs(dir).ok();
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let filesystem = mount_of(&mounts, &dir).unwrap_or_else(|| "unknown".into());
        note(survives_a_reboot(&filesystem));
        let read = |path| fs::read_to_string(path).ok().map(|text: String| text.trim().to_owned());
        Self {
            obstacles,
            filesystem,
            dir,
            free_mib: stat.map(|it| it.f_bavail.saturating_mul(it.f_frsize) >> 20),
            flushes,
            bytes_per_s,
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
            clients,
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            cores,
            processors: std::thread::available_parallelism().ok().map(NonZero::get),
        }
    }

    fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if let Some(flushes) = &self.flushes {
            let times = flushes.by(flushes.better());
            if SLOW_FLUSH < times.percentile(99) {
                advice.push(format!(
                    "1 flush in 100 takes {} ms or more. Every write waits for two of three such disks; use one \
                     with power-loss protection, keep other writers off it, or raise --election-ms",
                    times.percentile(99).as_millis()
                ));
            }
            if times.median() < INCREDIBLE_FLUSH {
                advice.push(
                    "a flush takes less than a device needs. Unless its cache outlives a power cut, the disk (or \
                     the host of this virtual machine) does not flush, and acknowledged writes can be lost"
                        .into(),
                );
            }
        }
        if let Some((major, minor)) = version(&self.kernel)
            && (major, minor) < (6, 1)
        {
            advice.push(format!(
                "Linux {major}.{minor} works; from 6.1 on, a core's ring interrupts it less"
            ));
        }
        if let Some(processors) = self.processors
            && processors < usize::from(self.cores)
        {
            advice.push(format!(
                "{} on {}: they take turns, and each waits for the others. --cores is best at most the \
                 processors that nothing else uses, and is fixed at the first start",
                counted(usize::from(self.cores), "core"),
                counted(processors, "processor"),
            ));
        }
        let is_known = ["ext4", "xfs", "tmpfs", "ramfs"];
        if !is_known.iter().any(|known| self.filesystem.starts_with(known)) {
            advice.push(format!("{} is untested; ext4 and xfs are tested", self.filesystem));
        }
        if let Some(governor) = &self.governor
            && governor != "performance"
        {
            advice.push(format!(
                "the processor's governor is {governor}; benchmarks want performance: cpupower frequency-set -g performance"
            ));
        }
        if let Some(clients) = self.clients
            && clients < limits::CONNECTIONS_DEFAULT
        {
            advice.push(format!(
                "open files are limited: {} can connect, not {}. Raise LimitNOFILE= in the systemd unit",
                counted(clients, "client"),
                limits::CONNECTIONS_DEFAULT
            ));
        }
        advice
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(page, "{name:<26}{value}");
        };
        line("directory", self.dir.display().to_string());
        line("filesystem", self.filesystem.clone());
        if let Some(free) = self.free_mib {
            line("free", format!("{free} MiB"));
        }
        if let Some(flushes) = &self.flushes {
            line("4 KiB durable, dsync", flushes.dsync.to_string());
            line("4 KiB durable, fdatasync", flushes.fdatasync.to_string());
            line("flush method", flushes.better().name().into());
        }
        if let Some(rate) = self.bytes_per_s {
            line("1 MiB after another", format!("{} MB/s", rate / 1_000_000));
        }
        line("kernel", format!("Linux {}", self.kernel));
        if let Some(clients) = self.clients {
            line("clients at most", clients.to_string());
        }
        for obstacle in &self.obstacles {
            line("OBSTACLE", obstacle.clone());
        }
        let advice = self.advice();
        for advice in &advice {
            line("advice", advice.clone());
        }
        if self.obstacles.is_empty() && advice.is_empty() {
            line("advice", "none: a node is well placed here".into());
        }
        f.write_str(&page)
    }
}

/// A node that comes back from a reboot without its log has forgotten what it voted and acknowledged.
fn survives_a_reboot(filesystem: &str) -> Result<(), Fatal> {
    match filesystem.split(' ').next() {
        Some(kind @ ("tmpfs" | "ramfs")) => Err(Fatal::new(format!(
            "{kind} is memory: a reboot loses everything that is kept here. Remedy: put --dir on ext4 or xfs"
        ))),
        _ => Ok(()),
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Filesystem and device of the longest mount point above `dir`, of a table like `/proc/self/mounts`.
fn mount_of(mounts: &str, dir: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
        dir.starts_with(point).then(|| (point.len(), format!("{kind} on {device}")))
    });
    // Of two at the same place the later one is on top.
    mounts.max_by_key(|(length, _)| *length).map(|(_, text)| text)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::scratch;

    fn report(micros: u64) -> Report {
        let scratch = scratch::Scratch::new("doctor");
        let mut report = Report::of(scratch.path(), 1);
        report.flushes = Some(Flushes::of_micros(&[micros], &[micros * 2]));
        (report.kernel, report.filesystem) = ("6.18.44".into(), "ext4 on /dev/vda".into());
        (report.governor, report.clients) = (None, Some(limits::CONNECTIONS_DEFAULT));
        (report.cores, report.processors) = (2, Some(2));
        report
    }

    #[test]
    fn a_good_machine_gets_no_advice_and_the_page_has_what_was_measured() {
        let page = report(90).to_string();
        for expected in [
            "filesystem                ext4 on /dev/vda\n",
            "4 KiB durable, dsync      p50 90 µs, p99 90 µs of 1\n",
            "4 KiB durable, fdatasync  p50 180 µs, p99 180 µs of 1\n",
            "flush method              dsync\n",
            "kernel                    Linux 6.18.44\n",
            "advice                    none: a node is well placed here\n",
        ] {
            assert!(page.contains(expected), "{expected:?} is not in:\n{page}");
        }
        assert!(page.contains(" MB/s\n"), "{page}");
    }

    #[test]
    fn each_weakness_has_its_advice() {
        let advice = |change: fn(&mut Report)| {
            let mut report = report(90);
            change(&mut report);
            let advice = report.advice();
            assert_eq!(advice.len(), 1, "{advice:?}");
            advice[0].clone()
        };
        let slow = advice(|it| it.flushes = Some(Flushes::of_micros(&[12_000], &[15_000])));
        assert!(slow.starts_with("1 flush in 100 takes 12 ms"), "{slow}");
        let lying = advice(|it| it.flushes = Some(Flushes::of_micros(&[3], &[3])));
        assert!(lying.contains("can be lost"), "{lying}");
        let old = advice(|it| it.kernel = "5.15.0-91-generic".into());
        assert!(old.starts_with("Linux 5.15 works"), "{old}");
        let strange = advice(|it| it.filesystem = "btrfs on /dev/vdb".into());
        assert!(strange.starts_with("btrfs on /dev/vdb is untested"), "{strange}");
        let lazy = advice(|it| it.governor = Some("powersave".into()));
        assert!(lazy.contains("governor is powersave"), "{lazy}");
        let few = advice(|it| it.clients = Some(10));
        assert!(few.starts_with("open files are limited: 10 clients"), "{few}");
        let one = advice(|it| it.clients = Some(1));
        assert!(one.starts_with("open files are limited: 1 client can"), "{one}");
        let crowded = advice(|it| it.cores = 3);
        assert!(crowded.starts_with("3 cores on 2 processors: "), "{crowded}");
        let single = advice(|it| it.processors = Some(1));
        assert!(single.starts_with("2 cores on 1 processor: "), "{single}");
    }

    #[test]
    fn a_place_where_no_node_can_start_is_an_error_and_says_why() {
        let scratch = scratch::Scratch::new("doctor-obstacle");
        let file = scratch.path().join("file");
        fs::write(&file, b"x").unwrap();
        let report = Report::of(&file.join("below"), 1);
        assert_eq!(report.obstacles.len(), 1, "{report}");
        assert!(
            report.to_string().contains("OBSTACLE                  cannot create "),
            "{report}"
        );
        let options = Options { dir: file.join("below"), cores: 1 };
        assert!(
            doctor(&options)
                .unwrap_err()
                .to_string()
                .starts_with("no node belongs here: 1 obstacle,")
        );
    }

    #[test]
    fn memory_is_no_place_for_a_node() {
        let refusal = survives_a_reboot("tmpfs on tmpfs").unwrap_err().to_string();
        assert!(refusal.starts_with("tmpfs is memory: a reboot loses everything"), "{refusal}");
        assert!(survives_a_reboot("ramfs on none").is_err());
        assert_eq!(survives_a_reboot("ext4 on /dev/vda"), Ok(()));
    }

    #[test]
    fn what_was_made_to_look_at_is_removed_and_nothing_else() {
        let scratch = scratch::Scratch::new("doctor-leaves");
        Report::of(&scratch.path().join("one/two"), 1);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        let there = scratch.path().join("there");
        fs::create_dir(&there).unwrap();
        Report::of(&there.join("below"), 1);
        Report::of(&there, 1);
        assert!(there.exists() && fs::read_dir(&there).unwrap().count() == 0);
    }

    #[test]
    fn the_mount_is_the_longest_above_and_the_last_of_equals() {
        let mounts = "rootfs / rootfs rw 0 0\n/dev/a / ext4 rw 0 0\n/dev/b /data xfs rw 0 0\n\
                      tmpfs /database tmpfs rw 0 0\n";
        let of = |dir: &str| mount_of(mounts, Path::new(dir));
        assert_eq!(of("/data/node-1").as_deref(), Some("xfs on /dev/b"));
        assert_eq!(of("/home").as_deref(), Some("ext4 on /dev/a"));
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("strange"), None);
    }
}
