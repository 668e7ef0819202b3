//! The processes of one running system: started here, watched, and ended by their own numbers.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to stop in order.
const STOP: Duration = Duration::from_secs(10);
/// How often a process that should end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Processes, ended when dropped.
#[derive(Debug)]
pub(crate) struct Processes {
    /// Where their data and logs are. Its name is how a process is known to be of this run.
    dir: PathBuf,
    children: Vec<Child>,
    /// Children of our children, which outlive a parent that was killed.
    grandchildren: Vec<u32>,
}

impl Processes {
    /// None yet.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), children: Vec::new(), grandchildren: Vec::new() }
    }

    /// Starts one more; what it prints goes to `NAME.log` in the directory.
    pub(crate) fn start(&mut self, command: &mut Command, name: &str) -> Result<(), String> {
        let failed = |error| format!("cannot start {name}: {error}");
        let log = File::create(self.dir.join(format!("{name}.log"))).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // A Ctrl-C is for us, and we stop the others in order.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        self.children.push(child);
        Ok(())
    }

    /// Notes a process that one of ours started.
    pub(crate) fn note_grandchild(&mut self, pid: u32) {
        self.grandchildren.push(pid);
    }

    /// Numbers of all.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let children = self.children.iter().map(Child::id);
        children.chain(self.grandchildren.iter().copied()).collect()
    }

    /// An error if one has ended.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        for child in &mut self.children {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("process {} ended ({status})", child.id()));
            }
        }
        Ok(())
    }

    /// The last lines of every log.
    pub(crate) fn last_words(&self) -> String {
        let mut words = String::new();
        let logs = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for path in logs.map(|entry| entry.path()) {
            if path.extension().is_some_and(|ending| ending == "log") {
                let text = std::fs::read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let lines: Vec<&str> = text.lines().collect();
                for line in &lines[lines.len().saturating_sub(10)..] {
                    words.push_str("\n    ");
                    words.push_str(line);
                }
            }
        }
        words
    }

    /// SIGTERM, some patience, SIGKILL.
    pub(crate) fn stop(&mut self) {
        let running = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        self.children.retain_mut(running);
        for child in &self.children {
            signal(child.id(), Signal::TERM);
        }
        let deadline = Instant::now() + STOP;
        loop {
            self.children.retain_mut(running);
            let dir = self.dir.clone();
            self.grandchildren.retain(|&pid| is_of(pid, &dir));
            if self.children.is_empty() && self.grandchildren.is_empty() {
                return;
            }
            if deadline <= Instant::now() {
                break;
            }
            std::thread::sleep(POLL);
        }
        for child in &mut self.children {
            // It has not been waited for, so the number is still its own.
            let _ = child.kill().and_then(|()| child.wait());
        }
        for &pid in self.grandchildren.iter().filter(|&&pid| is_of(pid, &self.dir)) {
            signal(pid, Signal::KILL);
        }
        self.children.clear();
        self.grandchildren.clear();
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.stop();
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // One that has just ended needs no signal.
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process still runs and is of the system in `dir`: numbers are given out again.
fn is_of(pid: u32, dir: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let dir = dir.as_os_str().as_encoded_bytes();
    line.windows(dir.len()).any(|part| part == dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_started_is_stopped_and_its_words_are_kept() {
        let dir = std::env::temp_dir().join(format!("compare-processes-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let mut processes = Processes::new(&dir);
        let script = format!("echo {} is here; exec sleep 1000", dir.display());
        processes.start(Command::new("sh").args(["-c", &script]), "one").expect("it starts");
        let pid = processes.pids()[0];
        while !processes.last_words().contains("is here") {
            std::thread::yield_now();
        }
        assert!(processes.check().is_ok());
        processes.stop();
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it was waited for");
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }

    #[test]
    fn one_that_ends_by_itself_is_noticed() {
        let dir = std::env::temp_dir().join(format!("compare-ended-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let mut processes = Processes::new(&dir);
        processes.start(&mut Command::new("false"), "one").expect("it starts");
        while processes.check().is_ok() {
            std::thread::yield_now();
        }
        assert!(processes.check().expect_err("it ended").contains("exit status: 1"));
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }

    #[test]
    fn a_number_that_is_somebody_else_s_is_left_alone() {
        assert!(!is_of(std::process::id(), Path::new("/no/such/directory")));
    }
}
