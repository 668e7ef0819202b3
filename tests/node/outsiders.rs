//! A node that belongs to nothing yet: it was started to join and nobody has added it, or it is the first
//! of its cluster and waits for the others. Whatever is said to it is answered, nothing comes of it, and
//! afterwards the node becomes what it was started for.
//!
//! ```text
//!  every command the node knows, and some that it does not   ──►  the node: an answer to each
//!     alone · as operators say it · with words from a seed        a connection beside it: never closed
//!                                                                 the cluster: as it was
//! ```
//!
//! `OUTSIDER_SEED=n` says the words of that seed again.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use fastrand::Rng;

use crate::client::Reply;
use crate::cluster::{Cluster, Node, OUTRIGGER};
use crate::config::run;
use crate::members::{done, leads, listed};
use crate::shared;
use crate::wait::wait_until;

/// What operators say, and what would hurt most if it were done.
const SAID: &str = "\
MEMBER LIST|MEMBER LIST GROUP 0|MEMBER ADD 4 127.0.0.1:1|MEMBER ADD 4 127.0.0.1:1 GROUP 0 IF 0
MEMBER PROMOTE 4|MEMBER PROMOTE 4 GROUP 0|MEMBER REMOVE 1|MEMBER REMOVE 4|MEMBER REPLACE 1 4
MEMBER UPDATE 1 127.0.0.1:1|MEMBER TRANSFER 4|MEMBER TRANSFER 1|MEMBER CANCEL
DRAIN 0|DRAIN 600000|DRAIN 1000 STOP|BACKUP OPEN 0|BACKUP NEXT 0 0|BACKUP NEXT 0 1|BACKUP CLOSE 0 0
BACKUP OPEN 18446744073709551615|DEBUG DIGEST|DEBUG STALL-DISK 60000|DEBUG DELAY-DISK 60000
DEBUG PAUSE-PEERS 0 60000|DEBUG SEGFAULT|DEBUG SLEEP 60|ACL SETUSER default off|ACL SETUSER eve on nopass +@all ~*
ACL DELUSER default|ACL DELUSER eve|ACL LIST|ACL USERS|ACL GETUSER default|ACL WHOAMI|ACL CAT
CONFIG GET *|CONFIG SET requirepass lost|CONFIG REWRITE|CONFIG RESETSTAT|INFO|INFO outrigger|INFO memory|INFO everything
CLUSTER SLOTS|CLUSTER SHARDS|CLUSTER NODES|CLUSTER INFO|CLUSTER MYID|CLUSTER KEYSLOT k|CLUSTER COUNTKEYSINSLOT 0
CLUSTER RESET HARD|CLUSTER FORGET 1|CLUSTER MEET 127.0.0.1 1|CLUSTER FAILOVER TAKEOVER|CLUSTER ADDSLOTS 0
SLOWLOG GET -1|SLOWLOG LEN|SLOWLOG RESET|WAIT 3 60000|WAITAOF 1 3 60000|MULTI|SET {k} v|EXEC|WATCH k|MULTI|DISCARD|UNWATCH
CLIENT SESSION OPEN|CLIENT SESSION RUN 1 1 INCR k|CLIENT SESSION CLOSE 1|CLIENT KILL TYPE normal|CLIENT ID
FLUSHALL|FLUSHDB|DBSIZE|SCAN 0 COUNT 1000000|READONLY STALE 600000|GET k|READWRITE|SET k v|INCR n|COMMAND|HELLO 3|HELLO 2
";

/// Commands of others, that no node of ours knows.
const FOREIGN: &str = "\
shutdown replicaof slaveof failover save bgsave bgrewriteaof monitor module restore migrate sync psync \
subscribe eval function raft.cluster raft.node raft.info raft";

/// What may be asked of a node that has just become a learner: the cluster is the same afterwards.
/// `DRAIN` is not here: what it does to a member, `members.rs` tells.
const ASKS: &str = "\
backup cluster command config dbsize debug discard echo exec exists get hello hgetall info mget multi ping \
readonly readwrite reset scan slowlog smembers strlen ttl type unwatch wait waitaof watch";

/// Words that some command looks for.
const WORDS: &str = "\
LIST ADD PROMOTE REMOVE REPLACE UPDATE TRANSFER CANCEL GROUP IF STOP OPEN NEXT CLOSE GET SET SETUSER DELUSER GETUSER \
CAT WHOAMI SLOTS NODES RESET LEN DIGEST STALL-DISK SESSION RUN HELP STALE NX EX COUNT MATCH AUTH SETNAME INIT INCR \
EXEC SHUTDOWN 0 1 2 3 4 -1 16384 600000 9223372036854775807 18446744073709551615 -9223372036854775808 1e400 * { {} k \
default on off >word ~* +@all 127.0.0.1:1 [::]:0";

/// Not among the words above: nobody gets in by accident.
const PASSWORD: &str = "open sesame";

type Line = Vec<Vec<u8>>;

fn words(line: &str) -> Line {
    line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
}

/// Everything that is said: what operators say, in its order; then each command alone, and with words drawn
/// from the dice.
fn lines(names: &[String], rng: &mut Rng) -> Vec<Line> {
    let known: Vec<&str> = WORDS.split(' ').collect();
    let mut lines: Vec<Line> = SAID.split(['\n', '|']).map(words).collect();
    lines.retain(|line| !line.is_empty());
    for name in names.iter().map(String::as_str).chain(FOREIGN.split(' ')) {
        lines.push(words(name));
        for _ in 0..6 {
            let mut line = words(name);
            for _ in 0..rng.usize(1..=6) {
                // One in ten is bytes that nobody expects, one in ten empty.
                line.push(match rng.u32(..10) {
                    0 => (0..rng.usize(..2_000)).map(|_| rng.u8(..)).collect(),
                    1 => Vec::new(),
                    _ => rng.choice(&known).expect("there are some").as_bytes().to_vec(),
                });
            }
            lines.push(line);
        }
    }
    lines
}

fn seed() -> u64 {
    let said = std::env::var("OUTSIDER_SEED").ok();
    let drawn = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
    said.map_or_else(drawn, |seed| seed.parse().expect("OUTSIDER_SEED is a number"))
}

/// Says how to say it all again, if the test fails.
struct Replay(u64, &'static str);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Replay(seed, test) = self;
            eprintln!(
                "seed {seed} failed; replay it with\n  OUTSIDER_SEED={seed} cargo test --test node {test}"
            );
        }
    }
}

/// Every command that a node knows, by its own word.
fn names(node: &Node) -> Vec<String> {
    let names = node.client().say("COMMAND LIST").array();
    assert!(60 < names.len(), "{names:?}");
    names.iter().map(Reply::text).collect()
}

/// The first word of an error, or nothing.
fn kind(reply: &Reply) -> &str {
    if let Reply::Error(text) = reply { text.split(' ').next().unwrap_or("") } else { "" }
}

/// Says all of it to a node that belongs to nothing. Each is answered on its connection; `also` is called
/// between them.
#[track_caller]
fn say_all(node: &mut Node, names: &[String], rng: &mut Rng, mut also: impl FnMut()) {
    // The door asks the way in of a node that has a password; both sides of it are tried.
    let locked = node.door.password.take();
    let mut beside = node.client();
    for is_inside in if locked.is_some() { &[false, true][..] } else { &[true] } {
        node.door.password = locked.clone().filter(|_| *is_inside);
        let refusal = if *is_inside { "LOADING" } else { "NOAUTH" };
        let mut client = node.client();
        for (number, line) in lines(names, rng).iter().enumerate() {
            let said: Vec<String> =
                line.iter().map(|word| word.escape_ascii().to_string()).collect();
            let said = said.join(" ");
            let reply = client
                .try_call(line)
                .unwrap_or_else(|error| panic!("'{said}' got no answer: {error}"));
            // Four are for everybody at a door that is closed, whatever is behind it.
            let name = line[0].to_ascii_lowercase();
            let is_open = [b"auth".as_slice(), b"hello", b"quit", b"reset"].contains(&&name[..]);
            if *is_inside || !is_open {
                assert_eq!(kind(&reply), refusal, "'{said}' got {reply}");
            }
            // What was let in or sent away by them, or speaks otherwise since.
            if is_open && !*is_inside {
                client = node.client();
            }
            if number % 20 == 0 {
                // Whoever was there all the time is still there.
                let reply = beside.try_call(&["PING"]).expect("the connection beside it is open");
                let expected = if locked.is_some() { "NOAUTH" } else { "LOADING" };
                assert_eq!(kind(&reply), expected, "beside '{said}': {reply}");
                also();
            }
        }
        assert!(!node.has_exited(), "node {} lives", node.id);
    }
    node.door.password = locked;
    let log = node.log();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}

/// Says what changes nothing to a node that was added this moment, and holds some of its groups, or none: that
/// there is an answer is all that can be demanded.
#[track_caller]
fn ask_all(node: &mut Node, names: &[String], rng: &mut Rng) {
    let mut client = node.client();
    for line in lines(names, rng) {
        let name = String::from_utf8_lossy(&line[0]).to_lowercase();
        if ASKS.split(' ').any(|ask| ask == name) {
            let answer = client.try_call(&line);
            assert!(answer.is_ok(), "{line:?} got no answer: {answer:?}");
        }
    }
    assert!(!node.has_exited(), "node {} lives", node.id);
}

/// The members that the cluster has, where they are and in how many groups they vote.
fn members(cluster: &Cluster) -> Vec<Vec<String>> {
    let table = done(cluster, 0, "list");
    let rows = table.lines().skip(1);
    rows.map(|row| row.split_whitespace().take(4).map(str::to_owned).collect()).collect()
}

#[test]
fn commands_to_a_node_that_belongs_to_nothing_yet_are_answered_and_it_joins_afterwards() {
    let seed = seed();
    let _replay = Replay(
        seed,
        "commands_to_a_node_that_belongs_to_nothing_yet_are_answered_and_it_joins_afterwards",
    );
    let mut rng = Rng::with_seed(seed);
    let mut cluster = Cluster::start("outsiders", 3, &["--groups", "3"]);
    let names = names(&cluster.nodes[0]);
    let mut client = cluster.nodes[0].client();
    let mut count = 0;
    let mut write = move || {
        count += 1;
        assert_eq!(client.say("INCR count").integer(), count, "a client of a member");
    };
    write();
    let (before, users) = (members(&cluster), cluster.nodes[0].client().say("ACL LIST"));

    // One whose port is open to all, and one that asks for a password: other commands come further there.
    let file = cluster.dir().join("password");
    fs::write(&file, PASSWORD).expect("writable");
    let file = file.display().to_string();
    cluster.join(4, &["--groups", "3"]);
    let fifth = cluster.join(5, &["--groups", "3", "--cores", "2", "--requirepass-file", &file]);
    cluster.nodes[fifth].door.password = Some(PASSWORD.into());
    for place in [3, 4] {
        say_all(&mut cluster.nodes[place], &names, &mut rng, &mut write);
    }
    // The command line, which waits while there is hope.
    let (address, backup) = (cluster.nodes[3].client.to_string(), cluster.dir().join("backup"));
    let backup = format!("backup {}", backup.display());
    for said in ["member list", "member add 4 127.0.0.1:1", "member remove 1", &backup] {
        let ctl = ["ctl", "--node", &address, "--timeout", "1"];
        let output = run(Command::new(OUTRIGGER).args(ctl).args(said.split(' ')));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains("LOADING"), "{said}: {stderr}");
    }
    let output = run(Command::new(OUTRIGGER).args(["drain", "--node", &address, "--limit", "1s"]));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("LOADING"), "drain: {stderr}");
    // It ends when it is told to, and is then what it was.
    assert_eq!(cluster.nodes[3].stop().code(), Some(0));
    cluster.nodes[3].start();

    write();
    assert_eq!(members(&cluster), before, "nobody has come or gone");
    assert_eq!(cluster.nodes[0].client().say("ACL LIST"), users);
    assert_eq!(cluster.nodes[0].client().say("DBSIZE").integer(), 1, "only the count was written");

    for place in [3, 4] {
        let (id, address) = (cluster.nodes[place].id, cluster.nodes[place].peer);
        assert!(listed(&cluster, 0, id).is_none());
        done(&cluster, 0, &format!("add {id} {address}"));
        ask_all(&mut cluster.nodes[place], &names, &mut rng);
        done(&cluster, 1, &format!("promote {id}"));
        assert_eq!(listed(&cluster, 2, id).expect("a member")[2], "3", "it votes everywhere");
        let mut through = cluster.nodes[place].client();
        assert_eq!(through.say(&format!("SET by:{id} it")), Reply::ok());
        let read = cluster.nodes[1].client().say(&format!("GET by:{id}"));
        assert_eq!(read, Reply::bulk("it"), "what node {id} took");
        // Whether `default` has a password is each node's own.
        let users = match &cluster.nodes[place].door.password {
            None => users.to_string(),
            Some(_) => users.to_string().replace("nopass ", ""),
        };
        assert_eq!(through.say("ACL LIST").to_string(), users);
    }
    done(&cluster, 0, "transfer 4");
    wait_until("node 4 leads everything", || leads(&cluster, 3) == 3);
    write();
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn commands_to_the_first_node_of_a_cluster_are_answered_and_it_founds_it_with_the_others() {
    let seed = seed();
    let _replay = Replay(
        seed,
        "commands_to_the_first_node_of_a_cluster_are_answered_and_it_founds_it_with_the_others",
    );
    let mut rng = Rng::with_seed(seed);
    let names = names(&shared::cluster().nodes[0]);
    let mut cluster = Cluster::prepare("first", 3, &["--groups", "2", "--cores", "2"]);
    cluster.nodes[0].start();
    say_all(&mut cluster.nodes[0], &names, &mut rng, || {});
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    cluster.wait_ready();
    assert_eq!(cluster.nodes[0].client().say("DBSIZE").integer(), 0, "nothing came of it");
    assert_eq!(cluster.nodes[0].client().say("SET by:1 it"), Reply::ok());
    assert_eq!(cluster.nodes[2].client().say("GET by:1"), Reply::bulk("it"));
    assert_eq!(members(&cluster).len(), 3);
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}
