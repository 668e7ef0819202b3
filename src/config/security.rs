//! Settings that say who is served: the password, and the files of certificates and keys.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::store::password::Password;

use super::{ConfigError, Settings, quoted};

/// Who is served; data only. Without any of it, whoever reaches the ports is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// `requirepass`: what clients must say. Default none. Only from the configuration file: flags are
    /// for everybody on the machine to see.
    pub requirepass: Option<Password>,
    /// `requirepass_file`: a file that holds the password, without the line's end. Default none; not
    /// together with `requirepass`. Read at the start and at SIGHUP.
    pub requirepass_file: Option<PathBuf>,
    /// `tls_cert`, `tls_key`, `tls_client_ca`: clients must speak TLS; with an authority, they must
    /// show a certificate that it signed. Default none: the client port is in the clear.
    pub client: Option<TlsFiles>,
    /// `peer_tls_cert`, `peer_tls_key`, `peer_tls_ca`: the nodes speak TLS with each other, and each shows
    /// a certificate that the authority signed: that is required here, because whoever can speak to
    /// the peer port can change everything. The same on all nodes. Default none.
    pub peer: Option<TlsFiles>,
}

/// PEM files. Read at the start and at SIGHUP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate to show, followed by those between it and its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that must have signed the other side's certificate. Always, for peers.
    pub ca: Option<PathBuf>,
}

/// A text that is not shown: neither in a log nor by `--print-config`.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

/// Nothing that writes settings writes it.
impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("")
    }
}

impl Security {
    /// What the settings say, as far as it can be judged without reading a file.
    ///
    /// # Errors
    /// If a file is named without the one that it is of no use without, or the password is given twice or
    /// is empty.
    pub(super) fn resolve(settings: &Settings) -> Result<Self, ConfigError> {
        let wrong = |key, value: &str, allowed: &str| ConfigError::OutOfRange {
            key,
            value: value.into(),
            allowed: allowed.into(),
        };
        let requirepass = settings.requirepass.as_ref();
        if requirepass.is_some() && settings.requirepass_file.is_some() {
            return Err(wrong(
                "requirepass",
                "given, and `requirepass_file` too",
                "in one place only",
            ));
        }
        if requirepass.is_some_and(|password| password.0.is_empty()) {
            return Err(wrong("requirepass", "empty", "left out, or a password"));
        }
        let pair =
            |name, cert: &Option<PathBuf>, key: &Option<PathBuf>, ca: &Option<PathBuf>| match (
                cert, key,
            ) {
                (Some(cert), Some(key)) => {
                    Ok(Some(TlsFiles { cert: cert.clone(), key: key.clone(), ca: ca.clone() }))
                }
                (None, None) if ca.is_none() => Ok(None),
                _ => Err(wrong(name, "not whole", "given together with its key, or not at all")),
            };
        let client =
            pair("tls_cert", &settings.tls_cert, &settings.tls_key, &settings.tls_client_ca)?;
        let peer = pair(
            "peer_tls_cert",
            &settings.peer_tls_cert,
            &settings.peer_tls_key,
            &settings.peer_tls_ca,
        )?;
        if peer.as_ref().is_some_and(|files| files.ca.is_none()) {
            return Err(ConfigError::Missing { key: "peer_tls_ca", flag: "peer-tls-ca" });
        }
        Ok(Self {
            requirepass: requirepass.map(|password| Password::new(password.0.as_bytes())),
            requirepass_file: settings.requirepass_file.clone(),
            client,
            peer,
        })
    }

    /// Its part of the configuration file, with comments. The password is not in it.
    pub(super) fn to_toml(&self) -> String {
        let line = |key: &str, path: Option<&PathBuf>| match path {
            Some(path) => format!("{key} = {}", quoted(&path.display().to_string())),
            None => format!("# {key} = \"/etc/outrigger/{}\"", key.replace('_', "-")),
        };
        let files = |files: &Option<TlsFiles>, keys: [&str; 3]| {
            let files = files.as_ref();
            let paths = [
                files.map(|files| &files.cert),
                files.map(|files| &files.key),
                files.and_then(|files| files.ca.as_ref()),
            ];
            keys.iter().zip(paths).map(|(key, path)| line(key, path)).collect::<Vec<_>>().join("\n")
        };
        let password = match self.requirepass {
            Some(_) => "# requirepass is set, and not shown here.\n".to_owned(),
            None => String::new(),
        };
        format!(
            "# The password that clients must say (AUTH): in this file as requirepass = \"…\", or in one of its own.\n\
             {password}{}\n\
             # TLS for clients, PEM files: the node's certificate and key; with an authority, clients must show a\n\
             # certificate that it signed. SIGHUP reads all these files again.\n\
             {}\n\
             # TLS between nodes, each with a certificate that the authority signed; the same on all nodes.\n\
             {}\n",
            line("requirepass_file", self.requirepass_file.as_ref()),
            files(&self.client, ["tls_cert", "tls_key", "tls_client_ca"]),
            files(&self.peer, ["peer_tls_cert", "peer_tls_key", "peer_tls_ca"]),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn security(text: &str) -> Result<Security, String> {
        let settings = Settings::from_text(Path::new("node.toml"), text);
        settings
            .and_then(|settings| Security::resolve(&settings))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_password_is_shown_nowhere() {
        let text = "requirepass = \"secret\"";
        let settings = Settings::from_text(Path::new("node.toml"), text).expect("readable");
        let config = Security::resolve(&settings).expect("valid");
        assert!(config.requirepass.expect("given").is(b"secret"));
        let written = toml::to_string(&settings).expect("writable");
        let shown = [format!("{settings:?}"), format!("{config:?}"), config.to_toml(), written];
        for shown in shown {
            assert!(!shown.contains("secret"), "{shown}");
        }
        for broken in [
            "requirepass = secret",
            "requirepass = [\"secret\"]",
            "requirepass=\"secret",
            "requirepass = \"\"\"\nsecret",
            "requirepass = \"\"\"\nsecret = 1",
            "requirepass \"secret\"",
            "requirepass = { a = \"secret\" }",
            "requirepas = \"secret\"",
            "require-pass = \"secret\"",
            "password = \"secret\"",
            "groups = \"secret\"",
            "client = \"secret\"",
            "peers = \"secret\"",
            "peers = { 1 = \"secret\" }",
            "id = secret",
            "requirepass =\nsecret",
        ] {
            let error = security(broken).expect_err("not a text");
            assert!(error.contains("line ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn half_of_something_is_refused_by_name() {
        for (text, expected) in [
            ("requirepass = \"\"", "`requirepass` is empty, but must be left out, or a password"),
            (
                "requirepass = \"x\"\nrequirepass_file = \"y\"",
                "`requirepass` is given, and `requirepass_file` too, but must be in one place only",
            ),
            (
                "tls_cert = \"c\"",
                "`tls_cert` is not whole, but must be given together with its key, or not at all",
            ),
            (
                "tls_client_ca = \"c\"",
                "`tls_cert` is not whole, but must be given together with its key, or not at all",
            ),
            (
                "peer_tls_key = \"k\"",
                "`peer_tls_cert` is not whole, but must be given together with its key, or not at all",
            ),
            (
                "peer_tls_cert = \"c\"\npeer_tls_key = \"k\"",
                "`peer_tls_ca` is not set: give --peer-tls-ca or put `peer_tls_ca` into the configuration file",
            ),
        ] {
            assert_eq!(security(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        for text in [
            "",
            "requirepass_file = \"/p\"\ntls_cert = \"c\"\ntls_key = \"k\"",
            "tls_cert = \"c\"\ntls_key = \"k\"\ntls_client_ca = \"a\"\n\
             peer_tls_cert = \"c\"\npeer_tls_key = \"k\"\npeer_tls_ca = \"a\"",
        ] {
            let config = security(text).expect("valid");
            assert_eq!(security(&config.to_toml()).as_ref(), Ok(&config));
        }
    }
}
