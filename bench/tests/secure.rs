//! The load generator behind closed doors: TLS, certificates of its own, passwords. The real program against a small
//! server made here.
#![allow(clippy::disallowed_methods, reason = "the servers of these tests are threads that wait")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

/// How large a value is here: a few of them are more than a socket takes at once.
const VALUE_BYTES: usize = 2_000_000;
/// What a server's socket holds before the server reads it, in bytes.
const RECEIVE_BYTES: usize = 64 << 10;

/// A directory of this test's own, gone when it ends.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("load-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Files of an authority, and of one who was signed for.
struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

fn files(dir: &Dir, name: &str) -> Files {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let ca = dir.file(&format!("{name}-ca.pem"), &params.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(params, key);
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let own = KeyPair::generate().unwrap();
    let cert = params.signed_by(&own, &issuer).unwrap();
    Files {
        ca,
        cert: dir.file(&format!("{name}-cert.pem"), &cert.pem()),
        key: dir.file(&format!("{name}-key.pem"), &own.serialize_pem()),
    }
}

/// Everything that was said to log in, by all connections.
type Logins = Arc<Mutex<Vec<Vec<String>>>>;

/// Serves TLS: one login a connection, then writes and reads. With `clients`, whoever shows no certificate of
/// theirs is turned away.
fn serve(own: &Files, clients: Option<&Files>, logins: &Logins) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&clients.ca).unwrap()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let cert = CertificateDer::from_pem_file(&own.cert).unwrap();
    let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
    let config = Arc::new(builder.with_single_cert(vec![cert], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, RECEIVE_BYTES).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let logins = Arc::clone(logins);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let stream = StreamOwned::new(session, socket.unwrap());
            let logins = Arc::clone(&logins);
            // A client that is turned away ends its connection with an error, and that is all.
            thread::spawn(move || answer(stream, &logins));
        }
    });
    addr
}

fn answer(stream: impl Read + Write, logins: &Logins) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let words = request(&mut stream)?;
        let reply = match words[0].as_slice() {
            b"AUTH" => {
                let text = |word: &Vec<u8>| String::from_utf8_lossy(word).into_owned();
                let said: Vec<String> = words[1..].iter().map(text).collect();
                let good = said.last().is_some_and(|password| password == "open sesame");
                logins.lock().unwrap().push(said);
                if good { b"+OK\r\n".to_vec() } else { b"-WRONGPASS no\r\n".to_vec() }
            }
            b"SET" => {
                assert_eq!(words[2].len(), VALUE_BYTES);
                b"+OK\r\n".to_vec()
            }
            _ => [format!("${VALUE_BYTES}\r\n").as_bytes(), &[b'v'; VALUE_BYTES], b"\r\n"].concat(),
        };
        stream.get_mut().write_all(&reply).ok()?;
        stream.get_mut().flush().ok()?;
    }
}

/// The words of the next request; `None` at the end.
fn request(stream: &mut impl BufRead) -> Option<Vec<Vec<u8>>> {
    let count = number(stream, '*')?;
    let word = |_| {
        let mut word = vec![0; number(stream, '$')? + 2];
        stream.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        Some(word)
    };
    (0..count).map(word).collect()
}

/// A line that is a sign and a number.
fn number(stream: &mut impl BufRead, sign: char) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}

fn load(addr: &str, flags: &[&str]) -> (Output, serde_json::Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--addr", addr, "--warmup", "0", "--json", "-", "--keys", "10"])
        .args(["-c", "2", "-P", "8", "-n", "24", "--read-share", "0.5"])
        .args(["--value-size", &VALUE_BYTES.to_string()])
        .args(flags)
        .output()
        .unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, json)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn values_larger_than_a_socket_takes_go_through_tls_both_ways() {
    let (dir, logins) = (Dir::new("tls"), Logins::default());
    let server = files(&dir, "server");
    let addr = serve(&server, None, &logins);
    let password = dir.file("password", "open sesame\n");
    let flags = ["--tls-ca", text(&server.ca), "--password-file", text(&password)];
    let (output, json) = load(&addr, &flags);
    assert!(output.status.success(), "{output:?}");
    let run = &json["runs"][0];
    assert_eq!((&run["ops_count"], &run["disconnects_count"]), (&24.into(), &0.into()), "{run}");
    let writes = run["acked_writes_count"].as_u64().unwrap();
    assert!(0 < writes && writes < 24, "{run}");
    assert_eq!(json["plan"]["tls"], true);
    // Before the run the server is looked at, on a connection of its own.
    assert_eq!(*logins.lock().unwrap(), [["open sesame"]; 3]);
    let shown = format!("{output:?}");
    assert!(!shown.contains("open sesame"), "a report shows no password: {shown}");
}

#[test]
fn who_is_not_let_in_says_why() {
    let (dir, logins) = (Dir::new("locked"), Logins::default());
    let (server, other) = (files(&dir, "server"), files(&dir, "other"));
    let addr = serve(&server, None, &logins);
    let refused = |flags: &[&str], word: &str| {
        let (output, _) = load(&addr, flags);
        assert_eq!(output.status.code(), Some(1), "{flags:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(word), "{flags:?}: {said}");
    };
    refused(&["--tls-ca", text(&other.ca)], "UnknownIssuer");
    refused(&["--tls-ca", text(&server.ca), "--tls-name", "elsewhere"], "not valid for");
    let wrong = dir.file("wrong", "guess");
    let flags = ["--tls-ca", text(&server.ca), "--password-file", text(&wrong), "--user", "ali"];
    refused(&flags, "WRONGPASS");
    assert_eq!(*logins.lock().unwrap(), [["ali", "guess"]]);
}

#[test]
fn a_certificate_is_shown_where_one_is_asked_for() {
    let (dir, logins) = (Dir::new("mutual"), Logins::default());
    let (server, client) = (files(&dir, "server"), files(&dir, "client"));
    let addr = serve(&server, Some(&client), &logins);
    let ca = ["--tls-ca", text(&server.ca)];
    let shown = [&ca[..], &["--tls-cert", text(&client.cert), "--tls-key", text(&client.key)]];
    let (output, json) = load(&addr, &shown.concat());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json["runs"][0]["ops_count"], 24);
    assert!(!load(&addr, &[&ca[..], &["--drain", "1"]].concat()).0.status.success());
}
