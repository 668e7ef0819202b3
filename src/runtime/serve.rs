//! `outrigger serve`: from a configuration to a running node, and to its end.

use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Config;
use crate::store::map::Map;

use super::fatal::Fatal;
use super::keyring::Keyring;
use super::node::Node;
use super::process;

/// Runs the node until SIGTERM or SIGINT, or until it cannot go on.
///
/// # Errors
/// Why it could not start, or why it stopped itself; one line.
pub fn serve(config: &Config) -> Result<(), Fatal> {
    process::use_small_pages();
    let node = Node::start_with(config, Arc::new(|_| Box::new(Map::new())))?;
    let keyring = Arc::clone(&node.keyring);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
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
    } else {
        // So its other cores are not told to stop, and the cause is the last line that anybody sees.
        std::mem::forget(node);
    }
    result
}

/// Certificates, keys and the password, read again. A node without such files goes on as it is: whoever reloads all
/// services of a machine does not mean to end one.
fn reload(keyring: &Keyring) {
    if !keyring.has_files() {
        tracing::info!("SIGHUP: no certificates, keys or password to read again");
        return;
    }
    match keyring.reload() {
        Ok(()) => {
            tracing::info!("certificates, keys and password read again: new connections use them")
        }
        Err(cause) => {
            tracing::error!("{cause}; the old certificates, keys and password stay in use")
        }
    }
}
