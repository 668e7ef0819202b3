//! From when until when certificates are good, and what that means at a time.
//!
//! ```text
//!  Certificate ─ SEQUENCE
//!    tbsCertificate ─ SEQUENCE
//!      [0] version, if it is not the first · serialNumber · signature · issuer
//!      validity ─ SEQUENCE ─ notBefore, notAfter       ◄── what is read here
//!      subject · …                                         what is skipped
//!    signatureAlgorithm · signatureValue
//! ```
//!
//! Whether a certificate is sound otherwise is for rustls to say, which judges it when somebody connects. That it has
//! expired would come out there, too: at the other side, one connection after the other.

use std::path::Path;

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode as _, Reader, SliceReader, Tag};
use rustls::pki_types::CertificateDer;

use crate::limits::CERTIFICATE_WARNING_DAYS;

use super::clock::rfc_3339;

const DAY_S: u64 = 86_400;

/// When a chain of certificates is good: while each of them is. In seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    from: u64,
    until: u64,
}

impl Validity {
    /// Of the certificates in the file of the setting `what`: one, and those between it and its authority.
    ///
    /// # Errors
    /// If one of them has no dates, so is no certificate; says which.
    pub fn of(what: &str, path: &Path, chain: &[CertificateDer<'_>]) -> Result<Self, String> {
        let mut whole = Self { from: 0, until: u64::MAX };
        for (at, certificate) in (1..).zip(chain) {
            let Self { from, until } = dates(certificate).map_err(|error| {
                let path = path.display();
                format!("{what} {path}: the dates of certificate {at} cannot be read: {error}")
            })?;
            whole = Self { from: whole.from.max(from), until: whole.until.min(until) };
        }
        Ok(whole)
    }

    /// The last second at which it is good, since 1970.
    #[must_use]
    pub fn until(self) -> u64 {
        self.until
    }

    /// Whether it is good at `now`, in seconds since 1970; a warning, if that ends soon.
    ///
    /// # Errors
    /// If it is not; names the date, and what to do.
    pub fn judge(self, now: u64) -> Result<Option<String>, String> {
        let [from, until, at] = [self.from, self.until, now].map(rfc_3339);
        if self.until < now {
            return Err(format!(
                "expired at {until}, and it is {at}. Remedy: have its authority sign a new one, and \
                 put that, and its key, in place of this one"
            ));
        }
        if now < self.from {
            return Err(format!(
                "not valid before {from}, and it is {at} by the clock of this machine. Remedy: set \
                 the clock, or use a certificate that is valid by now"
            ));
        }
        if self.until - now < CERTIFICATE_WARNING_DAYS * DAY_S {
            let days = (self.until - now) / DAY_S;
            return Ok(Some(format!(
                "expires at {until}, in {days} days. Remedy: put a new one, and its key, in its \
                 place, and send SIGHUP"
            )));
        }
        Ok(None)
    }
}

fn dates(certificate: &[u8]) -> der::Result<Validity> {
    let mut reader = SliceReader::new(certificate)?;
    reader.sequence(|certificate| {
        let validity = certificate.sequence(|tbs| {
            if matches!(Tag::peek(tbs)?, Tag::ContextSpecific { .. }) {
                AnyRef::decode(tbs)?;
            }
            for _ in ["serialNumber", "signature", "issuer"] {
                AnyRef::decode(tbs)?;
            }
            let validity = tbs.sequence(|validity| {
                Ok::<_, der::Error>(Validity { from: time(validity)?, until: time(validity)? })
            })?;
            skip_rest(tbs)?;
            Ok::<_, der::Error>(validity)
        })?;
        skip_rest(certificate)?;
        Ok(validity)
    })
}

/// Seconds since 1970; years until 2049 have two digits.
fn time<'a>(reader: &mut impl Reader<'a>) -> der::Result<u64> {
    Ok(match Tag::peek(reader)? {
        Tag::UtcTime => UtcTime::decode(reader)?.to_unix_duration().as_secs(),
        _ => GeneralizedTime::decode(reader)?.to_unix_duration().as_secs(),
    })
}

fn skip_rest<'a>(reader: &mut impl Reader<'a>) -> der::Result<()> {
    while !reader.is_finished() {
        AnyRef::decode(reader)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::certificates::Authority;

    /// 2030-01-01.
    const NEW_YEAR: u64 = 1_893_456_000;

    fn of(chain: &[CertificateDer<'_>]) -> Validity {
        Validity::of("tls_cert", Path::new("/c.pem"), chain).unwrap()
    }

    #[test]
    fn dates_are_read_from_either_side_of_2050_and_a_chain_is_as_good_as_its_worst() {
        let authority = Authority::new("ours");
        let long = authority.certificate([(2029, 12, 31), (2051, 2, 3)]).0;
        let short = authority.certificate([(2030, 1, 1), (2030, 3, 1)]).0;
        let [long, short] = [&long, &short].map(|it| it.der().clone());
        let of_long = of(std::slice::from_ref(&long));
        assert_eq!(of_long, Validity { from: NEW_YEAR - DAY_S, until: 2_558_995_200 });
        let both = Validity { from: NEW_YEAR, until: NEW_YEAR + 59 * DAY_S };
        assert_eq!(of(&[long, short]), both);
    }

    #[test]
    fn what_has_no_dates_is_named() {
        let authority = Authority::new("ours");
        let good = authority.certificate([(2030, 1, 1), (2031, 1, 1)]).0.der().clone();
        for bad in [&b""[..], b"\x30\x02\x05\x00", &good[..good.len() / 2]] {
            let chain = [good.clone(), CertificateDer::from(bad)];
            let error = Validity::of("tls_cert", Path::new("/c.pem"), &chain).unwrap_err();
            assert!(error.starts_with("tls_cert /c.pem: the dates of certificate 2 "), "{error}");
        }
    }

    #[test]
    fn before_and_after_it_is_refused_and_near_the_end_it_is_warned_about() {
        let (from, until) = (NEW_YEAR, NEW_YEAR + 100 * DAY_S);
        let validity = Validity { from, until };
        let early = validity.judge(from - 1).unwrap_err();
        assert!(early.starts_with("not valid before 2030-01-01T00:00:00Z, "), "{early}");
        assert!(early.contains("2029-12-31T23:59:59Z") && early.contains("Remedy: set the clock"));
        let late = validity.judge(until + 1).unwrap_err();
        assert!(
            late.starts_with("expired at 2030-04-11T00:00:00Z, and it is 2030-04-11T00:00:01Z")
        );
        let soon = until - CERTIFICATE_WARNING_DAYS * DAY_S;
        assert_eq!([from, soon].map(|now| validity.judge(now)), [Ok(None), Ok(None)]);
        for (now, days) in [(soon + 1, "in 13 days"), (until, "in 0 days")] {
            let warning = validity.judge(now).unwrap().expect("a warning");
            assert!(warning.contains(days) && warning.contains("SIGHUP"), "{warning}");
        }
    }
}
