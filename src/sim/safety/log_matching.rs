//! Log matching (§5.3): if two logs contain an entry with the same index and term, then the logs are
//! identical in all entries up through that index.
//!
//! By induction it is enough that an index and a term name one entry, and that one entry has one
//! predecessor: both are checked for every entry a replica takes into its log.

use smallvec::SmallVec;

use crate::id::{Index, ReplicaId, Term};

use super::{Checked, PerGroup, Sight, Stamp};

/// An entry, its predecessor's term if it is known, and who had it first.
type Seen = (Stamp, Option<Term>, ReplicaId);

/// Every entry ever seen in any log.
#[derive(Debug, Default)]
pub struct LogMatching {
    /// By index: one entry for each term that ever had one there.
    entries: PerGroup<Vec<SmallVec<[Seen; 1]>>>,
}

impl LogMatching {
    /// Looks at what changed in a replica's log.
    ///
    /// # Errors
    /// If an entry, or the one before it, is another than in a log seen before.
    pub fn look(&mut self, sight: &Sight<'_>) -> Checked {
        let entries = self.entries.at(sight.group);
        for index in sight.changed.0..=sight.log.len() as u64 {
            let index = Index(index);
            let Some(stamp) = sight.at(index).filter(|stamp| !stamp.is_gone()) else { continue };
            let before = match sight.at(index.prev()) {
                Some(stamp) => (!stamp.is_gone()).then_some(stamp.term),
                None => Some(Term(0)),
            };
            let place = index.0 as usize - 1;
            if entries.len() <= place {
                entries.resize_with(place + 1, SmallVec::new);
            }
            let here = &mut entries[place];
            let known = here.iter().position(|(known, ..)| known.term == stamp.term);
            let known = known.unwrap_or_else(|| {
                here.push((*stamp, before, sight.replica));
                here.len() - 1
            });
            let (known, known_before, first) = &mut here[known];
            let differs = known_before.zip(before).is_some_and(|(known, before)| known != before);
            if !known.agrees(stamp) || differs {
                return Err(format!(
                    "log matching: group {} entry {}/{index}: replica {first} has checksum {:?} \
                     after term {known_before:?}, replica {} has {:?} after term {before:?}",
                    sight.group, stamp.term, known.crc, sight.replica, stamp.crc,
                ));
            }
            known.crc = known.crc.or(stamp.crc);
            *known_before = known_before.or(before);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{log, sight};
    use super::*;

    #[test]
    fn logs_may_differ_until_they_share_an_entry() {
        let cases: [(&[i64], &[i64], bool); 4] = [
            (&[1, 1, 2], &[1, 1, 3, 3], true),
            (&[1, 1, 2], &[1, -1, 2], false), // another entry of the same name
            (&[1, 2, 4], &[1, 3, 4], false),  // the same entry after another
            (&[1, 1], &[1, 1, 1], true),
        ];
        for (one, other, holds) in cases {
            let mut safety = LogMatching::default();
            assert!(safety.look(&sight(1, 9, &log(one))).is_ok());
            let verdict = safety.look(&sight(2, 9, &log(other)));
            assert_eq!(verdict.is_ok(), holds, "{one:?} {other:?}");
        }
    }
}
