//! What the kernel says of this process: its memory, processor time and open files.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};

/// One look at `/proc/self`. What cannot be read is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Process {
    /// Seconds of processor time, in the kernel's and its own code, of all threads.
    pub(super) cpu_seconds: f64,
    /// When it started, in seconds since 1970.
    pub(super) start_seconds: f64,
    /// Bytes of its memory that are in RAM, mapped log segments among them.
    pub(super) resident_bytes: u64,
    /// Bytes of its address space.
    pub(super) virtual_bytes: u64,
    /// Threads.
    pub(super) threads: u64,
    /// Files, sockets and rings that are open.
    pub(super) open_files: u64,
    /// So many may be.
    pub(super) open_files_max: u64,
}

/// The process's memory comes in pages of 4 KiB from now on, also where the kernel would give it 2 MiB at a time: it clears, and on a busy
/// machine first has to collect, each of those at once, while a core waits for it (docs/decisions/0022). What this process
/// starts inherits it.
pub(super) fn use_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "memory may come in huge pages, and growth stall writes for milliseconds");
    }
}

impl Process {
    /// Looks. It costs some ten microseconds, and one more for each ten open files.
    pub(super) fn look() -> Self {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let since_boot = uptime.split(' ').next().and_then(|text| text.parse().ok());
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let booted = since_1970.as_secs_f64() - since_boot.unwrap_or(0.0);
        Self {
            // Looking is a file itself.
            open_files: fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64 - 1),
            open_files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            ..Self::read_stat(booted)
        }
    }

    fn read_stat(booted: f64) -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self::of_stat(&stat, booted).unwrap_or_default()
    }

    /// What `/proc/self/stat` says (proc_pid_stat(5)), on a machine that booted then.
    fn of_stat(stat: &str, booted: f64) -> Option<Self> {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        // The second field is the program's name in parentheses, and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
            threads: field(20)?,
            start_seconds: booted + field(22)? as f64 / ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * rustix::param::page_size() as u64,
            ..Self::default()
        })
    }
}

/// Bytes of this process's memory that are in RAM. Cheaper than a look at all.
pub(super) fn resident_bytes() -> u64 {
    Process::read_stat(0.0).resident_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let before = Process::look();
        let held = [fs::File::open("/proc/self/stat"), fs::File::open("/proc/self/stat")];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let it = Process::look();
        assert!(held.iter().all(Result::is_ok));
        assert!(1 << 20 < it.resident_bytes && it.resident_bytes < it.virtual_bytes, "{it:?}");
        assert!((1 << 20..it.virtual_bytes).contains(&resident_bytes()));
        assert!(1 <= it.threads && 3 < it.open_files && it.open_files < it.open_files_max);
        assert!(before.cpu_seconds <= it.cpu_seconds);
        assert!(1.6e9 < it.start_seconds && it.start_seconds <= now + 1.0, "{it:?} at {now}");
    }

    #[test]
    fn a_name_with_parentheses_is_a_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 8 0 1000 4096 7 20";
        let it = Process::of_stat(&format!("42 (a) b (c)) {rest}"), 1e9).expect("whole");
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!((it.cpu_seconds, it.start_seconds), (300.0 / ticks, 1e9 + 1000.0 / ticks));
        assert_eq!((it.threads, it.virtual_bytes), (8, 4096));
        assert_eq!(it.resident_bytes, 7 * rustix::param::page_size() as u64);
        assert_eq!(Process::of_stat("42 (a) S 1 2", 0.0), None);
        assert_eq!(Process::of_stat("", 0.0), None);
    }
}
