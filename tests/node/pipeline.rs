//! Pipelining: many commands in one write, answered in order, and executed in order.

use crate::client::{Reply, encode};
use crate::shared;
use crate::wait::wait_for;

#[test]
fn a_thousand_commands_in_one_write() {
    let cluster = shared::cluster();
    for node in &cluster.nodes {
        let mut client = node.client();
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for number in 0..250 {
            // Different groups, cores and leaders; some are answered at once, some much later.
            let key = format!("pipe:{}:{number}", node.id);
            bytes.extend(encode(&["SET", &key, &number.to_string()]));
            expected.push(Reply::ok());
            bytes.extend(encode(&["ECHO", &key]));
            expected.push(Reply::bulk(&key));
            bytes.extend(encode(&["NOSUCH"]));
            expected.push(Reply::Error(
                "ERR unknown command 'NOSUCH', with args beginning with: ".into(),
            ));
            bytes.extend(encode(&["STRLEN", &format!("{key}:none")]));
            expected.push(Reply::Integer(0));
        }
        client.send(&bytes).expect("sent");
        for (at, expected) in expected.iter().enumerate() {
            assert_eq!(client.read().expect("a reply"), *expected, "reply {at}");
        }
    }
}

#[test]
fn commands_arrive_in_pieces() {
    let cluster = shared::cluster();
    let mut client = cluster.nodes[0].client();
    let mut bytes = encode(&["SET", "pieces", "some value"]);
    bytes.extend(encode(&["GET", "pieces"]));
    for piece in bytes.chunks(3) {
        client.send(piece).expect("sent");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert_eq!(client.read().expect("a reply"), Reply::ok());
    assert_eq!(client.read().expect("a reply"), Reply::bulk("some value"));
}

/// In Redis a connection's commands take effect one after the other, pipelined or not: a read
/// shows what the commands before it did, and nothing of what the commands after it do.
#[test]
fn a_pipelined_read_sees_the_writes_before_it_and_none_after() {
    let cluster = shared::cluster();
    for node in &cluster.nodes {
        let mut client = node.client();
        client.say("DEL order");
        let mut sent = Vec::new();
        for number in 0..50 {
            sent.push((vec!["INCR".to_owned(), "order".to_owned()], Reply::Integer(number + 1)));
            sent.push((
                vec!["GET".to_owned(), "order".to_owned()],
                Reply::bulk((number + 1).to_string()),
            ));
        }
        let expected: Vec<&Reply> = sent.iter().map(|(_, reply)| reply).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|(words, _)| encode(words)).collect();
        client.send(&bytes).expect("sent");
        let got: Vec<Reply> = expected.iter().map(|_| client.read().expect("a reply")).collect();
        let shown = |replies: &[&Reply]| {
            replies.iter().map(|reply| reply.to_string()).collect::<Vec<_>>().join(" ")
        };
        let got: Vec<&Reply> = got.iter().collect();
        assert_eq!(
            shown(&got),
            shown(&expected),
            "INCR, GET, INCR, GET … through node {}",
            node.id
        );
    }
}

/// The same for reads of several keys and for every other kind of read.
#[test]
fn every_kind_of_read_keeps_its_place() {
    let cluster = shared::cluster();
    for node in &cluster.nodes {
        let mut client = node.client();
        let round = [
            ("SET place 123", "+OK"),
            ("GET place", "\"123\""),
            ("MGET place place:none", "[\"123\" $-1]"),
            ("EXISTS place", ":1"),
            ("STRLEN place", ":3"),
            ("TYPE place", "+string"),
            ("DEL place", ":1"),
            ("EXISTS place", ":0"),
            ("TYPE place", "+none"),
            ("MGET place", "[$-1]"),
        ];
        let commands: Vec<&str> = round.iter().map(|(command, _)| *command).collect();
        let once: Vec<u8> = commands
            .iter()
            .flat_map(|command| encode(&command.split(' ').collect::<Vec<_>>()))
            .collect();
        // On a machine that is busy elsewhere the leader may change in between, and says so: then all of it again.
        let replies = wait_for("a leader that stays for fifty commands", || {
            client.say("DEL place");
            client.send(&once.repeat(5)).expect("sent");
            let read = |_| client.read().expect("a reply").to_string();
            let replies: Vec<String> = (0..5 * round.len()).map(read).collect();
            let is_told = |reply: &String| reply.starts_with("-NOLEADER");
            (!replies.iter().any(is_told)).then_some(replies)
        });
        for (at, (got, (command, expected))) in replies.iter().zip(round.iter().cycle()).enumerate()
        {
            let turn = at / round.len();
            assert_eq!(got, expected, "{command}, turn {turn}, through node {}", node.id);
        }
    }
}
