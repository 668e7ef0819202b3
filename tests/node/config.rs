//! Flags and the configuration file: what is wrong is named, with its file; what is right can be
//! printed and fed back.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::cluster::{OUTRIGGER, TestDir};
use crate::wait::wait_for;

/// Runs a command that must end by itself; one that does not is killed and fails the test.
pub(crate) fn run(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = KillOnDrop(Some(command.spawn().expect("the server starts")));
    wait_for("the command ends by itself", || {
        child.0.as_mut().expect("not taken").try_wait().expect("a child")
    });
    child.0.take().expect("not taken").wait_with_output().expect("its output")
}

struct KillOnDrop(Option<std::process::Child>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn serve(arguments: &[&str]) -> Output {
    run(Command::new(OUTRIGGER).arg("serve").args(arguments))
}

fn file(dir: &TestDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).expect("written");
    path
}

/// What every node must be told.
const BASE: &str = r#"
id = 1
dir = "never-made"
client = "127.0.0.1:1"
peer = "127.0.0.1:2"
peers = { 1 = "127.0.0.1:2" }
"#;

#[test]
fn print_config_can_be_fed_back() {
    let dir = TestDir::new("config");
    let flags = [
        "--id",
        "2",
        "--dir",
        "some dir/with \"quotes\"",
        "--client",
        "127.0.0.1:7001",
        "--peer",
        "127.0.0.1:7101",
        "--peers",
        "1=127.0.0.1:7100,2=127.0.0.1:7101,3=[::1]:7102",
        "--cores",
        "2",
        "--groups",
        "33",
        "--election-ms",
        "700",
        "--heartbeat-ms",
        "70",
        "--request-ms",
        "1234",
        "--flushes-in-flight",
        "3",
        "--spin-us",
        "15",
        "--log-cache-bytes",
        "16777216",
        "--wal-max-bytes",
        "1073741824",
        "--cluster",
        "another-name",
        "--admin",
        "127.0.0.1:9",
    ];
    let mut with_print = flags.to_vec();
    with_print.push("--print-config");
    let printed = serve(&with_print);
    assert!(printed.status.success(), "{printed:?}");
    let text = String::from_utf8(printed.stdout).expect("UTF-8");
    assert!(text.contains('#'), "with comments");
    let path = file(&dir, "printed.toml", &text);
    let path = path.to_str().expect("UTF-8");
    let again = serve(&["--config", path, "--print-config"]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(String::from_utf8_lossy(&again.stdout), text, "the same effective configuration");

    // Flags override the file.
    let other = serve(&["--config", path, "--request-ms", "4321", "--print-config"]);
    let other = String::from_utf8_lossy(&other.stdout).into_owned();
    assert_eq!(other, text.replace("1234", "4321"));
}

#[test]
fn defaults_are_those_of_the_help() {
    let dir = TestDir::new("defaults");
    let path = file(&dir, "base.toml", BASE);
    let printed = serve(&["--config", path.to_str().expect("UTF-8"), "--print-config"]);
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    for line in [
        "cores = 1",
        "groups = 16",
        "election_ms = 1000",
        "heartbeat_ms = 100",
        "request_ms = 2500",
        "flushes_in_flight = 2",
        "flush_method = \"auto\"",
        "spin_us = 0",
        "log_cache_bytes = 134217728",
        "log_bytes = 1073741824",
        "checkpoint_ms = 5000",
        "slowlog_us = 10000",
        "wal_bytes_max = 0",
        "cluster = \"outrigger\"",
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line} is not in\n{text}");
    }
    assert!(!std::path::Path::new("never-made").exists(), "printing makes nothing");
    // Derived: a tenth of election_ms.
    let path = path.to_str().expect("UTF-8");
    let printed = serve(&["--config", path, "--election-ms", "3000", "--print-config"]);
    assert!(String::from_utf8_lossy(&printed.stdout).contains("\nheartbeat_ms = 300\n"));
}

#[test]
fn a_mistake_in_the_file_names_the_file_and_the_key() {
    let dir = TestDir::new("mistakes");
    // what is appended to a good file, and what the message must name
    let mistakes: &[(&str, &str)] = &[
        ("no_such_key = 1", "no_such_key"),
        ("groups = 0", "groups"),
        ("groups = 16385", "groups"),
        ("groups = \"many\"", "groups"),
        ("cores = 0", "cores"),
        ("cores = -1", "cores"),
        ("election_ms = 49", "election_ms"),
        ("heartbeat_ms = 999999", "heartbeat_ms"),
        ("request_ms = 1", "request_ms"),
        ("flushes_in_flight = 5", "flushes_in_flight"),
        ("checkpoint_ms = 600001", "checkpoint_ms"),
        ("slowlog_us = 60000001", "slowlog_us"),
        ("flush_method = \"hope\"", "flush_method"),
        ("log_cache_bytes = 1", "log_cache_bytes"),
        ("log_bytes = 1", "log_bytes"),
        ("wal_bytes_max = 1", "wal_bytes_max"),
        ("admin = \"nowhere\"", "admin"),
        ("id = 3", "id"),
        ("groups 5", "groups"),
    ];
    for (number, (line, key)) in mistakes.iter().enumerate() {
        let name = format!("mistake-{number}.toml");
        let path = file(&dir, &name, &format!("{BASE}{line}\n"));
        let output = serve(&["--config", path.to_str().expect("UTF-8")]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2), "`{line}`: {stderr}");
        assert!(stderr.contains(key), "`{line}`: the message names {key}: {stderr}");
        assert!(stderr.contains(&name), "`{line}`: the message names the file: {stderr}");
        assert!(!stderr.contains("panicked"), "`{line}`: {stderr}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let dir = TestDir::new("missing");
    for key in ["id", "dir", "client", "peer", "peers"] {
        let without: Vec<&str> =
            BASE.lines().filter(|line| !line.starts_with(&format!("{key} ="))).collect();
        let path = file(&dir, "without.toml", &without.join("\n"));
        let output = serve(&["--config", path.to_str().expect("UTF-8")]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2), "without {key}: {stderr}");
        assert!(stderr.contains(&format!("`{key}`")), "without {key}: {stderr}");
    }
}

#[test]
fn a_file_that_cannot_be_read() {
    let dir = TestDir::new("unreadable");
    let is_a_folder = dir.path().to_str().expect("UTF-8");
    let is_missing = dir.path().join("missing.toml");
    let is_binary = dir.path().join("binary.toml");
    fs::write(&is_binary, [0xff, 0xfe, 0, 1]).expect("written");
    for path in
        [is_a_folder, is_missing.to_str().expect("UTF-8"), is_binary.to_str().expect("UTF-8")]
    {
        let output = serve(&["--config", path]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2), "{path}: {stderr}");
        assert!(stderr.contains(path), "the message names {path}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    }
}

#[test]
fn a_flag_that_is_wrong_is_named() {
    let dir = TestDir::new("flags");
    // A place for a node that is started although it should not be.
    let node = dir.path().join("node").display().to_string();
    let good = ["--id", "1", "--dir", &node, "--client", "127.0.0.1:1", "--peer", "127.0.0.1:2"];
    // flags, and what the message must name
    let mistakes: &[(&[&str], &str)] = &[
        (&["--peers", "1=127.0.0.1:2", "--groups", "0"], "groups"),
        (&["--peers", "1=127.0.0.1:2", "--groups", "x"], "--groups"),
        (&["--peers", "2=127.0.0.1:2"], "peers"),
        (&["--peers", "1=127.0.0.1:2,1=127.0.0.1:3"], "peers"),
        (&["--peers", "nonsense"], "peers"),
        (&["--peers", "1=127.0.0.1:2", "--no-such-flag"], "--no-such-flag"),
    ];
    for (flags, name) in mistakes {
        let arguments: Vec<&str> = good.iter().chain(*flags).copied().collect();
        let output = serve(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2), "{flags:?}: {stderr}");
        assert!(stderr.contains(name), "{flags:?}: the message names {name}: {stderr}");
        assert!(!stderr.contains("panicked"), "{flags:?}: {stderr}");
    }
}

#[test]
fn doctor_measures_a_directory_and_leaves_nothing_there() {
    let dir = TestDir::new("doctor");
    let place = dir.path().join("place");
    let output = run(Command::new(OUTRIGGER).arg("doctor").arg(&place));
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{page}{}", String::from_utf8_lossy(&output.stderr));
    let of = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{page}")).trim().to_owned()
    };
    assert!(["dsync", "fdatasync"].contains(&of("flush method").as_str()), "{page}");
    assert!(of("4 KiB durable, dsync").starts_with("p50 "), "{page}");
    assert!(of("4 KiB durable, fdatasync").contains(" µs, p99 "), "{page}");
    assert!(of("directory").ends_with("/place"), "{page}");
    assert!(!place.exists(), "it was made to look at, and is gone");
    let output = run(Command::new(OUTRIGGER).args(["doctor", "--cores", "0"]).arg(&place));
    assert_eq!(output.status.code(), Some(2), "{output:?}");

    let file = file(&dir, "file", "");
    let output = run(Command::new(OUTRIGGER).arg("doctor").arg(file.join("below")));
    assert_eq!(output.status.code(), Some(1));
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(page.contains("OBSTACLE"), "{page}");
}
