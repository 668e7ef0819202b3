//! The admin port: what a node is and does, told over HTTP to operators and their tools.
//!
//! ```text
//!  Prometheus, kubelet, browser                          core 0 … core N
//!      │ GET /metrics                                       ▲ │
//!      ▼                                               Tell │ │ Told (mailboxes)
//!  ┌─ thread "admin" ──────────────────────────────────────│─▼───────────────┐
//!  │  port ── conn, http: heads in, answers out ── gather: each core once    │
//!  │  (poll)  bounded in bytes, number and time    per 100 ms, 1 s to answer │
//!  │             └── health · status · exposition: what is answered          │
//!  └─────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! | path | says |
//! |---|---|
//! | `/livez` | whether the process and every core's loop turn; 503 names the core that does not |
//! | `/readyz` | whether clients may be sent here; 503 names what is missing |
//! | `/metrics` | Prometheus: `docs/metrics.md` lists every metric |
//! | `/status` | the node as JSON |
//! | `/` | a page that shows `/status`, for people |
//!
//! # Promises
//!
//! - The cores are asked at most once per [`ADMIN_FRESH_MS`](crate::limits::ADMIN_FRESH_MS), all requests
//!   together, and a core that has not answered is not asked again before it has. `/livez` asks nobody.
//! - Every answer comes in bounded time: a core that does not tell makes it a 503 that names the core.
//! - A connection serves one request and ends; heads, connections and times are bounded (`limits.rs`), and
//!   past a bound the client hears which.
//!
//! # Assumes
//!
//! Whoever can connect may read: there is no password. Nothing can be changed here, and no data of clients is
//! shown, neither keys nor values. It listens on an address of this machine alone unless told otherwise, and then
//! answers to no name but `localhost`, so that no page in a browser of this machine reads it.
//!
//! # Never
//!
//! Runs on a core, or waits while it holds anything that a core needs.

mod conn;
mod exposition;
mod gather;
mod health;
mod http;
mod port;
mod status;

pub use gather::{CoreReport, Letter, Question};
pub use port::AdminPort;
