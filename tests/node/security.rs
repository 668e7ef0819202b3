//! Doors: passwords, TLS for clients, TLS between nodes, and what is let through when they are closed.
//!
//! Certificates are made on the spot, by authorities that live as long as the test.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger::limits::VALUE_BYTES_MAX;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::admin::{admin, get, send, sums};
use crate::client::{Client, Door, Reply, encode};
use crate::cluster::{Cluster, Node, OUTRIGGER, TestDir};
use crate::config::run;
use crate::info::Info;
use crate::wait::{PATIENCE, wait_for, wait_until};

/// One that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    ca: PathBuf,
}

/// The files of one who was signed for.
struct Signed {
    cert: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn new(dir: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("a certificate");
        let ca = dir.join(format!("{name}.pem"));
        fs::write(&ca, own.pem()).expect("writable");
        Authority { issuer: Issuer::new(params, key), ca }
    }

    /// Signs for 127.0.0.1; the files are overwritten.
    fn sign(&self, dir: &Path, name: &str) -> Signed {
        self.sign_until(dir, name, 4_102_444_800)
    }

    /// The same, until so many seconds after 1970.
    fn sign_until(&self, dir: &Path, name: &str, until: u64) -> Signed {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(until);
        let own = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&own, &self.issuer).expect("signed");
        let signed = Signed {
            cert: dir.join(format!("{name}-cert.pem")),
            key: dir.join(format!("{name}-key.pem")),
        };
        fs::write(&signed.cert, certificate.pem()).expect("writable");
        fs::write(&signed.key, own.serialize_pem()).expect("writable");
        signed
    }

    /// How a client dials whom this authority has signed for; with a certificate of its own, if asked.
    fn dialing(&self, own: Option<&Signed>) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca).expect("PEM")).expect("a certificate");
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let cert = CertificateDer::from_pem_file(&own.cert).expect("PEM");
                let key = PrivateKeyDer::from_pem_file(&own.key).expect("PEM");
                builder.with_client_auth_cert(vec![cert], key).expect("a pair")
            }
        })
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn client_tls(signed: &Signed) -> [&str; 4] {
    ["--tls-cert", text(&signed.cert), "--tls-key", text(&signed.key)]
}

fn peer_tls<'a>(signed: &'a Signed, authority: &'a Authority) -> [&'a str; 6] {
    let [cert, key] = [text(&signed.cert), text(&signed.key)];
    ["--peer-tls-cert", cert, "--peer-tls-key", key, "--peer-tls-ca", text(&authority.ca)]
}

/// One node that runs and answers.
fn single(name: &str, extra: &[&str], door: Door) -> Cluster {
    let flags = [&["--groups", "2", "--request-ms", "20000"], extra].concat();
    let mut cluster = Cluster::prepare(name, 1, &flags);
    cluster.nodes[0].door = door;
    cluster.nodes[0].start();
    cluster.wait_ready();
    cluster
}

fn ctl(node: &Node, extra: &[&str], password: Option<&str>) -> Output {
    let mut command = Command::new(OUTRIGGER);
    command.args(["ctl", "--node", &node.client.to_string(), "--timeout", "20"]).args(extra);
    command.args(["member", "list"]).env_remove("OUTRIGGER_PASSWORD");
    if let Some(password) = password {
        command.env("OUTRIGGER_PASSWORD", password);
    }
    run(&mut command)
}

fn starts(reply: &Reply, with: &str) {
    assert!(reply.to_string().starts_with(with), "{with} is expected: {reply}");
}

#[test]
fn nobody_is_served_before_the_password() {
    let dir = TestDir::new("password");
    let config = dir.path().join("node.toml");
    fs::write(&config, "requirepass = \"open sesame\"\n").expect("writable");
    let door = Door { password: Some("open sesame".into()), ..Door::default() };
    let cluster = single("password-node", &["--config", text(&config)], door);
    let node = &cluster.nodes[0];

    let mut client = Client::connect(node.client);
    for line in
        ["PING", "GET k", "SET k v", "INFO", "CONFIG GET *", "NOSUCH", "MEMBER LIST", "DRAIN"]
    {
        let reply = client.say(line);
        assert_eq!(reply.to_string(), "-NOAUTH Authentication required.", "{line}");
    }
    starts(&client.say("HELLO 3"), "-NOAUTH ");
    starts(&client.say("AUTH sesame"), "-WRONGPASS ");
    starts(&client.call(&["HELLO", "3", "AUTH", "other", "open sesame"]), "-WRONGPASS ");
    assert_eq!(client.call(&["AUTH", "open sesame"]), Reply::ok());
    assert_eq!(client.say("SET k v"), Reply::ok());
    assert_eq!(client.say("RESET").to_string(), "+RESET");
    starts(&client.say("GET k"), "-NOAUTH ");
    let hello = client.call(&["HELLO", "3", "AUTH", "default", "open sesame", "SETNAME", "me"]);
    assert!(matches!(hello, Reply::Map(_)), "{hello}");
    assert_eq!(client.say("GET k"), Reply::bulk("v"));
    let shown = format!("{} {}", client.say("CONFIG GET *"), client.say("INFO"));
    assert!(!shown.contains("sesame"), "{shown}");

    // Nobody makes the node keep megabytes for a stranger.
    let mut stranger = Client::connect(node.client);
    stranger.send(b"*2\r\n$4\r\nAUTH\r\n$4000000\r\n").expect("sent");
    starts(&stranger.read().expect("a refusal"), "-NOAUTH ");
    assert!(stranger.is_closed());

    let file = dir.path().join("password");
    fs::write(&file, "open sesame\n").expect("writable");
    let refused = ctl(node, &[], None);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("NOAUTH"), "{refused:?}");
    let refused = ctl(node, &[], Some("wrong"));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("WRONGPASS"), "{refused:?}");
    // Nothing else than a right password helps, so a backup does not ask again.
    let mut command = Command::new(OUTRIGGER);
    command.args(["ctl", "--node", &node.client.to_string(), "--timeout", "60", "backup"]);
    command.arg(dir.path().join("backup")).env("OUTRIGGER_PASSWORD", "wrong");
    let refused = run(&mut command);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("WRONGPASS"), "{refused:?}");
    assert!(!said.contains("UNCERTAIN"), "it was tried again: {said}");
    assert!(ctl(node, &[], Some("open sesame")).status.success());
    assert!(ctl(node, &["--password-file", text(&file)], None).status.success());

    let printed = run(node.command().arg("--print-config"));
    assert!(!String::from_utf8_lossy(&printed.stdout).contains("sesame"));
    wait_until("wrong passwords are told", || node.log().contains("wrong_passwords"));
    assert!(!node.log().contains("sesame"), "{}", node.log());

    // Its groups have nowhere to go; what counts is that it was let in to be told so.
    let mut drain = Command::new(OUTRIGGER);
    drain.args(["drain", "--node", &node.client.to_string(), "--limit", "1s"]);
    let refused = run(drain.env_remove("OUTRIGGER_PASSWORD"));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("NOAUTH"), "{refused:?}");
    let drained = run(drain.args(["--password-file", text(&file)]));
    assert!(String::from_utf8_lossy(&drained.stdout).contains("groups moved"), "{drained:?}");
}

/// Three nodes that trust each other by certificate, and clients by TLS and password.
#[test]
fn a_cluster_behind_closed_doors() {
    let dir = TestDir::new("closed");
    let dir = dir.path();
    let (for_clients, for_peers) = (Authority::new(dir, "clients"), Authority::new(dir, "peers"));
    let (front, back) = (for_clients.sign(dir, "front"), for_peers.sign(dir, "back"));
    let password = dir.join("password");
    fs::write(&password, "open sesame\n").expect("writable");
    let flags = [
        &["--groups", "4", "--request-ms", "20000", "--requirepass-file", text(&password)],
        &client_tls(&front)[..],
        &peer_tls(&back, &for_peers)[..],
    ]
    .concat();
    let tls = Some(for_clients.dialing(None));
    let door = Door { tls, password: Some("open sesame".into()) };
    let mut cluster = Cluster::prepare("closed", 3, &flags);
    for node in &mut cluster.nodes {
        node.door = door.clone();
        node.start();
    }
    cluster.wait_ready();

    // A handshake that has only begun holds nobody up.
    let mut slow = TcpStream::connect(cluster.nodes[0].client).expect("the port accepts");
    slow.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    slow.write_all(&[22, 3, 1, 1, 0, 1, 0, 0]).expect("sent");

    let mut first = cluster.nodes[0].client();
    for number in 0..40 {
        assert_eq!(first.say(&format!("SET tls:{number} {number}")), Reply::ok());
    }
    let mut third = cluster.nodes[2].client();
    for number in 0..40 {
        assert_eq!(third.say(&format!("GET tls:{number}")), Reply::bulk(number.to_string()));
    }
    // Large values, both ways, by way of other nodes.
    let value: Vec<u8> = (0..VALUE_BYTES_MAX).map(|at| (at / 7) as u8).collect();
    for key in ["a", "b", "c", "d"] {
        assert_eq!(first.call(&[b"SET", key.as_bytes(), &value]), Reply::ok());
        // Not `assert_eq`: nobody wants four megabytes of difference.
        let is_whole = third.say(&format!("GET {key}")) == Reply::bulk(&value);
        assert!(is_whole, "the value of {key} through node 3");
    }
    // A pipeline that is cut into records wherever it likes.
    let mut pipeline = Vec::new();
    for number in 0..2000 {
        pipeline.extend(encode(&["SET", &format!("pipe:{}", number % 50), &number.to_string()]));
        pipeline.extend(encode(&["GET", &format!("pipe:{}", number % 50)]));
    }
    first.send(&pipeline).expect("sent");
    for number in 0..2000 {
        assert_eq!(first.read().expect("a reply"), Reply::ok(), "{number}");
        assert_eq!(first.read().expect("a reply"), Reply::bulk(number.to_string()));
    }
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");

    // Whoever does not speak TLS is closed, and nobody else notices.
    let mut plain = Client::connect(cluster.nodes[0].client);
    let _ = plain.send(b"PING\r\n");
    let mut rest = Vec::new();
    let _ = plain.writer().read_to_end(&mut rest);
    assert!(!rest.starts_with(b"+PONG"), "{rest:?}");
    wait_until("it is told", || cluster.nodes[0].log().contains("failed_handshakes"));
    assert_eq!(first.say("PING").to_string(), "+PONG");

    a_stranger_is_no_peer(&mut cluster, dir, &for_peers, &flags);
    certificates_are_read_again(&cluster, dir, &for_clients, &mut first);

    // The slow one is not waited for for ever.
    let _ = slow.read_to_end(&mut rest);
    let output = ctl(
        &cluster.nodes[0],
        &["--tls-ca", text(&dir.join("clients.pem")), "--password-file", text(&password)],
        None,
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("certificate"), "another authority: {said}");
}

/// A node whose certificate comes from elsewhere, and one without any.
fn a_stranger_is_no_peer(cluster: &mut Cluster, dir: &Path, peers: &Authority, flags: &[&str]) {
    let elsewhere = Authority::new(dir, "elsewhere");
    let foreign = elsewhere.sign(dir, "foreign");
    // It trusts the cluster; the cluster does not trust it.
    let mut other = peer_tls(&foreign, peers).to_vec();
    other.extend(["--groups", "4"]);
    let place = cluster.join(4, &other);
    let stranger = cluster.nodes.remove(place);
    wait_until("the stranger hears that it is refused", || stranger.log().contains("link down"));
    wait_until("a node says why", || {
        cluster.nodes.iter().any(|node| {
            let log = node.log();
            let refusals = log.lines().filter(|line| line.contains("peer refused"));
            refusals
                .into_iter()
                .any(|line| line.contains("127.0.0.1:") && line.contains("certificate"))
        })
    });
    assert!(!stranger.log().contains("link up"), "{}", stranger.log());
    let refused = |node: &Node| Info::of(node).number("peers_refused");
    assert!(0 < cluster.nodes.iter().map(refused).sum::<u64>(), "it is counted");
    drop(stranger);

    // Member by name, but the cluster's own dialing shows that it is an impostor: it is named.
    let third = cluster.nodes.pop().expect("three nodes");
    let mut arguments = third.arguments.clone();
    let at = arguments.iter().position(|flag| flag == "--peer-tls-cert").expect("given");
    arguments[at + 1] = text(&foreign.cert).to_owned();
    arguments[at + 3] = text(&foreign.key).to_owned();
    let mut impostor = third;
    assert!(impostor.stop().success());
    let sound = std::mem::replace(&mut impostor.arguments, arguments);
    let marks: Vec<usize> = cluster.nodes.iter().map(|node| node.log().len()).collect();
    impostor.start();
    wait_until("the impostor is named by its id", || {
        cluster.nodes.iter().zip(&marks).any(|(node, mark)| {
            let log = node.log();
            let news = log[*mark..].lines();
            news.into_iter().any(|line| {
                line.contains("link down")
                    && line.contains("peer=3")
                    && line.contains("certificate")
            })
        })
    });
    assert_eq!(cluster.nodes[0].client().say("SET two are-enough"), Reply::ok());
    impostor.kill();
    impostor.arguments = sound;
    impostor.start();
    cluster.nodes.push(impostor);
    cluster.wait_ready();
    assert_eq!(cluster.nodes[2].client().say("GET two"), Reply::bulk("are-enough"));
    assert!(flags.contains(&"--peer-tls-ca"));
}

/// SIGHUP: new connections get the new certificate; a broken one changes nothing.
fn certificates_are_read_again(cluster: &Cluster, dir: &Path, old: &Authority, held: &mut Client) {
    let node = &cluster.nodes[0];
    let next = Authority::new(dir, "next");
    let accepted = |authority: &Authority| {
        let tls = Some(authority.dialing(None));
        let door = Door { tls, password: Some("open sesame".into()) };
        Client::enter(node.client, &door, PATIENCE)
            .and_then(|mut client| client.try_call(&["PING"]))
            .is_ok_and(|reply| reply.to_string() == "+PONG")
    };
    assert!(accepted(old) && !accepted(&next));

    let kept = next.sign(dir, "front");
    node.signal(Signal::HUP);
    wait_until("the new files are read", || node.log().contains("read again"));
    assert!(accepted(&next) && !accepted(old));
    assert_eq!(held.say("PING").to_string(), "+PONG", "what was connected stays so");

    fs::write(&kept.key, "-----BEGIN PRIVATE KEY-----\nnonsense\n").expect("writable");
    node.signal(Signal::HUP);
    wait_until("the broken file is named", || {
        let log = node.log();
        log.lines().any(|line| line.contains("front-key.pem") && line.contains("stay in use"))
    });
    assert!(accepted(&next), "the old ones are as good as before");
}

#[test]
fn clients_show_certificates_where_they_must() {
    let dir = TestDir::new("client-ca");
    let dir = dir.path();
    let authority = Authority::new(dir, "authority");
    let (server, own) = (authority.sign(dir, "server"), authority.sign(dir, "client"));
    let flags = [&client_tls(&server)[..], &["--tls-client-ca", text(&authority.ca)]].concat();
    let door = Door { tls: Some(authority.dialing(Some(&own))), password: None };
    let cluster = single("client-ca", &flags, door);
    let node = &cluster.nodes[0];
    assert_eq!(node.client().say("SET k v"), Reply::ok());

    let foreign = Authority::new(dir, "elsewhere").sign(dir, "foreign");
    for own in [None, Some(&foreign)] {
        let door = Door { tls: Some(authority.dialing(own)), password: None };
        let answer = Client::enter(node.client, &door, PATIENCE)
            .and_then(|mut client| client.try_call(&["GET", "k"]));
        assert!(answer.is_err(), "{answer:?}");
    }
    wait_until("it is told", || node.log().contains("failed_handshakes"));
    assert_eq!(node.client().say("GET k"), Reply::bulk("v"));

    let ca = ["--tls-ca", text(&authority.ca)];
    let pair = ["--tls-cert", text(&own.cert), "--tls-key", text(&own.key)];
    let output = ctl(node, &[&ca[..], &pair[..]].concat(), None);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dir = TestDir::new("bad-files");
    let dir = dir.path();
    let authority = Authority::new(dir, "authority");
    let (one, two) = (authority.sign(dir, "one"), authority.sign(dir, "two"));
    let absent = dir.join("absent.pem");
    for (flags, expected) in [
        (["--tls-cert", text(&one.cert), "--tls-key", text(&two.key)], "one-cert.pem"),
        (["--tls-cert", text(&absent), "--tls-key", text(&one.key)], "absent.pem"),
        (["--tls-cert", text(&one.key), "--tls-key", text(&one.key)], "no certificate"),
        (["--tls-cert", text(&one.cert), "--tls-key", text(&one.cert)], "no private key"),
        (["--requirepass-file", text(&absent), "--groups", "2"], "absent.pem"),
        (["--peer-tls-cert", text(&one.cert), "--peer-tls-key", text(&one.key)], "peer_tls_ca"),
    ] {
        let cluster = Cluster::prepare("bad-files", 1, &flags);
        let output = run(&mut cluster.nodes[0].command());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{flags:?}: {said}");
    }
}

/// A certificate that nobody would accept is not shown to anybody.
#[test]
fn certificates_have_dates() {
    let dir = TestDir::new("dates");
    let dir = dir.path();
    let authority = Authority::new(dir, "authority");
    // 2020-01-01, and ten days from now.
    let over = authority.sign_until(dir, "over", 1_577_836_800);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let soon = now.as_secs() + 10 * 86_400;
    let ours = authority.sign_until(dir, "ours", soon);
    for flags in [&client_tls(&over)[..], &peer_tls(&over, &authority)] {
        let cluster = Cluster::prepare("expired", 1, flags);
        let output = run(&mut cluster.nodes[0].command());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_clear = ["over-cert.pem: expired at 2020-01-01T00:00:00Z", "Remedy: "];
        assert!(!output.status.success(), "{said}");
        assert!(is_clear.iter().all(|part| said.contains(part)), "{said}");
    }

    let flags = [&["--admin", "127.0.0.1:0"], &client_tls(&ours)[..], &peer_tls(&ours, &authority)]
        .concat();
    let door = Door { tls: Some(authority.dialing(None)), password: None };
    let cluster = single("dates", &flags, door);
    let node = &cluster.nodes[0];
    for setting in ["peer_tls_cert", "tls_cert"] {
        let warns = format!("{setting} {}: expires at ", text(&ours.cert));
        let log = node.log();
        assert!(log.lines().any(|line| line.contains(&warns) && line.contains(" days.")), "{log}");
    }
    let port = admin(node);
    let expiry = |whom: &str| {
        let body = get(port, "/metrics").body;
        let series = format!("outrigger_certificate_expiry_timestamp_seconds{{for=\"{whom}\"}} ");
        let value = body.lines().find_map(|line| line.strip_prefix(&series));
        value.unwrap_or_else(|| panic!("nothing for {whom}: {body}")).to_owned()
    };
    assert_eq!(["clients", "peers"].map(expiry), [soon, soon].map(|at| at.to_string()));

    for file in ["cert.pem", "key.pem"] {
        fs::copy(dir.join(format!("over-{file}")), dir.join(format!("ours-{file}")))
            .expect("copied");
    }
    node.signal(Signal::HUP);
    wait_until("the expired one is named", || {
        let log = node.log();
        let is_it = |line: &str| line.contains("ours-cert.pem: expired at ");
        log.lines().any(|line| is_it(line) && line.contains("stay in use"))
    });
    assert_eq!(expiry("clients"), soon.to_string());
    assert_eq!(node.client().say("PING").to_string(), "+PONG");

    authority.sign_until(dir, "ours", 4_102_444_800);
    node.signal(Signal::HUP);
    wait_until("the new one is in use", || expiry("clients") == "4102444800");
    assert_eq!(node.client().say("PING").to_string(), "+PONG");
}

/// Every refusal is counted, where it can be watched.
#[test]
fn what_the_doors_refuse_is_counted() {
    let dir = TestDir::new("counted");
    let dir = dir.path();
    let authority = Authority::new(dir, "authority");
    let server = authority.sign(dir, "server");
    let password = dir.join("password");
    fs::write(&password, "open sesame\n").expect("writable");
    let flags = [
        &["--admin", "127.0.0.1:0", "--requirepass-file", text(&password)][..],
        &client_tls(&server),
    ]
    .concat();
    let tls = Some(authority.dialing(None));
    let door = Door { tls: tls.clone(), password: Some("open sesame".into()) };
    let cluster = single("counted", &flags, door);
    let node = &cluster.nodes[0];
    let port = admin(node);
    let names = ["outrigger_auth_failures_total", "outrigger_tls_handshake_failures_total"];
    let metrics = || sums(&get(port, "/metrics").body);
    let before = metrics();
    assert_eq!(names.map(|name| before[name]), [0.0, 0.0]);

    let without = Door { tls, password: None };
    let mut client = Client::enter(node.client, &without, PATIENCE).expect("TLS");
    starts(&client.say("AUTH wrong"), "-WRONGPASS ");
    starts(&client.say("HELLO 3 AUTH nobody wrong"), "-WRONGPASS ");
    let mut plain = Client::connect(node.client);
    plain.send(b"PING\r\n").expect("sent");
    assert!(plain.read().is_err());
    wait_until("wrong passwords and handshakes are counted", || {
        let now = metrics();
        names.map(|name| now[name]) == [2.0, 1.0]
    });
    let stats = node.client().say("INFO stats").text();
    assert!(stats.contains("acl_access_denied_auth:2\r\n"), "{stats}");

    // No hello: whoever speaks to the peer port is no peer.
    let mut foreign = TcpStream::connect(node.peer).expect("the peer port accepts");
    foreign.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    foreign.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let _ = foreign.read_to_end(&mut Vec::new());
    wait_until("refused peers are counted", || metrics()["outrigger_peers_refused_total"] == 1.0);

    let by_class = || {
        let body = get(port, "/metrics").body;
        ["2xx", "4xx", "5xx"].map(|class| {
            let series = format!("outrigger_admin_requests_total{{code=\"{class}\"}} ");
            let count = body.lines().find_map(|line| line.strip_prefix(&series));
            count.unwrap_or_else(|| panic!("no {class}: {body}")).parse::<u64>().expect("a count")
        })
    };
    let [good, bad, failed] = by_class();
    assert_eq!(get(port, "/nothing").status, 404);
    assert_eq!(send(port, b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 405);
    assert_eq!(by_class(), [good + 1, bad + 2, failed], "and the one before that asked");
}

#[test]
fn clients_are_bounded_in_number_and_in_silence() {
    let cluster =
        single("bounds", &["--max-clients", "2", "--client-idle-s", "1"], Door::default());
    let node = &cluster.nodes[0];
    // The probes that found it ready may still be leaving.
    let mut both = wait_for("two are let in", || {
        let mut both = [Client::connect(node.client), Client::connect(node.client)];
        let served = both.iter_mut().all(|client| {
            client.try_call(&["PING"]).is_ok_and(|reply| reply.to_string() == "+PONG")
        });
        served.then_some(both)
    });
    let mut third = Client::connect(node.client);
    let said = third.read().expect("a refusal");
    assert_eq!(said.to_string(), "-ERR max number of clients reached");
    assert!(third.is_closed());
    let stats = both[0].say("INFO stats").text();
    let rejected = stats.lines().find_map(|line| line.strip_prefix("rejected_connections:"));
    assert!(rejected.is_some_and(|count| count != "0"), "{stats}");
    // Silent from here on.
    for client in &mut both {
        assert!(client.is_closed(), "{} is still connected", client.address());
    }
    assert_eq!(node.client().say("PING").to_string(), "+PONG");
}
