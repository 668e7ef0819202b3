//! What a node proves itself with and asks of others: the password's digest, certificates, keys,
//! authorities; read from files, and again at SIGHUP.
//!
//! ```text
//!   Security (names of files) ── read, judged ──► Keys ──► every new connection
//!            SIGHUP ── read, judged ─┬─ sound ──► they take the place of the old ones
//!                                    └─ broken, not good yet or any more ─► told; the old ones stay in use
//! ```
//!
//! A connection keeps the keys that it began with.
//!
//! # Who is a peer
//!
//! Whoever shows a certificate that the peers' authority signed. Its name is not compared with the
//! address that was dialed: nodes move ([`super::roster`]), and a node that is let in can change
//! everything anyway, under whichever name. So that authority must sign nobody but nodes
//! (`docs/security.md`).

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::config::{Security, TlsFiles};
use crate::limits::SECURITY_FILE_BYTES_MAX;
use crate::store::password::Password;

use super::clock;
use super::fatal::Fatal;
use super::validity::Validity;

/// What connections are made with; replaced as a whole.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// What clients must say.
    pub password: Option<Password>,
    /// How clients are met, if they must speak TLS.
    pub clients: Option<Arc<ServerConfig>>,
    /// How peers are met and dialed, if they must speak TLS.
    pub peers: Option<PeerKeys>,
    /// Until when the certificates are good, in seconds since 1970.
    pub until: Until,
}

/// When certificates expire, or those that are between them and their authorities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Until {
    /// The one that is shown to clients.
    pub clients: Option<u64>,
    /// The one that is shown to peers.
    pub peers: Option<u64>,
}

/// Both sides of the connections between nodes.
#[derive(Debug, Clone)]
pub struct PeerKeys {
    /// For those that dial us.
    pub server: Arc<ServerConfig>,
    /// For those that we dial.
    pub client: Arc<ClientConfig>,
}

/// The keys in use, and where they came from. One per node.
#[derive(Debug)]
pub struct Keyring {
    security: Security,
    keys: Mutex<Keys>,
}

impl Keyring {
    /// Reads all files.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub fn open(security: &Security) -> Result<Self, Fatal> {
        let keys = Keys::read(security, now()).map_err(Fatal::new)?;
        Ok(Self { security: security.clone(), keys: Mutex::new(keys) })
    }

    /// What a new connection is to be made with.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there is any file to read again.
    #[must_use]
    pub fn has_files(&self) -> bool {
        let Security { requirepass_file, client, peer, .. } = &self.security;
        requirepass_file.is_some() || client.is_some() || peer.is_some()
    }

    /// Reads all files again; new connections use what is in them.
    ///
    /// # Errors
    /// The first file that cannot be used, and why. Nothing has changed then.
    pub fn reload(&self) -> Result<(), String> {
        let keys = Keys::read(&self.security, now())?;
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }
}

impl Keys {
    /// What the files say at `now`, in seconds since 1970.
    fn read(security: &Security, now: u64) -> Result<Self, String> {
        let from_file = security.requirepass_file.as_deref();
        let from_file =
            from_file.map(|path| read_password("requirepass_file", path)).transpose()?;
        let password = from_file.map(|text| Password::new(text.as_bytes()));
        let clients = security.client.as_ref().map(|files| for_clients(files, now)).transpose()?;
        let peers = security.peer.as_ref().map(|files| for_peers(files, now)).transpose()?;
        let (clients, clients_until) = clients.unzip();
        let (peers, peers_until) = peers.unzip();
        Ok(Self {
            password: password.or(security.requirepass),
            clients,
            peers,
            until: Until { clients: clients_until, peers: peers_until },
        })
    }
}

/// The password in a file: all of it but the end of the line.
///
/// # Errors
/// If it cannot be read or is empty. `what` names the setting.
pub fn read_password(what: &str, path: &Path) -> Result<String, String> {
    let bytes = read(what, path)?;
    warn_if_others_read(what, path);
    let text =
        String::from_utf8(bytes).map_err(|_| format!("{what} {}: not UTF-8", path.display()))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(format!("{what} {}: there is no password in it", path.display()));
    }
    Ok(text.to_owned())
}

/// How to dial a node's client port: `ca` must have signed its certificate for the address or name that is
/// dialed; `own` is shown if it asks for one.
///
/// # Errors
/// The first file that cannot be used, and why.
pub fn for_dialing(ca: &Path, own: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, String> {
    let roots = authorities("--tls-ca", ca)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(
                certificates("--tls-cert", cert)?,
                private_key("--tls-key", key)?,
            )
            .map_err(|error| format!("--tls-cert {} and --tls-key: {error}", cert.display()))?,
    };
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn now() -> u64 {
    clock::wall().0 / 1000
}

/// How clients are met, and until when that is good.
fn for_clients(files: &TlsFiles, now: u64) -> Result<(Arc<ServerConfig>, u64), String> {
    let (certs, until) = own_certificates("tls_cert", &files.cert, now)?;
    let key = private_key("tls_key", &files.key)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &files.ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(authorities("tls_client_ca", ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| format!("tls_client_ca {}: {error}", ca.display()))?,
            )
        }
    };
    let config = builder
        .with_single_cert(certs, key)
        .map_err(|error| mismatch(["tls_cert", "tls_key"], files, &error))?;
    Ok((Arc::new(config), until))
}

/// How peers are met and dialed, and until when that is good.
fn for_peers(files: &TlsFiles, now: u64) -> Result<(PeerKeys, u64), String> {
    let (certs, until) = own_certificates("peer_tls_cert", &files.cert, now)?;
    let key = private_key("peer_tls_key", &files.key)?;
    let ca = files.ca.as_ref().ok_or("peer_tls_ca is not set")?;
    let roots = Arc::new(authorities("peer_tls_ca", ca)?);
    let mismatch =
        |error: rustls::Error| mismatch(["peer_tls_cert", "peer_tls_key"], files, &error);
    warn_if_foreign(files, &certs, &roots, now);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
        .build()
        .map_err(|error| format!("peer_tls_ca {}: {error}", ca.display()))?;
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certs.clone(), key.clone_key())
        .map_err(mismatch)?;
    // A link is dialed again after hours or not at all: tickets would be traffic for nothing.
    server.send_tls13_tickets = 0;
    let verifier = Arc::new(SignedByPeers { roots, provider: provider() });
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(certs, key)
        .map_err(mismatch)?;
    Ok((PeerKeys { server: Arc::new(server), client: Arc::new(client) }, until))
}

/// A certificate and a key of which rustls wants no server made.
fn mismatch([cert, key]: [&str; 2], files: &TlsFiles, error: &rustls::Error) -> String {
    let remedy = match error {
        rustls::Error::InconsistentKeys(_) => {
            ". Remedy: put the certificate and the key in place that were made together"
        }
        _ => "",
    };
    format!("{cert} {} and {key} {}: {error}{remedy}", files.cert.display(), files.key.display())
}

/// Tells whoever will not be taken for a peer by the others, if they have the same authority.
fn warn_if_foreign(
    files: &TlsFiles,
    certs: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: u64,
) {
    let Some((own, between)) = certs.split_first() else { return };
    let judged = ParsedCertificate::try_from(own).and_then(|own| {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&own, roots, between, now, algorithms)
    });
    if let Err(error) = judged {
        let cert = files.cert.display();
        tracing::warn!(
            "peer_tls_cert {cert} is not good by this node's own peer_tls_ca: {error}. Nodes with the \
             same authority will refuse this one"
        );
    }
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot read {what} {}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(SECURITY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if SECURITY_FILE_BYTES_MAX < bytes.len() as u64 {
        let max = SECURITY_FILE_BYTES_MAX;
        return Err(format!("{what} {}: longer than {max} bytes", path.display()));
    }
    Ok(bytes)
}

fn warn_if_others_read(what: &str, path: &Path) {
    const OTHERS: u32 = 0o007;
    if path.metadata().is_ok_and(|metadata| metadata.mode() & OTHERS != 0) {
        let path = path.display();
        tracing::warn!("{what} {path} is open to every user of this machine. Remedy: chmod 600");
    }
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(what, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| format!("{what} {}: not PEM: {error}", path.display()))?;
    if found.is_empty() {
        return Err(format!("{what} {}: there is no certificate in it", path.display()));
    }
    Ok(found)
}

/// A certificate of this node's with those between it and its authority, and until when they are good. They must be by
/// now: nobody would take them otherwise, and here it can be said what is to be done.
fn own_certificates(
    what: &str,
    path: &Path,
    now: u64,
) -> Result<(Vec<CertificateDer<'static>>, u64), String> {
    let found = certificates(what, path)?;
    let validity = Validity::of(what, path, &found)?;
    let path = path.display();
    match validity.judge(now) {
        Ok(None) => {}
        Ok(Some(warning)) => tracing::warn!("{what} {path}: {warning}"),
        Err(error) => return Err(format!("{what} {path}: {error}")),
    }
    Ok((found, validity.until()))
}

fn authorities(what: &str, path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, path)? {
        roots.add(certificate).map_err(|error| format!("{what} {}: {error}", path.display()))?;
    }
    Ok(roots)
}

fn private_key(what: &str, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(what, path)?;
    warn_if_others_read(what, path);
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| format!("{what} {}: no private key in PEM: {error}", path.display()))
}

/// Accepts the certificates that an authority has signed, whichever name they are for.
#[derive(Debug)]
struct SignedByPeers {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for SignedByPeers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &self.roots,
            between,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::certificates::Authority;
    use crate::runtime::scratch::Scratch;

    #[test]
    fn what_is_read_again_replaces_the_old_if_it_is_sound() {
        let scratch = Scratch::new("keyring");
        let password = scratch.path().join("password");
        std::fs::write(&password, "one\r\n").unwrap();
        let authority = Authority::new("ours");
        let files = authority.sign(scratch.path());
        let security = Security {
            requirepass_file: Some(password.clone()),
            client: Some(TlsFiles { ca: None, ..files.clone() }),
            peer: Some(files.clone()),
            ..Security::default()
        };
        let keyring = Keyring::open(&security).unwrap();
        let first = keyring.keys();
        assert!(first.password.unwrap().is(b"one") && first.peers.is_some());

        authority.sign(scratch.path());
        std::fs::write(&password, "two").unwrap();
        keyring.reload().unwrap();
        let second = keyring.keys();
        assert!(second.password.unwrap().is(b"two"));
        let server = |keys: &Keys| keys.clients.clone().unwrap();
        assert!(!Arc::ptr_eq(&server(&first), &server(&second)));

        let key = std::fs::read(&files.key).unwrap();
        std::fs::write(&password, "three").unwrap();
        for (path, broken, expected) in [
            (&files.key, &b"no key"[..], "tls_key"),
            (&files.cert, b"no certificate", "tls_cert"),
            (files.ca.as_ref().unwrap(), b"", "peer_tls_ca"),
            (&password, b"\n", "requirepass_file"),
        ] {
            let sound = std::fs::read(path).unwrap();
            std::fs::write(path, broken).unwrap();
            let error = keyring.reload().expect_err("broken");
            assert!(error.contains(expected) && error.contains(path.to_str().unwrap()), "{error}");
            assert!(Arc::ptr_eq(&server(&keyring.keys()), &server(&second)), "as before: {error}");
            assert!(keyring.keys().password.unwrap().is(b"two"));
            std::fs::write(path, sound).unwrap();
        }
        // A pair that does not belong together.
        authority.sign(scratch.path());
        std::fs::write(&files.key, key).unwrap();
        let error = keyring.reload().expect_err("no pair");
        assert!(error.contains("tls_cert") && error.contains("made together"), "{error}");
    }

    #[test]
    fn certificates_are_good_from_day_to_day() {
        let scratch = Scratch::new("keyring-days");
        let authority = Authority::new("ours");
        // 2030, and the seconds of its beginning and end.
        let files = authority.sign_for(scratch.path(), [(2030, 1, 1), (2031, 1, 1)]);
        let (from, until) = (1_893_456_000, 1_924_992_000);
        let clients = Security {
            client: Some(TlsFiles { ca: None, ..files.clone() }),
            ..Security::default()
        };
        let peers = Security { peer: Some(files.clone()), ..Security::default() };
        for (security, what, expected) in [
            (&clients, "tls_cert", Until { clients: Some(until), peers: None }),
            (&peers, "peer_tls_cert", Until { clients: None, peers: Some(until) }),
        ] {
            for good in [from, until] {
                assert_eq!(Keys::read(security, good).unwrap().until, expected);
            }
            for (bad, why) in [(from - 1, "not valid before 2030-01-01"), (until + 1, "expired at")]
            {
                let error = Keys::read(security, bad).unwrap_err();
                let path = files.cert.display();
                assert!(error.starts_with(&format!("{what} {path}: {why}")), "{error}");
            }
        }
    }
}
