//! `outrigger serve`: from a configuration to a running node, and to its end.

use std::sync::Arc;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Config, FlushMethod};
use crate::id::NodeId;
use crate::shard::Leases;

use super::disk;
use super::fatal::Fatal;
use super::identity::Home;
use super::keyring::Keyring;
use super::node::{Node, Setup};
use super::preflight;

/// Runs the node until SIGTERM or SIGINT, or until it cannot go on.
///
/// # Errors
/// Why it could not start, or why it stopped itself; one line.
pub fn serve(config: &Config) -> Result<(), Fatal> {
    let keyring = Arc::new(Keyring::open(&config.security)?);
    let connections_max = preflight::check(config)?;
    let home = Home::open(config)?;
    let this = NodeId(config.id);
    let origin = home.origin();
    let Home { bootstrap, known, keeper, .. } = home;
    let setup = Setup {
        cluster: home.cluster,
        node: this,
        incarnation: home.incarnation,
        dir: config.dir.clone(),
        client: config.client,
        advertise_client: config.advertise_client,
        routing: config.routing,
        peer: config.peer,
        admin: config.admin,
        // The address to bind may be any of the machine's; the list says which one the others use.
        address: config.peers.get(&config.id).copied().unwrap_or(config.peer),
        seeds: config.peers.iter().map(|(id, address)| (NodeId(*id), *address)).collect(),
        bootstrap,
        birth: home.birth,
        origin,
        proven: home.proven,
        cores: config.cores,
        groups: config.groups,
        election_ms: config.election_ms,
        heartbeat_ms: config.heartbeat_ms,
        priority: config.priority,
        fault_commands: config.fault_commands,
        request_ms: config.request_ms,
        flushes_in_flight: config.flushes_in_flight,
        flush_method: flush_method(config),
        log_cache_bytes: config.log_cache_bytes,
        leases: Leases {
            groups: config.lease_groups.clone(),
            drift_percent: config.lease_drift_percent,
        },
        log_bytes: config.log_bytes,
        snapshot_bytes_per_s: config.snapshot_bytes_per_s,
        checkpoint_ms: config.checkpoint_ms,
        wal_bytes_max: if config.wal_bytes_max == 0 { u64::MAX } else { config.wal_bytes_max },
        connections_max,
        client_idle_s: config.client_idle_s,
        keyring: Arc::clone(&keyring),
        spin: Duration::from_micros(config.spin_us),
    };
    let node = Node::start(setup, known, keeper)?;
    tracing::info!(
        node = config.id,
        client = %node.client(),
        peer = %config.peer,
        dir = %config.dir.display(),
        incarnation = home.incarnation.0,
        "outrigger {} started",
        env!("CARGO_PKG_VERSION"),
    );
    if let Some(admin) = node.admin() {
        tracing::info!("status page: http://{admin}/");
        if !admin.ip().is_loopback() {
            tracing::warn!(
                %admin,
                "the admin port can be reached from other machines: it is unencrypted and asks for no password",
            );
        }
    }
    // Without files to read again, the end of the terminal ends the node as ever.
    let wanted =
        if keyring.has_files() { &[SIGTERM, SIGINT, SIGHUP][..] } else { &[SIGTERM, SIGINT] };
    let mut signals = Signals::new(wanted)
        .map_err(|error| Fatal::new(format!("cannot listen for signals: {error}")))?;
    let handle = signals.handle();
    let stopper = node.stopper();
    let listener = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in &mut signals {
            if signal == SIGHUP {
                reload(&keyring);
                continue;
            }
            tracing::info!(signal, "stopping");
            stopper.stop();
        }
    });
    let listener =
        listener.map_err(|error| Fatal::new(format!("cannot start a thread: {error}")))?;
    let result = node.join();
    handle.close();
    if result.is_ok() {
        // Joined only at a clean end: after a failure the process leaves at once.
        let _ = listener.join();
    }
    result
}

/// Certificates, keys and the password, read again.
fn reload(keyring: &Keyring) {
    match keyring.reload() {
        Ok(()) => {
            tracing::info!("certificates, keys and password read again: new connections use them")
        }
        Err(cause) => {
            tracing::error!("{cause}; the old certificates, keys and password stay in use")
        }
    }
}

/// What the configuration says, or what suits the disk.
fn flush_method(config: &Config) -> FlushMethod {
    if let Some(method) = config.flush_method {
        return method;
    }
    let (method, measured) = disk::choose(&config.dir);
    if let Some(flushes) = measured {
        tracing::info!(
            dsync = %flushes.dsync,
            fdatasync = %flushes.fdatasync,
            "log writes are made durable by {}",
            method.name(),
        );
    }
    method
}
