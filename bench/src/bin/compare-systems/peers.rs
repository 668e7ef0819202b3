//! Where the compared programs are. One that is missing is installed by its package's name, or is an
//! error that names it: a comparison without a peer is none.

use crate::machine::said;
use crate::measure::Lab;
use crate::suite::System;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian keeps jars.
const JARS: &str = "/usr/share/java";

/// Packages that together make a system, each with the program or file that shows it is there.
fn parts(system: System) -> &'static [(&'static str, &'static str)] {
    match system {
        System::Outrigger => &[],
        System::Etcd => &[("etcd-server", "etcd")],
        System::Redis => &[("redis-server", "redis-server")],
        System::Zookeeper => {
            &[("default-jre-headless", "java"), ("zookeeper", "/usr/share/java/zookeeper.jar")]
        }
    }
}

/// Makes sure that a system can be started.
pub(crate) fn require(system: System) -> Result<(), String> {
    let is_root = rustix::process::geteuid().is_root();
    for (package, shown_by) in parts(system) {
        require_part(system, package, shown_by, is_root)?;
    }
    Ok(())
}

fn require_part(
    system: System,
    package: &str,
    shown_by: &str,
    is_root: bool,
) -> Result<(), String> {
    if is_there(shown_by) {
        return Ok(());
    }
    let missing = format!("{} is missing ({shown_by})", system.name());
    if !is_root {
        return Err(format!("{missing}; install the package {package}: apt-get install {package}"));
    }
    eprintln!("compare: {missing}; installing the package {package}");
    // The second time with fresh lists: an image often comes without any.
    for update in [false, true] {
        if update {
            let _ = apt_get(&["update"]);
        }
        if apt_get(&["install", "--yes", "--no-install-recommends", package]) && is_there(shown_by)
        {
            return Ok(());
        }
    }
    Err(format!("{missing}, and the package {package} could not be installed"))
}

fn apt_get(arguments: &[&str]) -> bool {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // To invoke-rc.d: the machine is not at a level where services start.
        .env("RUNLEVEL", "1")
        .stdout(std::process::Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// A file by its path, or a program by its name in `PATH`.
fn is_there(name: &str) -> bool {
    if name.starts_with('/') {
        return Path::new(name).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// What Java is given to find ZooKeeper. The jar's own manifest names everything it needs but a place
/// for the log: the first of slf4j's that is there.
pub(crate) fn zookeeper_class_path() -> String {
    class_path_in(Path::new(JARS))
}

fn class_path_in(jars: &Path) -> String {
    let mut found: Vec<PathBuf> = vec![jars.join("zookeeper.jar")];
    let log = ["slf4j-simple.jar", "slf4j-jdk14.jar", "slf4j-nop.jar"];
    found.extend(log.iter().map(|name| jars.join(name)).find(|jar| jar.exists()));
    let names: Vec<_> = found.iter().map(|jar| jar.to_string_lossy()).collect();
    names.join(":")
}

/// The version of a system, and what was set.
pub(crate) fn version(system: System, lab: &Lab) -> String {
    let first_line = |text: Option<String>| {
        text.and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or("unknown".into())
    };
    match system {
        System::Outrigger => {
            let version = first_line(said(&lab.outrigger.to_string_lossy(), &["--version"]));
            match lab.up_args.is_empty() {
                true => version,
                false => format!("{version}, `{}`", lab.up_args.join(" ")),
            }
        }
        System::Etcd => format!(
            "{}; defaults, and a quota of 8 GiB so that 64 KiB values fit",
            first_line(said("etcd", &["--version"]))
        ),
        System::Zookeeper => {
            let package = ["--show", "--showformat=${Version}", "zookeeper"];
            format!(
                "ZooKeeper {}, {}; -Xmx1g, forceSync=yes (the default), log and data on this filesystem",
                first_line(said("dpkg-query", &package)),
                first_line(said("java", &["--version"])),
            )
        }
        System::Redis => {
            let version = first_line(said("redis-server", &["--version"]));
            let version: Vec<&str> = version.split_whitespace().take(3).collect();
            format!(
                "{}; one copy, appendonly yes, appendfsync always, no rewriting",
                version.join(" ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_peer_is_an_error_that_names_its_package() {
        let problem = require_part(System::Etcd, "etcd-server", "/no/such/etcd", false);
        let problem = problem.expect_err("it is missing");
        assert!(problem.contains("etcd is missing"), "{problem}");
        assert!(problem.contains("apt-get install etcd-server"), "{problem}");
        assert!(require_part(System::Etcd, "etcd-server", "/proc/self/stat", false).is_ok());
    }

    #[test]
    fn programs_are_looked_for_where_the_shell_looks() {
        assert!(is_there("sh") && !is_there("no-such-program-anywhere"));
    }

    #[test]
    fn the_class_path_has_zookeeper_and_one_log() {
        let jars = std::env::temp_dir().join(format!("compare-jars-{}", std::process::id()));
        std::fs::create_dir_all(&jars).expect("a directory");
        let at = |name: &str| jars.join(name).to_string_lossy().into_owned();
        assert_eq!(class_path_in(&jars), at("zookeeper.jar"));
        for name in ["slf4j-nop.jar", "slf4j-simple.jar"] {
            std::fs::write(jars.join(name), "").expect("a file");
        }
        assert_eq!(
            class_path_in(&jars),
            format!("{}:{}", at("zookeeper.jar"), at("slf4j-simple.jar"))
        );
        std::fs::remove_dir_all(&jars).expect("it is ours");
    }
}
