//! The wire below the commands: inline commands, and garbage, which closes its own connection
//! after Redis' own words and is noticed by nobody else.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::Reply;
use crate::shared;
use crate::wait::wait_until;

#[test]
fn inline_commands() {
    let cluster = shared::cluster();
    let mut client = cluster.nodes[0].client();
    // what is typed, and the reply
    let lines: &[(&[u8], &str)] = &[
        (b"PING\r\n", "+PONG"),
        (b"ping\n", "+PONG"),
        (b"\r\n\r\n  PING  \r\n", "+PONG"),
        (b"SET inline 'a b'\r\n", "+OK"),
        (b"GET inline\r\n", "\"a b\""),
        (b"SET inline \"\\x41\\n\\\"\"\r\n", "+OK"),
        (b"GET inline\r\n", r#""A\n\"""#),
        (b"SET inline ''\r\n", "+OK"),
        (b"STRLEN inline\r\n", ":0"),
        (b"GET\r\n", "-ERR wrong number of arguments for 'get' command"),
        // An empty array is no command, and gets no reply.
        (b"*0\r\nPING\r\n", "+PONG"),
        (b"*-1\r\nPING\r\n", "+PONG"),
    ];
    for (typed, expected) in lines {
        client.send(typed).expect("sent");
        let got = client.read().expect("a reply").to_string();
        assert_eq!(got, *expected, "{}", typed.escape_ascii());
    }
}

const TOO_MANY: &str = "invalid multibulk length: a command has at most 65536 arguments";
const TOO_LONG: &str = "invalid bulk length: a command has at most 4194304 bytes";

/// What is sent, and the error that comes before the connection closes.
fn garbage() -> Vec<(Vec<u8>, &'static str)> {
    let lines: &[(&[u8], &str)] = &[
        (b"*1\r\nx4\r\nPING\r\n", "expected '$', got 'x'"),
        (b"*3\r\n$3\r\nSET\r\n:3\r\n", "expected '$', got ':'"),
        (b"*x\r\n", "invalid multibulk length"),
        (b"*9999999999\r\n", TOO_MANY),
        (b"*99999999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$-5\r\n", "invalid bulk length"),
        (b"*1\r\n$600000000\r\n", TOO_LONG),
        (b"*1\r\n$99999999999999999999999\r\n", "invalid bulk length"),
        (b"GET \"abc\r\n", "unbalanced quotes in request"),
        (b"GET \"abc\"d\r\n", "unbalanced quotes in request"),
    ];
    let mut all: Vec<_> = lines.iter().map(|(bytes, error)| (bytes.to_vec(), *error)).collect();
    all.push((vec![b'x'; 70_000], "too big inline request"));
    let mut count = vec![b'1'; 70_000];
    count[0] = b'*';
    all.push((count, "too big mbulk count string"));
    all
}

#[test]
fn garbage_closes_its_own_connection_only() {
    let cluster = shared::cluster();
    let node = &cluster.nodes[0];
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Neighbours on the same node, one per core at least, who must not notice.
        let neighbours: Vec<_> = (0..4)
            .map(|number| {
                let is_over = &is_over;
                let mut client = node.client();
                scope.spawn(move || {
                    let mut count = 0;
                    while count < 20 || !is_over.load(Ordering::Relaxed) {
                        let key = format!("neighbour:{number}");
                        let value = count.to_string();
                        assert_eq!(client.call(&["SET", &key, &value]), Reply::ok());
                        assert_eq!(client.call(&["GET", &key]), Reply::bulk(&value));
                        count += 1;
                    }
                })
            })
            .collect();
        let result = std::panic::catch_unwind(|| {
            for (bytes, error) in garbage() {
                let shown = bytes[..bytes.len().min(40)].escape_ascii().to_string();
                let mut client = node.client();
                // What came before the garbage is answered.
                client.send(b"PING\r\n").expect("sent");
                assert_eq!(client.read().expect("a reply").to_string(), "+PONG");
                // The node may close before it has taken everything.
                let _ = client.send(&bytes);
                let reply = client.read().unwrap_or_else(|e| panic!("{shown}: no reply: {e}"));
                assert_eq!(reply.to_string(), format!("-ERR Protocol error: {error}"), "{shown}");
                assert!(client.is_closed(), "{shown}: the connection is closed");
            }
        });
        is_over.store(true, Ordering::Relaxed);
        for neighbour in neighbours {
            neighbour.join().expect("a neighbour noticed");
        }
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A client that first sends all of it, as most do, hears why it was refused, and not that its connection broke.
#[test]
fn who_sends_too_much_gets_to_read_the_error() {
    let node = &shared::cluster().nodes[0];
    let value = vec![b'v'; 20 << 20];
    let mut long = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20971520\r\n".to_vec();
    long.extend_from_slice(&value);
    long.extend_from_slice(b"\r\n");
    let mut many = b"*200002\r\n$4\r\nSADD\r\n$1\r\nk\r\n".to_vec();
    many.extend(b"$9\r\nmember123\r\n".repeat(200_000));
    for (bytes, error) in [(long, TOO_LONG), (many, TOO_MANY)] {
        let mut client = node.client();
        client.send(&bytes).expect("it is all taken");
        let reply = client.read().expect("a reply").to_string();
        assert_eq!(reply, format!("-ERR Protocol error: {error}"));
        assert!(client.is_closed());
    }
}

/// What a page in a browser can make it send (HTTP with commands in the body) is not executed.
#[test]
fn http_is_no_way_to_say_commands() {
    let node = &shared::cluster().nodes[0];
    let mut client = node.client();
    assert_eq!(client.say("SET http:victim lives"), Reply::ok());
    for head in ["POST / HTTP/1.1\r\n", "PUT / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n"] {
        let mut browser = node.client();
        let request = format!("{head}Host: 127.0.0.1\r\n\r\nDEL http:victim\r\n");
        browser.send(request.as_bytes()).expect("sent");
        while let Ok(reply) = browser.read() {
            assert!(reply.to_string().starts_with("-ERR"), "{reply}");
        }
    }
    assert_eq!(client.say("GET http:victim"), Reply::bulk("lives"));
    let told = || node.log().contains("HTTP on the port of the Redis protocol");
    wait_until("the log tells of it", told);
}

/// Random bytes: whatever comes back, the node lives on and serves others.
#[test]
fn random_bytes() {
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let cluster = shared::cluster();
    let node = &cluster.nodes[1];
    let mut other = node.client();
    for round in 0..200 {
        let mut client = node.client();
        let length = random.usize(1..2000);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        // Half of them begin as a command does, so that the noise gets further in.
        if random.bool() {
            let mut start = b"*3\r\n$3\r\nGET\r\n$".to_vec();
            start.extend(bytes);
            bytes = start;
        }
        let _ = client.send(&bytes);
        drop(client);
        if round % 20 == 0 {
            assert_eq!(other.say("PING").to_string(), "+PONG", "seed {seed}, round {round}");
        }
    }
    assert_eq!(other.say("SET noise over").to_string(), "+OK", "seed {seed}");
}
