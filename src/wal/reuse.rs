//! Which files that the log no longer needs are kept, and which of them becomes a segment again.
//!
//! ```text
//!   0000000000000007.seg ──reclaimed──► 0000000000000007.old ──wanted──► 0000000000000018.seg
//!        (sealed)                     at most RETIRED_SEGMENTS_MAX           (spare)
//! ```
//!
//! A file is renamed and not written: what it held is still in it when it is a spare. That is borne
//! because of one rule, held here for both drivers: *the number of a file only rises*. All batches in a
//! spare then carry lower numbers than its own, whatever became of its earlier lives, and a batch
//! header names its segment. Zeroing could be spared only with this rule: a first write that was torn
//! leaves batches of that very number behind, and the same number may be wanted again.

use crate::id::SegmentSeq;
use crate::limits::RETIRED_SEGMENTS_MAX;

use super::segment::file_name;

/// The end of a retired segment's name.
const RETIRED_SUFFIX: &str = ".old";

/// The name of a segment that the log no longer needs, e.g. `000000000000002a.old`.
#[must_use]
pub fn retired_name(segment: SegmentSeq) -> String {
    file_name(segment).replace(".seg", RETIRED_SUFFIX)
}

/// The number that a retired file had; `None` for every other name. Inverse of [`retired_name`].
#[must_use]
pub fn parse_retired_name(name: &str) -> Option<SegmentSeq> {
    let digits = name.strip_suffix(RETIRED_SUFFIX)?;
    super::segment::parse_file_name(&format!("{digits}.seg"))
}

/// Whether one more file is kept when `retired` of them are.
#[must_use]
pub const fn is_kept(retired: usize) -> bool {
    retired < RETIRED_SEGMENTS_MAX
}

/// Which of the retired files becomes segment `wanted`: the oldest, if its number is lower. `None`: a
/// file of zeroes is to be made.
#[must_use]
pub fn successor_of(
    retired: impl IntoIterator<Item = SegmentSeq>,
    wanted: SegmentSeq,
) -> Option<SegmentSeq> {
    retired.into_iter().min().filter(|oldest| *oldest < wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_retired_segments_go_there_and_back_and_are_no_segments() {
        for seq in [1, 42, u64::MAX].map(SegmentSeq) {
            let name = retired_name(seq);
            assert_eq!(parse_retired_name(&name), Some(seq));
            assert_eq!(super::super::segment::parse_file_name(&name), None);
            assert_eq!(parse_retired_name(&file_name(seq)), None);
        }
        for other in ["0000000000000000.old", "1.old", "000000000000002A.old", ".old"] {
            assert_eq!(parse_retired_name(other), None, "{other}");
        }
    }

    #[test]
    fn the_number_of_a_file_only_rises() {
        let retired = [7, 5, 9].map(SegmentSeq);
        assert_eq!(successor_of(retired, SegmentSeq(6)), Some(SegmentSeq(5)));
        assert_eq!(successor_of(retired, SegmentSeq(10)), Some(SegmentSeq(5)));
        for wanted in [4, 5] {
            assert_eq!(successor_of(retired, SegmentSeq(wanted)), None);
        }
        assert_eq!(successor_of([], SegmentSeq(10)), None);
    }
}
