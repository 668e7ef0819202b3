//! What a record says about where it was made.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Name and value, in the record's order.
pub(crate) type Facts = Vec<(&'static str, String)>;

/// A block device and the filesystem on it.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// As `/proc/diskstats` names it.
    pub(crate) name: String,
    /// As `mount` names it, with its options.
    pub(crate) filesystem: String,
}

/// What a program prints, without the last line end; `None` if it fails or prints nothing.
pub(crate) fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The device under a directory.
pub(crate) fn device_of(dir: &Path) -> Result<Device, String> {
    let path = dir.to_string_lossy();
    let ask = |column| said("findmnt", &["-no", column, "-T", &path]);
    let unknown = || format!("findmnt does not know what {path} is on");
    let source = ask("SOURCE").ok_or_else(unknown)?;
    // A bind mount or a subvolume is written as DEVICE[/FOLDER].
    let source = source.split('[').next().unwrap_or(&source);
    let real = fs::canonicalize(source).map_err(|_| unknown())?;
    let name = real.file_name().ok_or_else(unknown)?.to_string_lossy().into_owned();
    let known = fs::read_to_string("/proc/diskstats").unwrap_or_default();
    if !known.lines().any(|line| line.split_whitespace().nth(2) == Some(&name)) {
        return Err(format!("{path} is on {source}, which is no block device"));
    }
    let options = ask("OPTIONS").unwrap_or_default();
    Ok(Device { name, filesystem: format!("{} ({options})", ask("FSTYPE").unwrap_or_default()) })
}

/// Commit, machine, kernel, filesystem.
pub(crate) fn read(device: &Device) -> Facts {
    let unknown = || "unknown".to_owned();
    let commit = said("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(unknown);
    let changes = said("git", &["status", "--porcelain", "--untracked-files=no"]);
    let file = |path| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field(&file("/proc/cpuinfo"), "model name").unwrap_or_else(unknown);
    let memory = field(&file("/proc/meminfo"), "MemTotal").and_then(|total| {
        let kib: f64 = total.split_whitespace().next()?.parse().ok()?;
        Some(format!("{:.1} GiB", kib / f64::from(1 << 20)))
    });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let host = file("/proc/sys/kernel/hostname");
    vec![
        ("commit", format!("{commit}{}", changes.map_or("", |_| ", with local changes"))),
        (
            "machine",
            format!("{}, {cores} × {model}, {}", host.trim(), memory.unwrap_or_else(unknown)),
        ),
        ("kernel", said("uname", &["-sr"]).unwrap_or_else(unknown)),
        ("filesystem", format!("{} on {}", device.filesystem, device.name)),
        ("write cache", write_cache(&device.name)),
    ]
}

/// What the kernel believes about the device's cache, and so whether it sends flushes at all.
fn write_cache(device: &str) -> String {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/sys/block/{device}/queue/{name}"));
        text.map_or("unknown".into(), |text| text.trim().to_owned())
    };
    format!("{}; FUA {}", read("write_cache"), read("fua"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_where_it_was_made() {
        let device = Device { name: "none0".into(), filesystem: "ext4 (rw)".into() };
        let facts = read(&device);
        let fact = |name| &facts.iter().find(|(known, _)| *known == name).expect("a fact").1;
        assert!(fact("kernel").starts_with("Linux "));
        assert!(fact("machine").contains("GiB"));
        assert_eq!(fact("filesystem"), "ext4 (rw) on none0");
        assert_eq!(fact("write cache"), "unknown; FUA unknown");
    }

    #[test]
    fn a_program_that_fails_said_nothing() {
        assert_eq!(said("echo", &["a", "b"]), Some("a b".into()));
        assert_eq!(said("false", &[]), None);
        assert_eq!(said("no-such-program-anywhere", &[]), None);
        assert!(device_of(Path::new("/proc/self")).is_err());
    }
}
