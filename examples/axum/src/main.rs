//! An HTTP service on tokio and axum, with an embedded Outrigger node: two runtimes, one process, no glue between them.
//!
//! ```sh
//! cargo run -p axum-example                                   # then, in another terminal:
//! curl -X POST localhost:7920/page/views -d 5                 # 5
//! curl localhost:7920/page/views                              # 5
//! ```
//!
//! ```text
//!  tokio's threads                        the node's own threads
//!  axum handler ── Client::write ───────► mailbox of a core ─► log, quorum, Votes::apply
//!     .await    ◄── the task is woken ─────────────────────────────┘
//! ```
//!
//! Each outcome has its HTTP status: executed is 200, not executed 503 (or 400) and may be sent again, unknown is 504: the caller
//! reads before it sends the request again.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use bytes::Bytes;
use outrigger::id::{GroupId, Index, mix};
use outrigger::runtime::client::{Failure, Outcome, Why};
use outrigger::store::{Frozen, Restoring, Wanted, whole};
use outrigger::wire::reply::Reply;
use outrigger::{Client, Config, Node, StateMachine};

const GROUPS: u64 = 4;

/// Votes by page: a write is `page=votes`, a read is `page`.
#[derive(Default)]
struct Votes(BTreeMap<String, i64>);

impl Votes {
    fn parse(payload: &[u8]) -> Option<(&str, i64)> {
        let (page, votes) = str::from_utf8(payload).ok()?.rsplit_once('=')?;
        Some((page, votes.parse().ok()?))
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(page, votes)| format!("{page}={votes}\n"))
    }
}

impl StateMachine for Votes {
    fn apply(&mut self, _: Index, payload: &Bytes, _: Wanted) -> Reply {
        let Some((page, votes)) = Self::parse(payload) else {
            return Reply::error("ERR", "votes are a number");
        };
        let count = self.0.entry(page.to_owned()).or_default();
        *count = count.saturating_add(votes);
        Reply::Int(*count)
    }
    fn read(&self, page: &Bytes) -> Reply {
        let page = str::from_utf8(page).unwrap_or_default();
        self.0.get(page).map_or(Reply::Nil, |votes| Reply::Int(*votes))
    }
    fn digest(&self) -> u64 {
        self.lines().fold(0, |digest, line| {
            line.bytes().fold(digest, |hash, byte| mix(hash ^ u64::from(byte)))
        })
    }
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn freeze(&self) -> Box<dyn Frozen> {
        whole::frozen(self.lines().collect::<String>())
    }
    fn restoring(&self) -> Box<dyn Restoring> {
        whole::restoring(|bytes| {
            let lines = str::from_utf8(bytes).ok()?.lines();
            let votes: Option<_> = lines.map(|line| Self::parse(line.as_bytes())).collect();
            let votes: Vec<(&str, i64)> = votes?;
            Some(Box::new(Votes(votes.into_iter().map(|(page, n)| (page.to_owned(), n)).collect())))
        })
    }
}

/// Pages are spread over the groups.
fn group_of(page: &str) -> GroupId {
    GroupId(page.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte))) % GROUPS)
}

fn answer(outcome: Outcome) -> (StatusCode, String) {
    match outcome {
        Ok(Reply::Int(votes)) => (StatusCode::OK, format!("{votes}\n")),
        Ok(Reply::Nil) => (StatusCode::NOT_FOUND, "nobody voted\n".into()),
        Ok(refusal) => (StatusCode::BAD_REQUEST, format!("{}\n", refusal.error_text())),
        Err(Failure::NotExecuted { why: Why::Invalid, text, .. }) => {
            (StatusCode::BAD_REQUEST, text)
        }
        Err(failure @ Failure::NotExecuted { .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{failure}; send it again\n"))
        }
        Err(failure @ Failure::Unknown { .. }) => {
            (StatusCode::GATEWAY_TIMEOUT, format!("{failure}; read before sending it again\n"))
        }
    }
}

async fn vote(
    State(client): State<Client>,
    Path(page): Path<String>,
    votes: String,
) -> (StatusCode, String) {
    answer(client.write(group_of(&page), format!("{page}={}", votes.trim())).await)
}

async fn votes(State(client): State<Client>, Path(page): Path<String>) -> (StatusCode, String) {
    answer(client.read(group_of(&page), page).await)
}

fn service(client: Client) -> Router {
    Router::new().route("/page/{page}", get(votes).post(vote)).with_state(client)
}

fn start(dir: &str, peer: &str) -> Result<Node, Box<dyn std::error::Error>> {
    let config = Config { groups: GROUPS, ..Config::new(1, dir, peer.parse()?) };
    let node = Node::start(config, |_group| Box::new(Votes::default()))?;
    // On the main thread, before tokio runs: this waits.
    assert!(node.wait_until_ready(Duration::from_secs(30)), "no leader; see the log");
    Ok(node)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = start("axum-data", "127.0.0.1:7913")?;
    let service = service(node.client());
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:7920").await?;
        axum::serve(listener, service).await
    })?;
    Ok(node.stop()?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};

    use super::*;

    /// One request over a connection of its own; the status and the body.
    fn ask(at: SocketAddr, method: &str, path: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect(at).expect("it listens");
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("answered");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
        (head.split(' ').nth(1).expect("a status").to_owned(), body.trim().to_owned())
    }

    #[test]
    fn votes_are_counted_over_http() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let dir = dir.join(format!("../../target/tmp/axum-{}", std::process::id()));
        let peer = format!("127.0.0.1:{}", 9_700 + std::process::id() % 200);
        let node = start(dir.to_str().expect("a plain path"), &peer).expect("it starts");
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        let listener =
            runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("bound");
        let at = listener.local_addr().expect("an address");
        runtime.spawn(axum::serve(listener, service(node.client())).into_future());
        let ok = |body: &str| ("200".to_owned(), body.to_owned());
        assert_eq!(ask(at, "GET", "/page/a", "").0, "404");
        assert_eq!(ask(at, "POST", "/page/a", "5"), ok("5"));
        assert_eq!(ask(at, "POST", "/page/a", "-2"), ok("3"));
        assert_eq!(ask(at, "GET", "/page/a", ""), ok("3"));
        assert_eq!(ask(at, "POST", "/page/a", "many").0, "400");
        node.stop().expect("a clean end");
        assert_eq!(
            ask(at, "POST", "/page/a", "1").0,
            "503",
            "the node has stopped, the service has not"
        );
        drop(runtime);
        let _ = std::fs::remove_dir_all(dir);
    }
}
