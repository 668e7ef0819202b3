//! What a key holds: bytes, a hash or a set, and until when.
//!
//! Hashes and sets are persistent like the map around them: a copy shares everything and costs nothing,
//! so that a snapshot holds one while it changes.

use bytes::Bytes;

use crate::id::UnixMs;
use crate::wire::reply::Reply;

use super::mix;
use super::parts::Parts;

/// Values by field.
pub(super) type Hash = Parts<Bytes>;
/// Members.
pub(super) type Set = Parts<()>;

/// What a key holds.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Bytes.
    String(Bytes),
    /// Several things. Boxed, so that a string takes no more room for it.
    Collection(Box<Collection>),
    /// One of those, until its time has come. Boxed for the same reason.
    Expiring(Box<Expiring>),
}

/// A value that goes by itself.
#[derive(Debug, Clone)]
pub(super) struct Expiring {
    /// When.
    pub(super) at: UnixMs,
    /// Never one that expires itself.
    pub(super) value: Value,
}

/// A value of several parts; never empty, because the last part takes its key with it.
#[derive(Debug, Clone)]
pub(super) enum Collection {
    /// Fields and their values.
    Hash(Hash),
    /// Members.
    Set(Set),
}

impl Value {
    /// The value, whether it expires or not.
    pub(super) fn kept(&self) -> &Self {
        match self {
            Self::Expiring(it) => &it.value,
            _ => self,
        }
    }

    /// The same, to change it.
    pub(super) fn kept_mut(&mut self) -> &mut Self {
        match self {
            Self::Expiring(it) => &mut it.value,
            _ => self,
        }
    }

    /// When it goes by itself, if ever.
    pub(super) fn expires(&self) -> Option<UnixMs> {
        match self {
            Self::Expiring(it) => Some(it.at),
            _ => None,
        }
    }

    /// The same value, to go then.
    pub(super) fn expiring(self, at: Option<UnixMs>) -> Self {
        let value = match self {
            Self::Expiring(it) => it.value,
            value => value,
        };
        match at {
            Some(at) => Self::Expiring(Box::new(Expiring { at, value })),
            None => value,
        }
    }

    /// As `TYPE` names it.
    pub(super) fn type_name(&self) -> &'static str {
        match self.collection() {
            None => "string",
            Some(Collection::Hash(_)) => "hash",
            Some(Collection::Set(_)) => "set",
        }
    }

    fn collection(&self) -> Option<&Collection> {
        match self.kept() {
            Self::Collection(it) => Some(it),
            _ => None,
        }
    }

    /// The bytes, if it is bytes.
    ///
    /// # Errors
    /// `-WRONGTYPE`.
    pub(super) fn string(&self) -> Result<&Bytes, Reply> {
        match self.kept() {
            Self::String(bytes) => Ok(bytes),
            _ => Err(wrong_type()),
        }
    }

    /// The hash, if it is one.
    ///
    /// # Errors
    /// `-WRONGTYPE`.
    pub(super) fn hash(&self) -> Result<&Hash, Reply> {
        match self.collection() {
            Some(Collection::Hash(hash)) => Ok(hash),
            _ => Err(wrong_type()),
        }
    }

    /// The set, if it is one.
    ///
    /// # Errors
    /// `-WRONGTYPE`.
    pub(super) fn set(&self) -> Result<&Set, Reply> {
        match self.collection() {
            Some(Collection::Set(set)) => Ok(set),
            _ => Err(wrong_type()),
        }
    }

    /// A digest of it, mixed with `seed`. Parts are mixed on their own and added: their order is no
    /// part of the value.
    pub(super) fn digest(&self, seed: u64) -> u64 {
        match self {
            Self::String(bytes) => mix(bytes, seed),
            Self::Expiring(it) => it.value.digest(mix(&it.at.0.to_le_bytes(), seed)),
            Self::Collection(it) => match &**it {
                Collection::Hash(hash) => hash.iter().fold(1, |sum: u64, (field, value)| {
                    sum.wrapping_add(mix(value, mix(field, seed)))
                }),
                Collection::Set(set) => {
                    set.iter().fold(2, |sum: u64, (member, ())| sum.wrapping_add(mix(member, seed)))
                }
            },
        }
    }
}

/// `-WRONGTYPE`, in Redis' words.
pub(super) fn wrong_type() -> Reply {
    Reply::error("WRONGTYPE", "Operation against a key holding the wrong kind of value")
}
