//! HELLO and what it changes: the shapes of replies under RESP2 and RESP3.

use crate::client::{Client, Reply};
use crate::script::play;
use crate::shared;

/// The fields of a HELLO reply, whichever shape it has.
fn fields(reply: Reply) -> Vec<(String, Reply)> {
    let pairs = match reply {
        Reply::Map(pairs) => pairs,
        Reply::Array(flat) => {
            flat.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
        }
        other => panic!("HELLO got {other}"),
    };
    pairs.into_iter().map(|(name, value)| (name.text(), value)).collect()
}

fn says_of_itself(client: &mut Client, hello: &str, protocol: i64) {
    let reply = client.say(hello);
    assert_eq!(matches!(reply, Reply::Map(_)), protocol == 3, "{hello}: {reply}");
    let fields = fields(reply);
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["server", "version", "proto", "id", "mode", "role", "modules"]);
    let value = |name: &str| &fields.iter().find(|field| field.0 == name).expect("listed above").1;
    assert_eq!(*value("proto"), Reply::Integer(protocol), "{hello}");
    assert_eq!(value("mode").text(), "standalone");
    assert_eq!(*value("modules"), Reply::Array(Vec::new()));
    value("id").integer();
}

#[test]
fn the_version_is_negotiated_and_stays() {
    let cluster = shared::cluster();
    let mut client = cluster.nodes[0].client();
    says_of_itself(&mut client, "HELLO", 2);
    says_of_itself(&mut client, "HELLO 3", 3);
    says_of_itself(&mut client, "HELLO", 3);
    // A version that is refused changes nothing.
    for version in ["1", "4", "0", "-3"] {
        let reply = client.say(&format!("HELLO {version}"));
        assert_eq!(reply.to_string(), "-NOPROTO unsupported protocol version", "HELLO {version}");
    }
    says_of_itself(&mut client, "HELLO", 3);
    let reply = client.say("HELLO three");
    assert_eq!(reply.to_string(), "-ERR Protocol version is not an integer or out of range");
    says_of_itself(&mut client, "HELLO 2", 2);
    says_of_itself(&mut client, "HELLO 3 SETNAME tester", 3);
    let reply = client.say("HELLO 3 FOO");
    assert_eq!(reply.to_string(), "-ERR Syntax error in HELLO option 'FOO'");
    // It is a matter of one connection.
    says_of_itself(&mut cluster.nodes[0].client(), "HELLO", 2);
}

#[test]
fn a_version_that_no_client_may_ask_for_leaves_resp2() {
    let cluster = shared::cluster();
    let mut client = cluster.nodes[0].client();
    client.say("HELLO 4").error();
    play(&mut client, "GET hello:none => $-1");
}

#[test]
fn resp3_has_a_null_and_a_map() {
    let cluster = shared::cluster();
    for node in &cluster.nodes {
        let mut client = node.client();
        client.say("HELLO 3");
        play(
            &mut client,
            r#"
            DEL h3
            GET h3                      => _
            GETDEL h3                   => _
            SET h3 v XX                 => _
            SET h3 v IFEQ w             => _
            SET h3 v GET                => _
            SET h3 w NX                 => _
            GET h3                      => "v"
            GETSET h3:none v            => _
            DEL h3:none                 => :1
            MGET h3 h3:none             => ["v" _]
            EXISTS h3                   => :1
            INCR h3                     => -ERR value is not an integer or out of range
            CONFIG GET save             => {"save"=""}
            CONFIG GET no-such-thing    => {}
            COMMAND INFO no-such-thing  => [_]
            COMMAND DOCS no-such-thing  => {}
            PING                        => +PONG
            DEL h3                      => :1
            "#,
        );
    }
}

#[test]
fn resp2_has_nil_and_flat_arrays() {
    let cluster = shared::cluster();
    play(
        &mut cluster.nodes[0].client(),
        r#"
        HELLO 2
        MGET h2:none h2:none2           => [$-1 $-1]
        CONFIG GET save                 => ["save" ""]
        CONFIG GET no-such-thing        => []
        COMMAND DOCS no-such-thing      => []
        "#,
    );
}
