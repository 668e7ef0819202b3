//! What was mounted, laid over a file, or started, is undone however the rig ends.
//!
//! Values undo what they did when they are dropped, also in a panic. A signal drops nothing, so what is to
//! be undone is written down here as well, and whoever catches the signal undoes it, the latest first.
//! What a SIGKILL leaves behind is found and removed by the next run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::machine::{Failed, run, stopped};

/// What is to be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Undo {
    /// Kill the process.
    Process(u32),
    /// Unmount the folder.
    Mount(PathBuf),
    /// Detach the loop device.
    Loop(String),
    /// Remove the network namespace.
    Namespace(String),
    /// Remove the network interface.
    Link(String),
    /// Unmount the folder that `ip netns` made for the names of namespaces, unless others have some there.
    Names(&'static str),
}

static OPEN: Mutex<Vec<Undo>> = Mutex::new(Vec::new());

/// Writes down what was just done.
pub(crate) fn note(undo: Undo) {
    OPEN.lock().expect("no holder of this lock panics").push(undo);
}

/// It was undone.
pub(crate) fn done(undo: &Undo) {
    OPEN.lock().expect("no holder of this lock panics").retain(|open| open != undo);
}

/// Takes a folder for this run: two in one would unmount each other's disks. It is given back when the
/// file is dropped.
pub(crate) fn claim(folder: &Path) -> Result<File, Failed> {
    let path = folder.with_extension("lock");
    let opened =
        path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&path));
    let file = opened.map_err(|error| stopped(path.display(), error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(error) => Err(stopped(format!("another run uses {}", folder.display()), error)),
    }
}

/// Ctrl-C and SIGTERM undo everything and end this process.
pub(crate) fn on_signals() -> Result<(), Failed> {
    let signals = Signals::new([SIGINT, SIGTERM]);
    let mut signals = signals.map_err(|error| stopped("signals", error))?;
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("signal {signal}: cleaning up");
            undo_all();
            std::process::exit(128 + signal);
        }
    };
    let spawned = thread::Builder::new().name("signals".into()).spawn(wait);
    spawned.map(drop).map_err(|error| stopped("a thread for signals", error))
}

/// Undoes it now.
pub(crate) fn undo(undo: &Undo) {
    undo_one(undo);
    done(undo);
}

fn undo_all() {
    // The lock is kept: nothing new is begun meanwhile.
    let open = OPEN.lock().expect("no holder of this lock panics");
    let processes = |undo: &&Undo| matches!(undo, Undo::Process(_));
    let (processes, rest): (Vec<&Undo>, Vec<&Undo>) = open.iter().rev().partition(processes);
    for undo in processes.into_iter().chain(rest) {
        undo_one(undo);
    }
}

fn undo_one(undo: &Undo) {
    // There is nobody left to tell if it fails.
    let _ = match undo {
        Undo::Process(pid) => run(&["kill", "-9", &pid.to_string()]),
        Undo::Mount(path) => run(&["umount", "-l", &path.to_string_lossy()]),
        Undo::Loop(device) => run(&["losetup", "-d", device]),
        Undo::Namespace(name) => run(&["ip", "netns", "del", name]),
        Undo::Link(name) => run(&["ip", "link", "del", name]),
        Undo::Names(folder) => run(&["umount", folder]),
    };
}

/// Removes mounts and loop devices below a folder, which an earlier run left there.
pub(crate) fn sweep(folder: &Path) {
    let Ok(folder) = folder.canonicalize() else { return };
    // The loop devices are looked for first: unmounting takes their files' paths away.
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let devices = devices.filter(|device| {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        Path::new(file.trim()).starts_with(&folder)
    });
    let devices = devices.map(|device| format!("/dev/{}", device.file_name().to_string_lossy()));
    let devices: Vec<String> = devices.collect();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = |path: &&str| Path::new(path).starts_with(&folder);
    for path in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(below) {
        eprintln!("an earlier run left {path} mounted: unmounting it");
        undo_one(&Undo::Mount(path.into()));
    }
    for device in devices {
        eprintln!("an earlier run left {device} attached: detaching it");
        undo_one(&Undo::Loop(device));
    }
}
