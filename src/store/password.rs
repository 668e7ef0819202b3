//! A password, as a node remembers it: a digest, from which nobody reads the password.
//!
//! The digest is a plain SHA-256. It keeps the password itself out of memory, of core dumps and of
//! logs; it does not make a short password a long one, so `docs/security.md` asks for a random one.

use std::fmt;
use std::hint::black_box;

use sha2::{Digest as _, Sha256};

/// The digest of a password.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Password {
    digest: [u8; 32],
}

impl Password {
    /// Remembers this password.
    #[must_use]
    pub fn new(password: &[u8]) -> Self {
        Self { digest: Sha256::digest(password).into() }
    }

    /// Whether `offered` is it. Takes equally long wherever the two differ: all bytes of both digests
    /// are compared, and what is told of the length is that of what was offered.
    #[must_use]
    pub fn is(&self, offered: &[u8]) -> bool {
        self.equals(&Self::new(offered))
    }

    /// Whether both are the same one; as [`Self::is`].
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        let pairs = self.digest.iter().zip(&other.digest);
        // The black box keeps the compiler from leaving the loop at the first difference.
        pairs.fold(0, |differs, (a, b)| black_box(differs | (a ^ b))) == 0
    }

    /// The password with this digest, in 64 hex digits; none if they are not.
    #[must_use]
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let mut digest = [0; 32];
        if text.len() != 2 * digest.len() {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(text.chunks(2)) {
            *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
        }
        Some(Self { digest })
    }

    /// Its digest in hex digits, for the table of users.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Says that there is one, and nothing about it.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_is_it() {
        let password = Password::new(b"correct horse");
        assert!(password.is(b"correct horse"));
        for wrong in [&b""[..], b"correct hors", b"correct horse ", b"Correct horse", &[0; 32]] {
            assert!(!password.is(wrong), "{wrong:?}");
        }
        assert!(!password.is(&password.digest), "the digest does not open anything");
    }

    #[test]
    fn its_digest_reads_back() {
        let hex = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
        assert_eq!(Password::new(b"password").to_hex(), hex);
        assert!(Password::from_hex(hex.as_bytes()).is_some_and(|it| it.is(b"password")));
        for wrong in [&hex[1..], "", &format!("x{}", &hex[1..]), &format!("{hex}00")] {
            assert_eq!(Password::from_hex(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn it_is_not_shown() {
        let text = format!("{:?}", Some(Password::new(b"correct horse")));
        assert_eq!(text, "Some(Password(not shown))");
    }
}
