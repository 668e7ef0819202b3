//! One measurement: a system is started, filled, warmed up, measured and stopped; nothing of it stays.

use crate::Args;
use crate::machine::{self, Device};
use crate::peers;
use crate::processes::Processes;
use crate::suite::{Cell, System};
use crate::systems;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a system may take until it answers.
const READY: Duration = Duration::from_secs(60);
/// How long filling may take, beyond the times that are known.
const FILL: Duration = Duration::from_secs(180);
/// How often something is looked at that should happen.
const POLL: Duration = Duration::from_millis(100);

/// The figures of one run by name, as the load generator's JSON has them.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Where measurements are made.
#[derive(Debug)]
pub(crate) struct Lab {
    /// The server.
    pub(crate) outrigger: PathBuf,
    /// More arguments for `outrigger up`.
    pub(crate) up_args: Vec<String>,
    load: PathBuf,
    /// What all data is on.
    pub(crate) device: Device,
    /// First port.
    pub(crate) port: u16,
    /// Set by a signal.
    pub(crate) interrupted: Arc<AtomicBool>,
    /// How Outrigger says that it makes writes durable.
    pub(crate) flush_method: Option<String>,
    data: PathBuf,
    warmup_s: f64,
    duration_s: f64,
}

impl Lab {
    /// Checks that everything is there, and makes a directory for the data.
    pub(crate) fn new(
        args: &Args,
        systems: &[System],
        interrupted: Arc<AtomicBool>,
    ) -> Result<Self, String> {
        let this = std::env::current_exe().map_err(|error| format!("where are we? {error}"))?;
        let beside = this.parent().ok_or("this program is in no folder")?;
        let or_beside =
            |path: &Option<PathBuf>, name| path.clone().unwrap_or_else(|| beside.join(name));
        let outrigger = or_beside(&args.outrigger, "outrigger");
        let load = or_beside(&args.load, "bench");
        let mut programs = vec![(&load, "cargo build --release -p bench")];
        if systems.contains(&System::Outrigger) {
            programs.push((&outrigger, "cargo build --release"));
        }
        for (program, build) in programs {
            if !program.is_file() {
                return Err(format!("there is no {}; run: {build}", program.display()));
            }
        }
        for &system in systems {
            peers::require(system)?;
        }
        let parent = args.data.clone().unwrap_or_else(|| beside.to_owned());
        let data = parent.join(format!("compare-{}", std::process::id()));
        fs::create_dir_all(&data)
            .and_then(|()| fs::canonicalize(&data))
            .map_err(|error| format!("cannot make {}: {error}", data.display()))
            .and_then(|data| {
                Ok(Self {
                    outrigger,
                    up_args: args.up_arg.clone(),
                    load,
                    device: machine::device_of(&data)?,
                    port: args.port,
                    interrupted,
                    flush_method: None,
                    data,
                    warmup_s: args.warmup,
                    duration_s: args.duration,
                })
            })
    }

    /// Measures one cell against one system.
    pub(crate) fn measure(
        &mut self,
        system: System,
        cell: &Cell,
        rate_per_s: Option<f64>,
        seed: u64,
    ) -> Result<Figures, String> {
        let dir = self.data.join("run");
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let mut processes = Processes::new(&dir);
        let result = self
            .measure_in(system, cell, rate_per_s, seed, &dir, &mut processes)
            .map_err(|problem| format!("{problem}{}", processes.last_words()));
        processes.stop();
        fs::remove_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        result
    }

    fn measure_in(
        &mut self,
        system: System,
        cell: &Cell,
        rate_per_s: Option<f64>,
        seed: u64,
        dir: &Path,
        processes: &mut Processes,
    ) -> Result<Figures, String> {
        let addrs = systems::start(system, cell.members, self, dir, processes)?;
        self.await_answer(system, &addrs, dir, processes)?;
        systems::note_grandchildren(system, cell.members, dir, processes)?;
        let pids: Vec<String> = processes.pids().iter().map(u32::to_string).collect();
        let json = dir.join("load.json");
        let mut command = self.load(system, &addrs);
        command
            .args(["--connections", &cell.connections.to_string()])
            .args(["--pipeline", &cell.pipeline.to_string()])
            .args(["--value-size", &cell.value_bytes.to_string(), "--random-values"])
            .args(["--keys", &cell.keys().to_string(), "--fill"])
            .args(["--dist", if cell.zipf { "zipf" } else { "uniform" }])
            .args(["--read-share", &cell.read_share.to_string()])
            .args(["--warmup", &self.warmup_s.to_string()])
            .args(["--duration", &self.duration_s.to_string()])
            .args(["--seed", &seed.to_string()])
            .args(["--server-pids", &pids.join(","), "--device", &self.device.name])
            // A system may refuse for a moment; the record says how often.
            .args(["--allow-errors", "--json"])
            .arg(&json);
        if let Some(rate) = rate_per_s {
            command.args(["--rate", &format!("{rate:.1}")]);
        }
        let limit = FILL + Duration::from_secs_f64(self.warmup_s + self.duration_s);
        let good = self.run(&mut command, &dir.join("load.log"), limit)?;
        if !good {
            return Err("the load generator failed".into());
        }
        processes.check()?;
        if system == System::Outrigger && self.flush_method.is_none() {
            self.flush_method = flush_method(&addrs[0]);
        }
        let text = fs::read_to_string(&json).map_err(|error| format!("no JSON: {error}"))?;
        figures(&text).ok_or_else(|| "figures are missing in the JSON".into())
    }

    /// A load against a system, without what it does.
    fn load(&self, system: System, addrs: &[String]) -> Command {
        let mut command = Command::new(&self.load);
        command.args(["--target", system.target(), "--addr", &addrs.join(",")]);
        command
    }

    /// The generator itself is the test of readiness: one write through every address.
    fn await_answer(
        &self,
        system: System,
        addrs: &[String],
        dir: &Path,
        processes: &mut Processes,
    ) -> Result<(), String> {
        let deadline = Instant::now() + READY;
        let count = addrs.len().to_string();
        while Instant::now() < deadline {
            processes.check()?;
            let mut probe = self.load(system, addrs);
            probe
                .args(["--connections", &count, "--requests", &count, "--keys", "1"])
                .args(["--warmup", "0", "--drain", "1"]);
            let limit = Duration::from_secs(15);
            if systems::is_ready(system, dir)
                && self.run(&mut probe, &dir.join("probe.txt"), limit) == Ok(true)
            {
                return Ok(());
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err("interrupted".into());
            }
            std::thread::sleep(POLL);
        }
        Err(format!("it does not answer after {} s", READY.as_secs()))
    }

    /// Runs a program to its end; whether it was content. Ends it when we are interrupted.
    fn run(&self, command: &mut Command, log: &Path, limit: Duration) -> Result<bool, String> {
        let failed = |error| format!("cannot run {}: {error}", self.load.display());
        let out = File::create(log).map_err(failed)?;
        let errors = out.try_clone().map_err(failed)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(status.success());
            }
            let interrupted = self.interrupted.load(Ordering::Relaxed);
            if interrupted || deadline <= Instant::now() {
                let _ = child.kill().and_then(|()| child.wait());
                let why =
                    if interrupted { "interrupted" } else { "it took too long and was ended" };
                return Err(why.into());
            }
            std::thread::sleep(POLL / 5);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // What is left of an interrupted measurement is ours.
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// Figures that every run must have.
const NEEDED: [&str; 7] = [
    "throughput_ops_per_s",
    "latency_p50_us",
    "latency_p99_us",
    "server_cpu_us_per_op",
    "device_write_bytes_per_op",
    "errors_count",
    "unknown_outcomes_count",
];

fn figures(json: &str) -> Option<Figures> {
    let json: serde_json::Value = serde_json::from_str(json).ok()?;
    let of_run = json["runs"][0].as_object()?;
    let figures: Figures =
        of_run.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
    NEEDED.iter().all(|name| figures.contains_key(*name)).then_some(figures)
}

/// What Outrigger's INFO says about it.
fn flush_method(addr: &str) -> Option<String> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"INFO\r\n").ok()?;
    let (mut text, mut buffer) = (Vec::new(), [0; 16 << 10]);
    loop {
        let bytes = stream.read(&mut buffer).ok()?;
        text.extend_from_slice(&buffer[..bytes]);
        if let Some(method) = info_field(&String::from_utf8_lossy(&text), "flush_method") {
            return Some(method);
        }
        if bytes == 0 {
            return None;
        }
    }
}

/// A whole line `NAME:VALUE` of an INFO.
fn info_field(info: &str, name: &str) -> Option<String> {
    let start = info.find(&format!("\n{name}:"))? + name.len() + 2;
    let end = info[start..].find("\r\n")?;
    Some(info[start..start + end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_s_json_becomes_figures() {
        let run = NEEDED.map(|name| format!(r#""{name}": 1.5"#)).join(",");
        let json = format!(r#"{{"runs": [{{{run}, "unsent_arrivals_count": null, "e": {{}}}}]}}"#);
        let read = figures(&json).expect("everything needed is there");
        assert_eq!(read.len(), NEEDED.len());
        assert_eq!(read["latency_p99_us"], 1.5);
        assert_eq!(figures(&json.replace("latency_p99_us", "p99")), None);
        assert_eq!(figures("{}"), None);
    }

    #[test]
    fn a_field_of_info_is_whole_or_not_there_yet() {
        let info = "$80\r\n# core\r\nflush_method:write-then-flush\r\nx:1\r\n";
        assert_eq!(info_field(info, "flush_method").as_deref(), Some("write-then-flush"));
        assert_eq!(info_field(&info[..30], "flush_method"), None);
        assert_eq!(info_field(info, "method"), None);
    }
}
