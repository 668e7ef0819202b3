//! One node's disk, from the fault disk up to a mounted ext4.
//!
//! ```text
//!   outrigger ──O_DIRECT, fdatasync──► ext4 ──► /dev/loopN ──► FUSE: FOLDER/disk ──► Disk, in this process
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption};
use tools::rounds::cluster::{now, pause};

use crate::cleanup::{self, Undo};
use crate::disk::Disk;
use crate::fuse::{NAME, OneFile};
use crate::image::Image;
use crate::machine::{Failed, run, stopped};

/// Requests of one disk that are served at the same time; those of a stalled disk wait here.
const THREADS: usize = 6;
/// A node that starts reads its whole log, and a large request costs little more than a small one.
const READ_AHEAD_SECTORS: &str = "8192";
/// How long the files of a killed process may stay open: io_uring outlives its process.
const BUSY: Duration = Duration::from_secs(20);

/// A disk and what is laid over it. Dropping it removes all of that.
pub(crate) struct Device {
    pub(crate) disk: Arc<Disk>,
    session: Option<BackgroundSession>,
    /// Where the file `disk` is.
    folder: PathBuf,
    /// Where ext4 is mounted.
    mount: PathBuf,
    looped: Option<String>,
    is_mounted: bool,
}

impl Device {
    /// A blank disk of so many bytes, without a file system.
    pub(crate) fn new(folder: &Path, mount: &Path, bytes: u64) -> Result<Self, Failed> {
        for path in [folder, mount] {
            fs::create_dir_all(path).map_err(|error| stopped(path.display(), error))?;
        }
        let absolute =
            |path: &Path| path.canonicalize().map_err(|error| stopped(path.display(), error));
        let (folder, mount) = (absolute(folder)?, absolute(mount)?);
        let disk = Arc::new(Disk::new(bytes));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("outrigger-power".into())];
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(OneFile::new(Arc::clone(&disk)), &folder, &config);
        let session = session.map_err(|error| stopped("cannot mount the fault disk", error))?;
        cleanup::note(Undo::Mount(folder.clone()));
        Ok(Self { disk, session: Some(session), folder, mount, looped: None, is_mounted: false })
    }

    /// Makes an empty ext4; what is on the disk then.
    pub(crate) fn format(&mut self) -> Result<Image, Failed> {
        let device = self.attach()?;
        let lazy = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
        run(&[
            "mkfs.ext4",
            "-q",
            "-F",
            "-E",
            lazy,
            "-J",
            "size=8",
            "-N",
            "512",
            "-m",
            "0",
            &device,
        ])?;
        self.detach()?;
        self.disk.sync().map_err(|fault| stopped("a new disk", format!("{fault:?}")))?;
        Ok(self.disk.durable())
    }

    fn attach(&mut self) -> Result<String, Failed> {
        let file = self.folder.join(NAME);
        let file = file.to_string_lossy();
        let device = run(&["losetup", "--find", "--show", "--direct-io=on", &file])?;
        cleanup::note(Undo::Loop(device.clone()));
        self.looped = Some(device.clone());
        run(&["blockdev", "--setra", READ_AHEAD_SECTORS, &device])?;
        Ok(device)
    }

    fn detach(&mut self) -> Result<(), Failed> {
        let Some(device) = self.looped.take() else { return Ok(()) };
        let detached = run(&["losetup", "-d", &device]);
        cleanup::done(&Undo::Loop(device));
        detached.map(drop)
    }

    /// Mounts what is on the disk, as a machine does that starts: ext4 replays its journal. If it refuses,
    /// e2fsck repairs it, as an operator would; whether that was needed.
    pub(crate) fn start(&mut self) -> Result<bool, Failed> {
        let device = self.attach()?;
        let mount = self.mount.to_string_lossy().into_owned();
        let words = ["mount", "-t", "ext4", &device, &mount];
        let repaired = run(&words).is_err();
        if repaired {
            // Its exit code says what it has repaired; the mount says whether that was enough.
            let _ = run(&["e2fsck", "-f", "-y", &device]);
            run(&words)?;
        }
        cleanup::note(Undo::Mount(self.mount.clone()));
        self.is_mounted = true;
        Ok(repaired)
    }

    /// Unmounts and detaches. Nobody uses the files any more, or will not for long.
    pub(crate) fn stop(&mut self) -> Result<(), Failed> {
        if self.is_mounted {
            let mount = self.mount.to_string_lossy().into_owned();
            let started = now();
            while let Err(error) = run(&["umount", &mount]) {
                if BUSY < started.elapsed() {
                    return Err(error);
                }
                pause(Duration::from_millis(5));
            }
            cleanup::done(&Undo::Mount(self.mount.clone()));
            self.is_mounted = false;
        }
        self.detach()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Whatever waits must end first, or nothing can be unmounted.
        self.disk.off();
        if self.is_mounted {
            let _ = run(&["umount", "-l", &self.mount.to_string_lossy()]);
            cleanup::done(&Undo::Mount(self.mount.clone()));
        }
        let _ = self.detach();
        if let Some(session) = self.session.take()
            && session.umount_and_join().is_err()
        {
            let _ = run(&["umount", "-l", &self.folder.to_string_lossy()]);
        }
        cleanup::done(&Undo::Mount(self.folder.clone()));
    }
}
