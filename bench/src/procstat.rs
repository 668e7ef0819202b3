//! What the servers cost: their CPU time and their writes, from `/proc`.
//!
//! ```text
//! /proc/PID/stat     fields 14 and 15: user and system time, in clock ticks (10 ms)
//! /proc/PID/io       write_bytes: bytes this process caused to be sent to the disk
//! /proc/diskstats    of the device: field 7 after its name, sectors of 512 bytes written, by anyone;
//!                    field 16, flushes completed (kernel 5.5 and later)
//! ```
//!
//! `write_bytes` counts a buffered page when it is first dirtied and a direct write when it is
//! submitted. The journal's own blocks appear only in the device's numbers, which in turn include
//! every other process. Together they bound the truth.
//!
//! A flush is counted when the block layer sends one to the device. Flushes that wait at the same time
//! are sent as one, and a write with FUA is sent as a write and a flush after it when the device has no
//! FUA of its own, as virtio disks have not: what is counted is what the device was asked for.

use std::fs;

/// What to watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probe {
    /// Server processes.
    pub(crate) pids: Vec<u32>,
    /// Block device, as `/proc/diskstats` names it.
    pub(crate) device: Option<String>,
}

/// Counters at one moment; differences of two snapshots are what is reported.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// CPU time of all processes, in microseconds.
    pub(crate) cpu_us: Option<f64>,
    /// `write_bytes` of all processes.
    pub(crate) write_bytes: Option<u64>,
    /// Bytes written to the device.
    pub(crate) device_bytes: Option<u64>,
    /// Flushes of the device; `None` also where the kernel does not count them.
    pub(crate) device_flushes: Option<u64>,
}

impl Probe {
    /// Reads the counters now, or says which could not be read.
    pub(crate) fn read(&self) -> Result<Snapshot, String> {
        let mut snapshot = Snapshot::default();
        if !self.pids.is_empty() {
            let (mut cpu_us, mut write_bytes) = (0.0, 0);
            for &pid in &self.pids {
                cpu_us += cpu_us_of(&pid.to_string())?;
                write_bytes += parse_write_bytes(&read(&format!("/proc/{pid}/io"))?)
                    .ok_or_else(|| format!("/proc/{pid}/io has no write_bytes"))?;
            }
            snapshot.cpu_us = Some(cpu_us);
            snapshot.write_bytes = Some(write_bytes);
        }
        if let Some(device) = &self.device {
            let diskstats = read("/proc/diskstats")?;
            let bytes = parse_device_bytes(&diskstats, device)
                .ok_or_else(|| format!("/proc/diskstats has no device '{device}'"))?;
            snapshot.device_bytes = Some(bytes);
            snapshot.device_flushes = parse_device_field(&diskstats, device, 16);
        }
        Ok(snapshot)
    }
}

impl Snapshot {
    /// What was added since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_us: self.cpu_us.zip(earlier.cpu_us).map(|(now, then)| now - then),
            write_bytes: self
                .write_bytes
                .zip(earlier.write_bytes)
                .map(|(now, then)| now.saturating_sub(then)),
            device_bytes: self
                .device_bytes
                .zip(earlier.device_bytes)
                .map(|(now, then)| now.saturating_sub(then)),
            device_flushes: self
                .device_flushes
                .zip(earlier.device_flushes)
                .map(|(now, then)| now.saturating_sub(then)),
        }
    }
}

/// CPU time of this process, the generator itself, in microseconds.
pub(crate) fn own_cpu_us() -> Option<f64> {
    cpu_us_of("self").ok()
}

fn cpu_us_of(pid: &str) -> Result<f64, String> {
    let path = format!("/proc/{pid}/stat");
    let ticks =
        parse_cpu_ticks(&read(&path)?).ok_or_else(|| format!("{path} is not as expected"))?;
    Ok(ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64)
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{path}: there is no such process"),
        std::io::ErrorKind::PermissionDenied => {
            format!("{path}: not ours to read; run as the server's user or as root")
        }
        _ => format!("{path}: {error}"),
    })
}

fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    // The command's name, field 2, may hold spaces and brackets; the last `)` ends it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn parse_write_bytes(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

fn parse_device_bytes(diskstats: &str, device: &str) -> Option<u64> {
    Some(parse_device_field(diskstats, device, 7)? * 512)
}

/// Field `field` after the device's name, counted from 1 as the kernel's documentation does.
fn parse_device_field(diskstats: &str, device: &str, field: usize) -> Option<u64> {
    let mut fields = diskstats
        .lines()
        .map(str::split_ascii_whitespace)
        .find(|fields| fields.clone().nth(2) == Some(device))?;
    fields.nth(2 + field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_are_read_by_field() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 100 0 0 0 31 11 0 0 20 0 1 0 5 1 2";
        assert_eq!(parse_cpu_ticks(stat), Some(42));
        let io = "rchar: 1\nwchar: 2\nread_bytes: 3\nwrite_bytes: 4096\ncancelled_write_bytes: 9\n";
        assert_eq!(parse_write_bytes(io), Some(4096));
        let disks =
            " 254 0 vda 65 24 44 18 60 22 1578560 37 0 13 23\n 254 1 vda1 1 1 1 1 1 1 8 1\n";
        assert_eq!(parse_device_bytes(disks, "vda"), Some(1_578_560 * 512));
        assert_eq!(parse_device_bytes(disks, "vda1"), Some(8 * 512));
        assert_eq!(parse_device_bytes(disks, "sda"), None);
        let disks = " 254 0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n";
        assert_eq!(parse_device_field(disks, "vda", 16), Some(16));
        assert_eq!(parse_device_field(" 254 0 vda 1 2 3 4 5 6 7 8 9 10 11\n", "vda", 16), None);
    }

    #[test]
    fn our_own_process_can_be_watched_and_a_missing_one_is_named() {
        let probe = Probe { pids: vec![std::process::id()], device: None };
        assert!(probe.read().unwrap().cpu_us.is_some());
        let missing = Probe { pids: vec![u32::MAX], device: None };
        assert!(missing.read().unwrap_err().contains("no such process"));
    }
}
