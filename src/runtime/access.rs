//! How an operator's command gets in: the password it says, and the TLS it speaks.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::asker::{Asker, Said, may_change};
use super::fatal::Fatal;
use super::keyring;

/// The variable that holds the password, if no file does.
const VARIABLE: &str = "OUTRIGGER_PASSWORD";

/// What commands that ask a node can be told about getting in. There is no flag for the password itself:
/// everybody on the machine sees flags.
#[derive(Debug, Clone, Default, Args)]
#[group(id = "access")]
pub struct Options {
    /// The user to log in as, with the password; without it, the default user.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// A file with the password; without it, OUTRIGGER_PASSWORD is.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Speak TLS: the authority that signed the node's certificate (PEM).
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// A certificate to show, where nodes ask for one (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_ca", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The name that the node's certificate is for, if it is not for the address.
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    pub tls_name: Option<String>,
}

/// The same, read and judged.
#[derive(Clone, Default)]
pub struct Access {
    user: Option<String>,
    password: Option<String>,
    tls: Option<Arc<ClientConfig>>,
    name: Option<ServerName<'static>>,
}

impl Access {
    /// Reads what the options name.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub fn open(options: &Options) -> Result<Self, Fatal> {
        let password = match &options.password_file {
            Some(path) => {
                Some(keyring::read_password("--password-file", path).map_err(Fatal::new)?)
            }
            None => std::env::var(VARIABLE).ok().filter(|password| !password.is_empty()),
        };
        let own = options.tls_cert.as_deref().zip(options.tls_key.as_deref());
        let ca = options.tls_ca.as_deref();
        let tls = ca.map(|ca| keyring::for_dialing(ca, own)).transpose().map_err(Fatal::new)?;
        let name = options.tls_name.clone().map(|name| {
            ServerName::try_from(name).map_err(|error| Fatal::new(format!("--tls-name: {error}")))
        });
        let user = options.user.clone();
        if user.is_some() && password.is_none() {
            return Err(Fatal::new(format!("--user needs --password-file or {VARIABLE}")));
        }
        Ok(Self { user, password, tls, name: name.transpose()? })
    }

    /// Connects and logs in; each step may take `patience`.
    ///
    /// # Errors
    /// When nobody answers there, or the node does not let us in.
    pub fn connect(&self, address: SocketAddr, patience: Duration) -> std::io::Result<Asker> {
        let mut asker = match &self.tls {
            None => Asker::connect(address, patience)?,
            Some(config) => {
                let name = self.name.clone().unwrap_or_else(|| ServerName::from(address.ip()));
                let session = ClientConnection::new(Arc::clone(config), name);
                let session = session.map_err(std::io::Error::other)?;
                let socket: TcpStream = Asker::dial(address, patience)?;
                Asker::over(StreamOwned::new(session, socket))
            }
        };
        let Some(password) = &self.password else { return Ok(asker) };
        let login = match &self.user {
            Some(user) => &["AUTH", user, password][..],
            None => &["AUTH", password],
        };
        if let Said::Error(error) = asker.ask(login)? {
            // A node that replays its log does not know its users yet.
            return Err(match may_change(&error) {
                true => std::io::Error::other(error),
                false => std::io::Error::new(std::io::ErrorKind::PermissionDenied, error),
            });
        }
        Ok(asker)
    }
}
