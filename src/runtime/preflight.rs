//! What a node needs from the machine, checked before it starts: each refusal says what is missing,
//! why it is needed, and the remedy.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::Config;
use crate::limits;

use super::fatal::Fatal;
use super::private;

/// Memory each core's rings lock, in bytes; glommio refuses to start with less.
const MEMLOCK_PER_CORE: u64 = 512 << 10;

/// Checks everything; raises soft limits to what the hard limits allow. Returns how many clients may
/// connect.
///
/// # Errors
/// The first thing that is missing.
pub fn check(config: &Config) -> Result<usize, Fatal> {
    io_uring()?;
    memlock(config.cores)?;
    let connections = open_files(config.max_clients)?;
    direct_io(&config.dir)?;
    space(config)?;
    Ok(connections)
}

pub(super) fn io_uring() -> Result<(), Fatal> {
    // The kernel says so itself where the setting exists (Linux 6.6 and later); an older one that
    // lacks io_uring is named by glommio when the first core starts.
    let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match setting.trim() {
        "2" => Err(Fatal::new(
            "io_uring is switched off on this machine (kernel.io_uring_disabled = 2); the node does all its I/O through it. Remedy: sysctl kernel.io_uring_disabled=0",
        )),
        "1" if !rustix::process::geteuid().is_root() => Err(Fatal::new(
            "io_uring is reserved to privileged processes (kernel.io_uring_disabled = 1). Remedy: run as root, join the group of kernel.io_uring_group, or sysctl kernel.io_uring_disabled=0",
        )),
        _ => Ok(()),
    }
}

/// Raises a soft limit as far as needed and allowed; what it is then, if limited at all.
fn raised(resource: Resource, needed: u64) -> Option<u64> {
    let mut limit = getrlimit(resource);
    let current = limit.current?;
    if current >= needed {
        return Some(current);
    }
    limit.current = Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed)));
    let _ = setrlimit(resource, limit);
    getrlimit(resource).current
}

pub(super) fn memlock(cores: u16) -> Result<(), Fatal> {
    let needed = MEMLOCK_PER_CORE * u64::from(cores);
    match raised(Resource::Memlock, needed) {
        Some(have) if have < needed => Err(Fatal::new(format!(
            "lockable memory is limited to {} KiB, and {cores} cores need {} KiB for their io_uring buffers. Remedy: ulimit -l {}, or LimitMEMLOCK= in the systemd unit",
            have >> 10,
            needed >> 10,
            needed >> 10,
        ))),
        _ => Ok(()),
    }
}

/// Descriptors kept for everything but clients: logs, links, rings, maps.
const FILES_RESERVED: u64 = 256;

/// How many clients the limit of open files leaves room for. Never reaching that limit matters: a
/// core cannot sleep, open a segment or dial a peer without a descriptor.
pub(super) fn open_files(clients_max: usize) -> Result<usize, Fatal> {
    let needed = clients_max as u64 + FILES_RESERVED;
    let Some(have) = raised(Resource::Nofile, needed).filter(|have| *have < needed) else {
        return Ok(clients_max);
    };
    let remedy = format!("Remedy: ulimit -n {needed}, or LimitNOFILE= in the systemd unit");
    let Some(clients) = have.checked_sub(FILES_RESERVED).filter(|clients| *clients > 0) else {
        return Err(Fatal::new(format!(
            "open files are limited to {have}, and a node needs more than {FILES_RESERVED}. {remedy}"
        )));
    };
    tracing::warn!(
        "open files are limited to {have}: at most {clients} clients can connect. {remedy}"
    );
    Ok(clients as usize)
}

/// One aligned block, written past the page cache as the log will be.
pub(super) fn direct_io(dir: &Path) -> Result<(), Fatal> {
    private::create_dir_all(dir)
        .map_err(|error| Fatal::new(format!("cannot create {}: {error}", dir.display())))?;
    let path = dir.join("preflight.tmp");
    let flag = rustix::fs::OFlags::DIRECT.bits() as i32;
    let opened =
        private::file().create(true).truncate(true).write(true).custom_flags(flag).open(&path);
    let result = opened.and_then(|mut file| {
        // Over-allocate so that an aligned block lies inside.
        let memory = vec![0u8; 2 * limits::BLOCK_BYTES];
        let skip = memory.as_ptr().align_offset(limits::BLOCK_BYTES);
        file.write_all(&memory[skip..skip + limits::BLOCK_BYTES])
    });
    let _ = fs::remove_file(&path);
    if let Err(error) = &result
        && error.kind() == std::io::ErrorKind::StorageFull
        && has_log(dir)
    {
        return Ok(());
    }
    result.map_err(|error| match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::INVAL) => Fatal::new(format!(
            "the filesystem of {} does not accept O_DIRECT, which the log needs. Remedy: put --dir on ext4 or xfs",
            dir.display()
        )),
        _ => Fatal::new(format!("cannot write in {}: {error}", dir.display())),
    })
}

/// A node that starts on a full disk could not write its first record; one that has a log already
/// may start and serve reads.
fn space(config: &Config) -> Result<(), Fatal> {
    if has_log(&config.dir) {
        return Ok(());
    }
    let Ok(stat) = rustix::fs::statvfs(&config.dir) else { return Ok(()) };
    let have = stat.f_bavail.saturating_mul(stat.f_frsize);
    let needed =
        ((limits::SPARE_SEGMENTS + 1) * limits::SEGMENT_BYTES) as u64 * u64::from(config.cores);
    if have < needed {
        return Err(Fatal::new(format!(
            "{} has {} MiB free, and a new node of {} cores needs {} MiB for its first log segments. Remedy: free space, or another --dir",
            config.dir.display(),
            have >> 20,
            config.cores,
            needed >> 20,
        )));
    }
    Ok(())
}

fn has_log(dir: &Path) -> bool {
    dir.join("identity.toml").exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::scratch::Scratch;

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let scratch = Scratch::new("preflight");
        let file = scratch.path().join("file");
        fs::write(&file, b"x").expect("written");
        let refusal = direct_io(&file.join("below")).expect_err("refused").to_string();
        assert!(refusal.starts_with("cannot create "), "{refusal}");
        direct_io(&scratch.path().join("below")).expect("a plain directory is fine");
    }

    #[test]
    fn locked_memory_is_named_with_the_remedy() {
        let have = getrlimit(Resource::Memlock).maximum;
        let result = memlock(u16::MAX);
        match have {
            Some(have) if have < MEMLOCK_PER_CORE * u64::from(u16::MAX) => {
                let refusal = result.expect_err("refused").to_string();
                assert!(refusal.contains("Remedy: ulimit -l "), "{refusal}");
            }
            _ => result.expect("no limit, nothing to refuse"),
        }
    }
}
