//! The one cluster that all polite tests share: three nodes of two cores, eight groups.
//!
//! Most tests only touch keys of their own and may run side by side ([`cluster`]); those that look
//! at the whole key space, count, or disturb a node have the cluster to themselves ([`alone`]).

use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::cluster::{Cluster, Node};

/// Groups of the shared cluster.
pub(crate) const GROUPS: u64 = 8;
/// Cores of each of its nodes.
pub(crate) const CORES: u64 = 2;

struct Shared {
    cluster: RwLock<Cluster>,
    /// Kept for its pipe alone.
    _guardian: Child,
}

/// The cluster, beside other tests.
pub(crate) fn cluster() -> RwLockReadGuard<'static, Cluster> {
    shared().cluster.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The cluster, and nobody else on it.
pub(crate) fn alone() -> RwLockWriteGuard<'static, Cluster> {
    shared().cluster.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let groups = GROUPS.to_string();
        let cores = CORES.to_string();
        // Patient with a busy machine: a late reply is not what these tests are about.
        let flags = ["--groups", &groups, "--cores", &cores, "--request-ms", "20000"];
        let cluster = Cluster::start("shared", 3, &flags);
        let guardian = guard(&cluster);
        Shared { cluster: RwLock::new(cluster), _guardian: guardian }
    })
}

/// Statics are never dropped. A shell that reads from a pipe notices the end of this process,
/// however it ends, kills the nodes and removes their files.
fn guard(cluster: &Cluster) -> Child {
    // A node that dies while it makes a file may make it behind the remover's back: try again.
    let script = r#"dir=$1; shift; read -r _; kill -9 "$@"
        for try in 1 2 3 4 5; do rm -rf "$dir" && exit; sleep 1; done"#;
    Command::new("sh")
        .args(["-c", script, "guardian"])
        .arg(cluster.dir())
        .args(cluster.nodes.iter().map(Node::pid).map(|pid| pid.to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell")
}
