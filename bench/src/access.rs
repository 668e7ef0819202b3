//! How a connection gets in: the TLS it speaks, and the password it says. The same flags as `outrigger ctl` has.

use clap::Args;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The flags. There is none for the password itself: everybody on the machine sees flags, and reports show them.
#[derive(Debug, Default, Args)]
pub(crate) struct Flags {
    /// A file with the password, for servers that speak the Redis protocol
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Whose password it is [default: none is said, and the server takes its default user]
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub(crate) user: Option<String>,
    /// Speak TLS: the authority that signed the servers' certificates (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// A certificate to show, where servers ask for one (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_ca", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The name that the servers' certificates are for [default: the address that is dialed]
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    pub(crate) tls_name: Option<String>,
}

/// What the flags name, read and judged. One for all connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// What is said first.
    pub(crate) login: Option<Login>,
    /// How TLS is spoken, if it is.
    pub(crate) tls: Option<Tls>,
}

/// A password, and whose.
#[derive(Clone)]
pub(crate) struct Login {
    /// The user; `None`: the server's default one.
    pub(crate) user: Option<String>,
    /// The password.
    pub(crate) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a TLS connection begins with.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    /// Who is believed, and what is shown.
    pub(crate) config: Arc<ClientConfig>,
    /// The name to ask for; `None`: the address.
    pub(crate) name: Option<ServerName<'static>>,
}

impl Flags {
    /// Whether any of them was given.
    pub(crate) fn is_any(&self) -> bool {
        self.password_file.is_some() || self.tls_ca.is_some()
    }

    /// Reads the files.
    pub(crate) fn open(&self) -> Result<Access, String> {
        let login = match &self.password_file {
            None => None,
            Some(path) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| format!("--password-file {}: {error}", path.display()))?;
                let password = text.trim_end_matches(['\r', '\n']).to_owned();
                if password.is_empty() {
                    return Err(format!("--password-file {}: it is empty", path.display()));
                }
                Some(Login { user: self.user.clone(), password })
            }
        };
        let tls = match &self.tls_ca {
            None => None,
            Some(ca) => Some(self.tls(ca)?),
        };
        Ok(Access { login, tls })
    }

    fn tls(&self, ca: &Path) -> Result<Tls, String> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("--tls-ca", ca)? {
            roots
                .add(certificate)
                .map_err(|error| format!("--tls-ca {}: {error}", ca.display()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_root_certificates(roots);
        let config = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                let shown = certificates("--tls-cert", cert)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| format!("--tls-key {}: {error}", key.display()))?;
                builder
                    .with_client_auth_cert(shown, key)
                    .map_err(|error| format!("--tls-cert {}: {error}", cert.display()))?
            }
            _ => builder.with_no_client_auth(),
        };
        let name = self
            .tls_name
            .clone()
            .map(|name| ServerName::try_from(name).map_err(|error| format!("--tls-name: {error}")));
        Ok(Tls { config: Arc::new(config), name: name.transpose()? })
    }
}

fn certificates(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error| format!("{flag} {}: {error}", path.display());
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed)?;
    if found.is_empty() {
        return Err(format!("{flag} {}: there is no certificate in it", path.display()));
    }
    Ok(found)
}
