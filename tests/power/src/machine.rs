//! What the rig needs of the machine, and the programs it runs there.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use tools::rounds;

use crate::network::{self, Cut, Network};

/// Why a command of the rig ended.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nothing was run: the machine lacks this.
    CannotRun(Vec<String>),
    /// It began and could not go on.
    Stopped(String),
    /// It ran to its end, and so many promises or limits were broken.
    Broken(Vec<String>),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CannotRun(missing) => write!(
                f,
                "NOTHING WAS RUN: this machine lacks what this needs:\n  - {}",
                missing.join("\n  - ")
            ),
            Self::Stopped(story) => write!(f, "stopped: {story}"),
            Self::Broken(what) => write!(f, "FAILED:\n  - {}", what.join("\n  - ")),
        }
    }
}

impl From<rounds::Failed> for Failed {
    fn from(failed: rounds::Failed) -> Self {
        Self::Stopped(failed.to_string())
    }
}

pub(crate) fn stopped(what: impl fmt::Display, error: impl fmt::Display) -> Failed {
    Failed::Stopped(format!("{what}: {error}"))
}

/// Loop devices that one rig needs: one per node.
const LOOPS: usize = 3;

/// Everything that is missing, with the remedy.
pub(crate) fn check() -> Result<(), Failed> {
    let mut missing = Vec::new();
    let fuse = File::options().read(true).write(true).open("/dev/fuse");
    if let Err(error) = fuse {
        missing.push(format!("FUSE: /dev/fuse cannot be opened ({error}); modprobe fuse, be root"));
    }
    let control = File::options().read(true).write(true).open("/dev/loop-control");
    match control {
        Err(error) => missing.push(format!(
            "loop devices: /dev/loop-control cannot be opened ({error}); modprobe loop, be root"
        )),
        Ok(_) => {
            let free = free_loops();
            if free < LOOPS {
                missing
                    .push(format!("{LOOPS} loop devices: only {free} are free (losetup -l, -d)"));
            }
        }
    }
    for (program, package) in [
        ("losetup", "mount"),
        ("blockdev", "util-linux"),
        ("mount", "mount"),
        ("umount", "mount"),
        ("mkfs.ext4", "e2fsprogs"),
        ("e2fsck", "e2fsprogs"),
    ] {
        let silent = || Command::new(program).arg("-V").stderr(Stdio::null()).output();
        if silent().is_err() {
            missing.push(format!("{program}: apt-get install {package}"));
        }
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for wanted in ["fuse", "ext4"] {
        if !filesystems.lines().any(|line| line.split_whitespace().next_back() == Some(wanted)) {
            missing.push(format!("{wanted}: this kernel does not have it; modprobe {wanted}"));
        }
    }
    if !may_mount() {
        missing.push("the right to mount (CAP_SYS_ADMIN): be root".to_owned());
    }
    if missing.is_empty() { Ok(()) } else { Err(Failed::CannotRun(missing)) }
}

/// What a network of one's own needs: a small one is made, cut, and removed.
pub(crate) fn check_network() -> Result<(), Failed> {
    let programs =
        [("ip", "iproute2"), ("ss", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")];
    let mut missing = Vec::new();
    for (program, package) in programs {
        if Command::new(program).arg("-V").output().is_err() {
            missing.push(format!("{program}: apt-get install {package}"));
        }
    }
    if missing.is_empty() {
        network::sweep();
        let tried = Network::new(1).and_then(|network| {
            network.cut(1, &[1], Cut::WHOLE)?;
            network.reset(1, &[1])?;
            network.heal(1)
        });
        missing.extend(tried.err().map(|error| {
            format!(
                "network namespaces, a bridge, nft rules and `ss -K`: {error}; be root, with \
                 CAP_NET_ADMIN and CAP_SYS_ADMIN"
            )
        }));
    }
    if missing.is_empty() { Ok(()) } else { Err(Failed::CannotRun(missing)) }
}

fn may_mount() -> bool {
    const SYS_ADMIN: u64 = 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << SYS_ADMIN) != 0)
}

fn free_loops() -> usize {
    let Ok(devices) = fs::read_dir("/sys/block") else { return 0 };
    devices
        .filter_map(|device| device.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("loop"))
        .filter(|name| !Path::new("/sys/block").join(name).join("loop").exists())
        .count()
}

/// Runs a program to its end; what it says, or why it failed.
pub(crate) fn run(words: &[&str]) -> Result<String, Failed> {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| stopped(words[0], error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failed::Stopped(format!("`{}` ended with {}: {said}", words.join(" "), output.status)))
}
