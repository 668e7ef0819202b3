//! Certificates for tests, by authorities that live as long as the test.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::config::TlsFiles;

/// One that signs.
pub(crate) struct Authority {
    name: String,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { name: name.to_owned(), issuer: Issuer::new(params, key), pem }
    }

    /// The files of one that it has signed for, and of itself.
    pub(crate) fn sign(&self, dir: &Path) -> TlsFiles {
        let own = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&own, &self.issuer).unwrap();
        let write = |what: &str, pem: String| {
            let path = dir.join(format!("{}-{what}.pem", self.name));
            fs::write(&path, pem).unwrap();
            path
        };
        TlsFiles {
            cert: write("cert", certificate.pem()),
            key: write("key", own.serialize_pem()),
            ca: Some(write("ca", self.pem.clone())),
        }
    }
}
