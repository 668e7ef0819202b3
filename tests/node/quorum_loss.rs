//! The majority of a cluster is lost for good, and what is left goes on: planned, read, applied.

use std::process::Command;

use crate::client::Reply;
use crate::cluster::{Cluster, Node, OUTRIGGER};
use crate::config::run;

fn quorum_loss(node: &Node, extra: &[&str]) -> std::process::Output {
    run(Command::new(OUTRIGGER).arg("quorum-loss").args(&node.arguments).args(extra))
}

#[test]
fn a_directory_that_is_no_nodes_is_refused_by_name_and_not_made() {
    let cluster = Cluster::prepare("quorum-loss-mistyped", 1, &["--groups", "4"]);
    let node = &cluster.nodes[0];
    let refused = || {
        let output = quorum_loss(node, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let named = format!("{} is not the directory of a node", node.dir.display());
        assert!(said.contains(&named) && output.stdout.is_empty(), "{output:?}");
    };
    let _ = std::fs::remove_dir_all(&node.dir);
    refused();
    assert!(!node.dir.exists(), "nothing is made");
    std::fs::create_dir_all(&node.dir).expect("it is ours");
    refused();
    assert_eq!(std::fs::read_dir(&node.dir).expect("made above").count(), 0);
}

#[test]
fn contract_row_59_the_last_node_goes_on_alone_after_a_plan_was_read_and_applied() {
    let mut cluster = Cluster::start("quorum-loss", 3, &["--groups", "4", "--cores", "2"]);
    let mut client = cluster.nodes[0].client();
    for number in 0..40 {
        assert_eq!(client.say(&format!("SET kept:{number} {number}")), Reply::ok());
    }
    cluster.digests();

    // While the node runs, nothing can be planned.
    let output = quorum_loss(&cluster.nodes[0], &[]);
    assert_ne!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use by process"));

    for node in &mut cluster.nodes {
        node.kill();
    }
    let output = quorum_loss(&cluster.nodes[0], &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    for group in 0..4 {
        let line = format!("group {group}: node 1 alone; removed: 2, 3; ");
        assert!(plan.contains(&line), "{line} is not in {plan}");
    }
    let name = plan.trim_end().rsplit_once("--apply ").expect("the plan has a name").1.to_owned();

    // Another plan than this is not applied, and planning has changed nothing.
    assert_ne!(quorum_loss(&cluster.nodes[0], &["--apply", "00000000"]).status.code(), Some(0));
    let again = quorum_loss(&cluster.nodes[0], &[]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), plan);
    let audit = cluster.nodes[0].dir.join("quorum-loss.log");
    assert!(!audit.exists(), "nothing was done");

    let output = quorum_loss(&cluster.nodes[0], &["--apply", &name]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let audit = std::fs::read_to_string(audit).expect("what was done is written down");
    assert!(audit.contains(&format!("plan {name} is durable")), "{audit}");
    let time = audit.strip_prefix("[20").and_then(|rest| rest.split_once("Z, "));
    assert!(time.is_some_and(|(time, _)| time.len() == 17), "the time comes first: {audit}");
    assert!(audit.contains("group 3: node 1 alone; removed: 2, 3"), "{audit}");

    // By itself it serves everything that was acknowledged, and takes more; twice, because the log goes
    // on behind what the tool wrote.
    for round in 0..2 {
        cluster.nodes[0].start();
        let mut client = cluster.nodes[0].client();
        crate::wait::wait_until("it leads", || client.say("SET alone yes") == Reply::ok());
        for number in 0..40 {
            let value = client.say(&format!("GET kept:{number}"));
            assert_eq!(value, Reply::bulk(number.to_string()), "round {round}");
        }
        let listed = client.say("MEMBER LIST").to_string();
        assert!(!listed.contains(&cluster.nodes[1].peer.to_string()), "{listed}");
        assert_eq!(cluster.nodes[0].stop().code(), Some(0));
    }
    let output = quorum_loss(&cluster.nodes[0], &[]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("removed: nobody"), "{output:?}");
}
