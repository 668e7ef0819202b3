//! The text of `identity.toml`, and back.
//!
//! ```text
//!   format = 2
//!   node = 1
//!   …                    TOML: the fields of [`Saved`]
//!   # kept twice         its copy says the same; in earlier files it is of an earlier state
//!   # crc32 0123abcd     of all bytes in front of this line, which is the last
//! ```
//!
//! The text is what [`Saved::render`] makes or it is damaged: a changed bit anywhere in it is seen.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What begins the last line.
const MARK: &str = "# crc32 ";

/// Says that the file's copy may stand for it. Releases before had the text before last in its place.
const TWICE: &str = "# kept twice\n";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The layout of the directory.
    pub format: u32,
    /// The cluster's id, in hexadecimal digits.
    pub cluster: String,
    /// The node.
    pub node: u64,
    /// How many cores, and logs, it has.
    pub cores: u16,
    /// The groups of the whole cluster.
    pub groups: u64,
    /// How often the directory was started.
    pub incarnation: u64,
    /// Every core's log directory has held its first segment. A directory without any segment is a
    /// new log before that, and a lost one after.
    pub begun: bool,
    /// The number of this directory.
    pub birth: u64,
    /// Enough peers have written its birth down: it takes part.
    pub proven: bool,
    /// The members the groups began with, and where they listened; none if the node joined later.
    /// Logs are replayed from there, so it never changes.
    pub bootstrap: BTreeMap<String, SocketAddr>,
    /// The nodes that were greeted.
    pub known: BTreeMap<String, Known>,
}

/// What is known of another node's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its number.
    pub birth: u64,
    /// It said that it was proven.
    pub proven: bool,
}

impl Saved {
    /// The file's text: the settings, and a checksum of them on the last line.
    ///
    /// # Errors
    /// What TOML cannot say: a number above `i64::MAX`.
    pub fn render(&self) -> Result<String, String> {
        let body = toml::to_string(self).map_err(|error| error.to_string().replace('\n', " "))?;
        let body = body + TWICE;
        let last = last_line(&body);
        Ok(body + &last)
    }

    /// Inverse of [`Saved::render`].
    ///
    /// # Errors
    /// Why the text is not to be believed, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let at = text.rfind(MARK).ok_or("no checksum line")?;
        let (body, last) = text.split_at(at);
        if last != last_line(body) {
            return Err("checksum mismatch".to_owned());
        }
        toml::from_str(body).map_err(|error: toml::de::Error| error.message().replace('\n', " "))
    }
}

/// Whether a text that [`Saved::parse`] believes may stand for the one that it is the copy of.
#[must_use]
pub fn is_kept_twice(text: &str) -> bool {
    text.contains(TWICE)
}

/// The text as releases wrote it that did not keep it twice.
#[cfg(test)]
pub(super) fn of_earlier_release(text: &str) -> String {
    let (body, _) = text.split_once(TWICE).expect("this release wrote it");
    body.to_owned() + &last_line(body)
}

fn last_line(body: &str) -> String {
    format!("{MARK}{:08x}\n", crc32fast::hash(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let saved = Saved {
            format: 2,
            cluster: "00000000000000c1".into(),
            node: 1,
            cores: 2,
            groups: 16,
            incarnation: 3,
            begun: true,
            birth: 4,
            proven: false,
            bootstrap: BTreeMap::from([("1".into(), SocketAddr::from(([127, 0, 0, 1], 1)))]),
            known: BTreeMap::from([("2".into(), Known { birth: 5, proven: true })]),
        };
        let text = saved.render().expect("small numbers");
        assert_eq!(Saved::parse(&text), Ok(saved));
        for bit in 0..8 * text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // Reading the file refuses what is no UTF-8.
            let Ok(flipped) = String::from_utf8(bytes) else { continue };
            assert!(Saved::parse(&flipped).is_err(), "bit {bit}");
        }
        for end in 0..text.len() {
            assert!(Saved::parse(&text[..end]).is_err(), "cut to {end} bytes");
        }
    }
}
