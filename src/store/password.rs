//! A password, as a node remembers it: a digest, from which nobody reads the password.
//!
//! The digest is a plain SHA-256. It keeps the password itself out of memory, of core dumps and of
//! logs; it does not make a short password a long one, so `docs/security.md` asks for a random one.

use std::fmt;
use std::hint::black_box;

use sha2::{Digest as _, Sha256};

/// The digest of a password. One per node, copied to each connection.
#[derive(Clone, Copy, PartialEq, Eq)]
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
        let offered: [u8; 32] = Sha256::digest(offered).into();
        let pairs = self.digest.iter().zip(&offered);
        // The black box keeps the compiler from leaving the loop at the first difference.
        pairs.fold(0, |differs, (a, b)| black_box(differs | (a ^ b))) == 0
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
    fn it_is_not_shown() {
        let text = format!("{:?}", Some(Password::new(b"correct horse")));
        assert_eq!(text, "Some(Password(not shown))");
    }
}
