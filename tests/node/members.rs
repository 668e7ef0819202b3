//! Nodes come, move and go while clients write: by the command line that an operator uses.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::client::Reply;
use crate::cluster::{Cluster, OUTRIGGER, free_address};
use crate::config::run;
use crate::crash::{Diary, check, write_to};
use crate::info::Info;
use crate::stop::refused;
use crate::wait::wait_until;

/// `outrigger ctl member …`, asked of the node at this place.
fn ctl(cluster: &Cluster, place: usize, words: &str) -> Output {
    let node = cluster.nodes[place].client.to_string();
    let words = words.split_whitespace();
    run(Command::new(OUTRIGGER).args(["ctl", "--node", &node, "member"]).args(words))
}

#[track_caller]
pub(crate) fn done(cluster: &Cluster, place: usize, words: &str) -> String {
    let output = ctl(cluster, place, words);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "member {words}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The columns of one node in `member list`, if it is there.
pub(crate) fn listed(cluster: &Cluster, place: usize, id: u64) -> Option<Vec<String>> {
    let table = done(cluster, place, "list");
    let mut rows = table
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<String>>());
    rows.find(|row| row.first() == Some(&id.to_string()))
}

/// Writers on the nodes at these places while `story` goes on; what they know afterwards.
fn under_load(
    cluster: &mut Cluster,
    places: &[usize],
    story: impl FnOnce(&mut Cluster),
) -> Vec<Diary> {
    static ROUND: AtomicU64 = AtomicU64::new(0);
    let round = ROUND.fetch_add(1, Ordering::Relaxed);
    let (acknowledged, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let addresses: Vec<_> = places.iter().map(|&place| cluster.nodes[place].client).collect();
    std::thread::scope(|scope| {
        let (counter, is_over) = (&acknowledged, &is_over);
        let writers: Vec<_> = addresses
            .iter()
            .enumerate()
            .map(|(number, &address)| {
                let name = format!("r{round}w{number}");
                scope.spawn(move || write_to(address, &name, counter, is_over))
            })
            .collect();
        // Also when the story fails: the scope waits for its writers.
        let _over = Over(is_over);
        wait_until("something is written", || 50 <= acknowledged.load(Ordering::Relaxed));
        story(cluster);
        let goal = acknowledged.load(Ordering::Relaxed) + 50;
        wait_until("it goes on", || goal <= acknowledged.load(Ordering::Relaxed));
        is_over.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
    })
}

/// The writers stop when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn leads(cluster: &Cluster, place: usize) -> u64 {
    Info::of(&cluster.nodes[place]).number("groups_led")
}

#[test]
fn a_node_joins_votes_leads_and_a_leader_is_removed() {
    let mut cluster = Cluster::start("members", 3, &["--groups", "3"]);
    let diaries = under_load(&mut cluster, &[1, 2], |cluster| {
        let fourth = cluster.join(4, &["--groups", "3"]);
        let address = cluster.nodes[fourth].peer;
        assert!(listed(cluster, 0, 4).is_none());
        done(cluster, 0, &format!("add 4 {address}"));
        let row = listed(cluster, 1, 4).expect("it is a member");
        assert_eq!(
            (row[1].clone(), row[2].clone(), row[3].clone()),
            (address.to_string(), "0".into(), "3".into())
        );
        done(cluster, 2, "promote 4");
        assert_eq!(listed(cluster, 1, 4).expect("it is a member")[2], "3", "it votes everywhere");
        for to in [1, 4, 2, 4] {
            done(cluster, 1, &format!("transfer {to}"));
        }
        wait_until("node 4 leads everything", || leads(cluster, 3) == 3);
        done(cluster, 1, "remove 4");
        // It led until the end: until there is another leader, node 2 tells what it knows itself.
        wait_until("no leader lists it", || listed(cluster, 1, 4).is_none());
        wait_until("it knows", || {
            cluster.nodes[3].client().try_call(&["SET", "x", "y"]).is_ok_and(
                |reply| matches!(&reply, Reply::Error(text) if text.starts_with("CLUSTERDOWN")),
            )
        });
        let refusal = ctl(cluster, 0, &format!("add 4 {address}"));
        assert!(!refusal.status.success());
        assert!(String::from_utf8_lossy(&refusal.stderr).contains("never used again"));
    });
    cluster.nodes[3].kill();
    cluster.nodes.pop();
    check(&mut cluster.nodes[0].client(), &diaries);
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn a_wiped_node_comes_back_under_a_new_id_only() {
    let mut cluster = Cluster::start("wiped", 3, &["--groups", "2"]);
    let diaries = under_load(&mut cluster, &[0, 1], |cluster| {
        cluster.nodes[2].kill();
        std::fs::remove_dir_all(&cluster.nodes[2].dir).expect("wiped");
        let output = run(&mut cluster.nodes[2].command());
        refused(&output, &["node 3", "another directory", "lost"]);
        let fifth = cluster.join(5, &["--groups", "2"]);
        let address = cluster.nodes[fifth].peer;
        done(cluster, 0, &format!("add 5 {address}"));
        done(cluster, 0, "replace 3 5");
        assert!(listed(cluster, 0, 3).is_none());
        assert_eq!(listed(cluster, 0, 5).expect("a member")[2], "2");
    });
    cluster.nodes.remove(2);
    check(&mut cluster.nodes[2].client(), &diaries);
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn an_address_changes() {
    let mut cluster = Cluster::start("moves", 3, &["--groups", "2"]);
    assert_eq!(cluster.nodes[2].stop().code(), Some(0));
    let (old, new) = (cluster.nodes[2].peer.to_string(), free_address());
    let node = &mut cluster.nodes[2];
    node.peer = new;
    node.arguments.iter_mut().for_each(|word| *word = word.replace(&old, &new.to_string()));
    node.start();
    done(&cluster, 0, &format!("update 3 {new}"));
    cluster.wait_ready();
    assert_eq!(listed(&cluster, 1, 3).expect("a member")[1], new.to_string());
    cluster.nodes[0].client().say("SET moved yes");
    // The others find it again after a restart, though their --peers say otherwise.
    cluster.nodes[0].stop();
    cluster.nodes[0].start();
    cluster.wait_ready();
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn contract_row_61_every_node_is_drained_and_restarted_under_load() {
    let mut cluster = Cluster::start("drained", 3, &["--groups", "4"]);
    let mut diaries = Vec::new();
    for place in 0..3 {
        let others: Vec<usize> = (0..3).filter(|&other| other != place).collect();
        diaries.extend(under_load(&mut cluster, &others, |cluster| {
            let id = place + 1;
            done(cluster, place, &format!("transfer {id}"));
            wait_until("it leads everything", || leads(cluster, place) == 4);
            let node = cluster.nodes[place].client.to_string();
            let output =
                run(Command::new(OUTRIGGER).args(["drain", "--node", &node, "--limit", "20s"]));
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{told} {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(told.trim(), "4 groups moved, 0 did not");
            assert_eq!(cluster.nodes[place].wait_exit().code(), Some(0));
            cluster.nodes[place].start();
            cluster.wait_ready();
            // SIGTERM moves what it leads as well.
            done(cluster, place, &format!("transfer {id}"));
            assert_eq!(cluster.nodes[place].stop().code(), Some(0));
            for &other in &others {
                assert!(Info::of(&cluster.nodes[other]).every_group_is_led(), "nobody waits");
            }
            cluster.nodes[place].start();
            cluster.wait_ready();
        }));
    }
    check(&mut cluster.nodes[1].client(), &diaries);
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn a_drain_without_anybody_to_take_over_names_what_did_not_move() {
    let mut cluster = Cluster::start("stuck", 1, &["--groups", "2"]);
    let node = cluster.nodes[0].client.to_string();
    let output = run(Command::new(OUTRIGGER).args(["drain", "--node", &node, "--limit", "2s"]));
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("groups that did not move: 0, 1"), "{stderr}");
    assert_eq!(cluster.nodes[0].wait_exit().code(), Some(0), "it stopped all the same");
}
