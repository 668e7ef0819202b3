//! Who may talk to whom, and what the others are told.

use crate::wire::hello::{BODY_BYTES_MIN, VERSION};
use crate::wire::{Expect, Expected, Hello, HelloError};

use super::*;

const HELLO: Hello = Hello {
    cluster: ClusterId(0xC1),
    node: NodeId(1),
    to: NodeId(2),
    incarnation: Incarnation(7),
    shard: ShardId(3),
    lane: Lane::Bulk,
    cores: 4,
    groups: 64,
    version: VERSION,
    birth: 0xb1,
    origin: 0x0a,
    proven: true,
    is_stranger: false,
    address: None,
    client: None,
};

fn expected() -> Expected<'static> {
    Expected {
        cluster: ClusterId(0xC1),
        this: NodeId(2),
        nodes: &[NodeId(1), NodeId(3)],
        incarnation: Incarnation(7),
        groups: 64,
        origin: 0x0a,
    }
}

#[test]
fn a_hello_arrives_as_sent_and_binds_the_link() {
    let frame = read(&HELLO.encode()).expect("sound").expect("whole");
    assert_eq!(Hello::decode(&frame), Ok(HELLO));
    assert_eq!(HELLO.check(&expected()), Ok(()));
    assert_eq!(
        HELLO.expect(),
        Expect {
            cluster: ClusterId(0xC1),
            from: NodeId(1),
            to: NodeId(2),
            incarnation: Incarnation(7)
        }
    );
    assert_eq!((frame.messages().count(), frame.forwards().count()), (0, 0));
    assert_eq!((frame.answers().count(), frame.pieces().count(), frame.acks().count()), (0, 0, 0));
}

#[test]
fn contract_row_49_a_hello_that_differs_is_told_what_differs_and_what_to_do() {
    let cases = [
        (
            Hello { version: 1, ..HELLO },
            "node 1 speaks wire version 1, this node 2: run the same release on both",
        ),
        (
            Hello { cluster: ClusterId(5), ..HELLO },
            "node 1 belongs to cluster 0000000000000005, this node to 00000000000000c1: \
             check the addresses of the peers and --cluster on both",
        ),
        (
            Hello { to: NodeId(3), ..HELLO },
            "node 1 wants to talk to node 3, this is node 2: its address of node 3 is wrong",
        ),
        (
            Hello { node: NodeId(9), ..HELLO },
            "node 9 is not expected here (expected: 1, 3): \
             check the list of peers on both nodes, and that no two nodes share an --id",
        ),
        (
            Hello { incarnation: Incarnation(6), ..HELLO },
            "node 1 says it is in its start 6, but start 7 has been seen: \
             an old process or a restored copy of its directory is still running; stop it",
        ),
        (
            Hello { groups: 128, ..HELLO },
            "node 1 divides the keys into 128 groups, this node into 64: \
             --groups must be the same everywhere and cannot change later",
        ),
        (
            Hello { origin: 0x0b, ..HELLO },
            "node 1 was first started with another list of --peers than this node: nothing it or \
             this node was told by the others can be trusted. Wipe the one that is wrong, and add \
             it under a new --id",
        ),
        (Hello { cores: 0, ..HELLO }, "node 1 claims 0 cores, 1 to 256 are possible"),
        (Hello { cores: 257, ..HELLO }, "node 1 claims 257 cores, 1 to 256 are possible"),
    ];
    for (hello, text) in cases {
        assert_eq!(hello.check(&expected()).expect_err("it differs").to_string(), text);
    }
    // Who joined later began with nobody.
    assert_eq!(Hello { origin: 0, ..HELLO }.check(&expected()), Ok(()));
    // A newer start is welcome: the peer came back.
    assert_eq!(Hello { incarnation: Incarnation(8), ..HELLO }.check(&expected()), Ok(()));
}

#[test]
fn the_version_is_judged_before_what_it_may_have_changed() {
    let hello = Hello { version: 9, cluster: ClusterId(5), groups: 1, cores: 0, ..HELLO };
    assert!(matches!(hello.check(&expected()), Err(HelloError::Version { .. })));
}

#[test]
fn a_longer_hello_of_a_later_version_is_read_and_a_shorter_one_refused() {
    let sound = HELLO.encode();
    let body = &sound[HEADER_BYTES..];
    let longer = signed(Content::Hello, &[body, b"more"].concat(), b"");
    let frame = read(&longer).expect("sound").expect("whole");
    assert_eq!(Hello::decode(&frame).map(|hello| hello.groups), Ok(64));

    let shorter = signed(Content::Hello, &body[..BODY_BYTES_MIN - 1], b"");
    let meta_bytes = BODY_BYTES_MIN as u32 - 1;
    let error = read(&shorter).expect_err("too short");
    assert_eq!(error, FrameError::Hello { meta_bytes, payload_bytes: 0 });
    assert!(read(&signed(Content::Hello, &body[..BODY_BYTES_MIN], b"")).is_ok());
    assert!(read(&signed(Content::Hello, body, b"payload")).is_err());
}

#[test]
fn a_hello_tells_where_its_node_listens() {
    for address in ["127.0.0.1:7101", "[2001:db8::7]:65535"] {
        let address = Some(address.parse().expect("an address"));
        for hello in [
            Hello { address, proven: false, is_stranger: true, ..HELLO },
            Hello { client: address, ..HELLO },
        ] {
            let frame = read(&hello.encode()).expect("sound").expect("whole");
            assert_eq!(Hello::decode(&frame), Ok(hello));
        }
    }
}

/// The release before this one sent 56 bytes: all it says is understood, and that it does not say
/// where its clients connect.
#[test]
fn a_hello_from_before_client_addresses_is_read() {
    let address = Some("127.0.0.1:7101".parse().expect("an address"));
    let hello = Hello { address, client: address, lane: Lane::Append, ..HELLO };
    let shorter = signed(Content::Hello, &hello.encode()[HEADER_BYTES..HEADER_BYTES + 56], b"");
    let frame = read(&shorter).expect("sound").expect("whole");
    assert_eq!(Hello::decode(&frame), Ok(Hello { client: None, ..hello }));
}

#[test]
fn a_link_that_does_not_begin_with_a_hello_is_refused() {
    let frame = sample().compose(&mut FrameBuilder::new()).to_bytes();
    let frame = read(&frame).expect("sound").expect("whole");
    assert_eq!(Hello::decode(&frame), Err(HelloError::Missing));
}

#[test]
fn a_second_hello_is_refused() {
    let mut reader = FrameReader::new();
    reader.feed(&HELLO.encode());
    assert!(reader.next().expect("sound").is_some());
    reader.expect(HELLO.expect());
    reader.feed(&HELLO.encode());
    assert_eq!(reader.next().expect_err("settled"), FrameError::HelloAgain);
}
