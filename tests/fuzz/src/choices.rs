//! Choices out of an input. One that has run out chooses the first of everything.

use arbitrary::Unstructured;

/// Where choices come from.
pub(crate) type Choices<'a> = Unstructured<'a>;

pub(crate) fn byte(choices: &mut Choices<'_>) -> u8 {
    choices.arbitrary().unwrap_or(0)
}

/// One of `0 .. count`.
pub(crate) fn below(choices: &mut Choices<'_>, count: usize) -> usize {
    choices.int_in_range(0..=count.saturating_sub(1)).unwrap_or(0)
}

/// Once in `count` times.
pub(crate) fn rarely(choices: &mut Choices<'_>, count: usize) -> bool {
    below(choices, count) == count - 1
}

/// A number of the kind that decoders trip over: small, huge, near a power of two, or any.
pub(crate) fn number(choices: &mut Choices<'_>) -> u64 {
    let near = u64::from(byte(choices));
    match near % 8 {
        0..=3 => near,
        4 => u64::MAX - near,
        5 => (1 << 62) - 64 + near / 2,
        6 => u64::from(u32::MAX) - 128 + near,
        _ => choices.arbitrary().unwrap_or(0),
    }
}

/// Up to `max` bytes of the input.
pub(crate) fn some<'a>(choices: &mut Choices<'a>, max: usize) -> &'a [u8] {
    let count = below(choices, max + 1).min(choices.len());
    choices.bytes(count).unwrap_or_default()
}

/// All that is left of the input.
pub(crate) fn rest<'a>(choices: &mut Choices<'a>) -> &'a [u8] {
    choices.bytes(choices.len()).unwrap_or_default()
}

/// Flips one to three bits, no bit twice.
pub(crate) fn flip(choices: &mut Choices<'_>, bytes: &mut [u8]) {
    let mut flipped: Vec<usize> = Vec::new();
    for _ in 0..=below(choices, 3) {
        let bit = below(choices, 8 * bytes.len());
        if !flipped.contains(&bit) {
            flipped.push(bit);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// Calls `take` with all of `bytes` in parts, at least one byte each.
pub(crate) fn cut<'b>(
    choices: &mut Choices<'_>,
    mut bytes: &'b [u8],
    mut take: impl FnMut(&'b [u8]),
) {
    while !bytes.is_empty() {
        let most = [1, 7, 64, bytes.len()][below(choices, 4)].min(bytes.len());
        let (part, rest) = bytes.split_at(1 + below(choices, most));
        take(part);
        bytes = rest;
    }
}
