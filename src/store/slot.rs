//! Keys → hash slots → groups, by Redis Cluster's rule.

use std::ops::Range;

use crate::id::GroupId;

/// How many hash slots there are.
pub const SLOTS: u16 = 16_384;

/// The hash slot of a key: CRC-16/XMODEM of the key, or of its tag — the bytes between the first
/// `{` and the first `}` after it, if there are any.
#[must_use]
pub fn key_slot(key: &[u8]) -> u16 {
    crc16(tag(key)) % SLOTS
}

fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|&byte| byte == b'}') {
        Some(0) | None => key,
        Some(close) => &rest[..close],
    }
}

/// The group that owns `slot`, of `groups`. Every group owns a contiguous range.
#[must_use]
pub fn slot_group(slot: u16, groups: u64) -> GroupId {
    GroupId(u64::from(slot) * groups / u64::from(SLOTS))
}

/// The group that owns `key`.
#[must_use]
pub fn key_group(key: &[u8], groups: u64) -> GroupId {
    slot_group(key_slot(key), groups)
}

/// The slots that `group` owns.
#[must_use]
pub fn group_slots(group: GroupId, groups: u64) -> Range<u16> {
    let start = |group: u64| (group * u64::from(SLOTS)).div_ceil(groups) as u16;
    start(group.0)..start(group.0 + 1)
}

/// Whether all keys are in the slot of the first.
pub(super) fn is_one(keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> bool {
    let mut slots = keys.into_iter().map(|key| key_slot(key.as_ref()));
    let first = slots.next();
    slots.all(|slot| Some(slot) == first)
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, &byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

/// CRC-16 of every byte; polynomial 0x1021, nothing reflected, start at zero.
const CRC16: [u16; 256] = {
    let mut table = [0u16; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // The check value of CRC-16/XMODEM, from Redis Cluster's specification.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // CLUSTER KEYSLOT of a Redis 7.
        for (key, slot) in [("foo", 12182), ("bar", 5061), ("hello", 866), ("", 0)] {
            assert_eq!(key_slot(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn tags_keep_keys_together() {
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"{user1000}.followers"));
        assert_eq!(key_slot(b"foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
        assert_eq!(key_slot(b"foo{bar}{zap}"), key_slot(b"bar"));
        assert_eq!(key_slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS, "an empty tag is none");
        assert_eq!(key_slot(b"foo{bar"), crc16(b"foo{bar") % SLOTS, "an open tag is none");
    }

    #[test]
    fn groups_share_the_slots_without_gap_or_overlap() {
        for groups in [1, 2, 3, 7, 16, 1000, 16_384] {
            let mut next = 0;
            for group in 0..groups {
                let slots = group_slots(GroupId(group), groups);
                assert_eq!(slots.start, next, "group {group} of {groups}");
                assert!(!slots.is_empty());
                for slot in [slots.start, slots.end - 1] {
                    assert_eq!(slot_group(slot, groups), GroupId(group));
                }
                next = slots.end;
            }
            assert_eq!(next, SLOTS);
        }
    }
}
