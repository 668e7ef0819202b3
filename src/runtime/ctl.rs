//! `outrigger ctl` and `outrigger drain`: an operator's words to a running node, said again until
//! they have been heard.
//!
//! ```text
//!   member promote 4 ─► MEMBER PROMOTE 4 ─┬─ OK: done
//!                            ▲            ├─ BUSY, NOLEADER, UNCERTAIN, no answer ─► progress, wait ┐
//!                            │            └─ ERR: told, exit 1                                      │
//!                            └──────────────────── until --timeout ◄───────────────────────────────┘
//! ```
//!
//! Every `MEMBER` command may be said again: what is done already is answered with OK.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::access::{self, Access};
use super::asker::{Said, is_shut_out, may_change};
use super::backup::{self, BackupOptions, RestoreOptions};
use super::fatal::Fatal;

/// How often something is asked again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `ctl` can be told.
#[derive(Debug, Args)]
pub struct Options {
    /// The client address of any node of the cluster.
    #[arg(long, value_name = "IP:PORT")]
    pub node: SocketAddr,
    /// How long to go on trying without success, in seconds.
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub timeout: u64,
    /// How to get in.
    #[command(flatten)]
    pub access: access::Options,
    /// What about.
    #[command(subcommand)]
    pub what: What,
}

/// What `ctl` is about.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Show and change who belongs to the cluster.
    #[command(subcommand)]
    Member(Member),
    /// Write the data of all groups into files; the cluster goes on meanwhile.
    Backup(BackupOptions),
    /// Put a backup into a cluster, of whatever size.
    Restore(RestoreOptions),
}

/// What can be done with members.
#[derive(Debug, Subcommand)]
pub enum Member {
    /// Show the members: address, groups in which each votes, learns and leads, and how far behind.
    List,
    /// Make a node that was started with --join a learner in every group.
    Add {
        /// Its --id.
        id: u64,
        /// Its peer address.
        address: SocketAddr,
    },
    /// Make a learner a voter in every group, as soon as it has caught up.
    Promote {
        /// Its id.
        id: u64,
    },
    /// Take a node out of every group, for good: its id is never used again.
    Remove {
        /// Its id.
        id: u64,
    },
    /// Make a learner a voter in place of another node, which is taken out for good.
    Replace {
        /// The id of the voter that goes.
        old: u64,
        /// The id of the learner that takes its place.
        new: u64,
    },
    /// Tell the cluster that a node listens for peers elsewhere.
    Update {
        /// Its id.
        id: u64,
        /// Its new peer address.
        address: SocketAddr,
    },
    /// Make a node lead every group, or one.
    Transfer {
        /// Its id.
        id: u64,
        /// This group only.
        #[arg(long)]
        group: Option<u64>,
    },
    /// Undo a change that is under way.
    Cancel,
}

/// What `drain` can be told.
#[derive(Debug, Args)]
pub struct DrainOptions {
    /// The client address of the node to drain.
    #[arg(long, value_name = "IP:PORT")]
    pub node: SocketAddr,
    /// How long it may take until the node has stopped, as in 30s or 1500ms.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub limit: Duration,
    /// How to get in.
    #[command(flatten)]
    pub access: access::Options,
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time such as 30s or 1500ms, of at most 600s");
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => (text, 1000),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = number.checked_mul(unit).filter(|ms| *ms <= 600_000).ok_or_else(wrong)?;
    Ok(Duration::from_millis(ms))
}

/// Says what the operator wants until it is done.
///
/// # Errors
/// If it is refused, or not done in time.
pub fn ctl(options: &Options) -> Result<(), Fatal> {
    let access = Access::open(&options.access)?;
    let dial = || access.connect(options.node, PATIENCE);
    let patience = Duration::from_secs(options.timeout);
    let member = match &options.what {
        What::Member(member) => member,
        What::Backup(what) => return backup::backup(&dial, what, patience),
        What::Restore(what) => return backup::restore(&dial, what, patience),
    };
    let words = member.words();
    let deadline = Instant::now() + Duration::from_secs(options.timeout);
    let mut told = String::new();
    loop {
        let said = ask(&access, options.node, &words);
        let trouble = match said {
            Ok(Said::Error(error)) if may_change(&error) => error,
            Ok(Said::Error(error)) => return Err(Fatal::new(error)),
            Ok(Said::List(nodes)) if matches!(member, Member::List) => {
                print!("{}", table(&nodes));
                return Ok(());
            }
            Ok(_) => {
                println!("ok");
                return Ok(());
            }
            Err(error) if is_shut_out(&error) => {
                return Err(Fatal::new(format!("{}: {error}", options.node)));
            }
            Err(error) => format!("{} does not answer: {error}", options.node),
        };
        if deadline <= Instant::now() {
            return Err(Fatal::new(format!("not done within {} s: {trouble}", options.timeout)));
        }
        if told != trouble {
            eprintln!("{trouble}");
            told = trouble;
        }
        std::thread::sleep(AGAIN);
    }
}

fn ask(access: &Access, node: SocketAddr, words: &[String]) -> std::io::Result<Said> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    access.connect(node, PATIENCE)?.ask(&words)
}

impl Member {
    fn words(&self) -> Vec<String> {
        let words = |words: &[&dyn std::fmt::Display]| {
            let member = "MEMBER".to_owned();
            std::iter::once(member).chain(words.iter().map(ToString::to_string)).collect()
        };
        match self {
            Self::List => words(&[&"LIST"]),
            Self::Add { id, address } => words(&[&"ADD", id, address]),
            Self::Promote { id } => words(&[&"PROMOTE", id]),
            Self::Remove { id } => words(&[&"REMOVE", id]),
            Self::Replace { old, new } => words(&[&"REPLACE", old, new]),
            Self::Update { id, address } => words(&[&"UPDATE", id, address]),
            Self::Transfer { id, group: None } => words(&[&"TRANSFER", id]),
            Self::Transfer { id, group: Some(group) } => words(&[&"TRANSFER", id, &"GROUP", group]),
            Self::Cancel => words(&[&"CANCEL"]),
        }
    }
}

/// What `MEMBER LIST` says, for people.
fn table(nodes: &[Said]) -> String {
    let mut text = format!(
        "{:<6} {:<22} {:>6} {:>8} {:>6} {:>10} {:>8}  config ids\n",
        "node", "peer address", "votes", "learns", "leads", "lag", "behind"
    );
    for node in nodes {
        let number = |name: &str| node.field(name).number();
        text.push_str(&format!(
            "{:<6} {:<22} {:>6} {:>8} {:>6} {:>10} {:>8}  {}..{}\n",
            number("id"),
            node.field("address").to_string(),
            number("voter") + number("changing"),
            number("learner"),
            number("leads"),
            number("lag"),
            number("behind"),
            number("config_id_min"),
            number("config_id_max"),
        ));
    }
    text
}

/// Has a node hand over what it leads and stop.
///
/// # Errors
/// If groups did not move, or the node did not stop in time; it names them.
pub fn drain(options: &DrainOptions) -> Result<(), Fatal> {
    let node = options.node;
    let failed = |error: std::io::Error| Fatal::new(format!("{node} cannot be drained: {error}"));
    let access = Access::open(&options.access)?;
    let deadline = Instant::now() + options.limit;
    // The node needs some of the time to end its log.
    let to_move = options.limit.saturating_sub(options.limit / 5);
    let mut asker = access.connect(node, options.limit + PATIENCE).map_err(failed)?;
    let limit_ms = to_move.as_millis().to_string();
    let said = asker.ask(&["DRAIN", &limit_ms, "STOP"]).map_err(failed)?;
    if let Said::Error(error) = said {
        return Err(Fatal::new(format!("{node} cannot be drained: {error}")));
    }
    let stuck: Vec<String> = said.field("stuck").items().iter().map(Said::to_string).collect();
    println!("{} groups moved, {} did not", said.field("moved"), stuck.len());
    let mut stopped = false;
    while !stopped && Instant::now() < deadline {
        stopped = access.connect(node, Duration::from_millis(500)).is_err();
        if !stopped {
            std::thread::sleep(AGAIN / 4);
        }
    }
    let mut trouble = Vec::new();
    if !stuck.is_empty() {
        trouble.push(format!("groups that did not move: {}", stuck.join(", ")));
    }
    if !stopped {
        trouble.push(format!("{node} has not stopped within {:?}", options.limit));
    }
    if trouble.is_empty() { Ok(()) } else { Err(Fatal::new(trouble.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_time() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        for text in ["", "s", "x", "-1s", "601s", "1h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_may_change_is_asked_again() {
        for error in ["BUSY node 4 is not ready", "NOLEADER x", "UNCERTAIN x", "LOADING x"] {
            assert!(may_change(error), "{error}");
        }
        for error in ["ERR group 0: removed all voters", "CLUSTERDOWN x", ""] {
            assert!(!may_change(error), "{error}");
        }
    }

    #[test]
    fn the_table_names_what_counts() {
        let pair = |name: &str, value| [Said::Text(name.into()), Said::Number(value)];
        let mut node: Vec<Said> =
            [pair("id", 4), pair("voter", 15), pair("changing", 1), pair("lag", 7)].concat();
        node.extend([Said::Text("address".into()), Said::Text("127.0.0.1:7104".into())]);
        let text = table(&[Said::List(node)]);
        let row: Vec<&str> = text.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!(row, ["4", "127.0.0.1:7104", "16", "0", "0", "7", "0", "0..0"]);
    }
}
