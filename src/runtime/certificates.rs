//! Certificates for tests, by authorities that live as long as the test.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};

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

    /// One that it has signed for, good from day to day, and its key.
    pub(crate) fn certificate(&self, days: [(i32, u8, u8); 2]) -> (Certificate, KeyPair) {
        let own = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let [from, until] = days.map(|(year, month, day)| date_time_ymd(year, month, day));
        (params.not_before, params.not_after) = (from, until);
        (params.signed_by(&own, &self.issuer).unwrap(), own)
    }

    /// The files of one that it has signed for, and of itself.
    pub(crate) fn sign(&self, dir: &Path) -> TlsFiles {
        self.sign_for(dir, [(1975, 1, 1), (4096, 1, 1)])
    }

    /// As [`sign`](Self::sign), good from day to day.
    pub(crate) fn sign_for(&self, dir: &Path, days: [(i32, u8, u8); 2]) -> TlsFiles {
        let (certificate, own) = self.certificate(days);
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
