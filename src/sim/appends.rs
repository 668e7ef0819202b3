//! Lists that only grow: is there one order of all appends that explains every answer?
//!
//! The question that [`linear`](super::linear) searches an answer to can be read off, if every element
//! is written at most once: what a read sees *is* the order (Kingsbury & Alvaro, "Elle", 2020). So this
//! takes `n log n` where the search may take for ever, however many outcomes stayed unknown.
//!
//! ```text
//!   the longest read   a b c d e f              the order, as far as it is known
//!   a shorter read     a b c                    a prefix of it: it stands behind c, in front of d
//!   APPEND d -> 4 elements long                 it stands at d
//!   APPEND x -> unknown, never read             it stands behind everything, or nowhere
//! ```
//!
//! What is left to check is time: an operation that was over before another one was asked for stands in
//! front of it.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Act, Answer, Operation};

/// What ends every element.
pub const END: u8 = b',';

/// Checks the history of one list, whose operations are `GET` and `APPEND` of elements that end with
/// [`END`], each written at most once.
///
/// # Errors
/// What no order explains.
pub fn check(operations: &[Operation]) -> Result<(), String> {
    let longest = longest(operations);
    let places = places(longest)?;
    let mut ends: Vec<usize> = places.values().map(|(_, end)| *end).collect();
    ends.sort_unstable();
    let mut points = Vec::new();
    for operation in operations {
        let Some(point) = point(operation, longest, &places, &ends)? else { continue };
        points.push(Placed { operation, point });
    }
    in_time(points)?;
    let written = operations.iter().filter_map(|operation| match &operation.act {
        Act::Append(element) => Some(&element[..]),
        _ => None,
    });
    let written: BTreeSet<&[u8]> = written.collect();
    match places.keys().find(|element| !written.contains(*element)) {
        None => Ok(()),
        Some(element) => {
            Err(format!("append list: {} is there, and nobody wrote it", text(element)))
        }
    }
}

/// An operation and where it stands: an append of the n-th element at `2n`, a read of n elements just
/// behind, at `2n + 1`.
struct Placed<'a> {
    operation: &'a Operation,
    point: usize,
}

/// The list as the read that saw most of it saw it.
fn longest(operations: &[Operation]) -> &[u8] {
    let lists = operations.iter().filter_map(|operation| match &operation.answer {
        Some(Answer::Value(Some(list))) => Some(&list[..]),
        _ => None,
    });
    lists.max_by_key(|list| list.len()).unwrap_or_default()
}

/// Where each element of a list stands, counted from one, and where it ends, in bytes.
fn places(list: &[u8]) -> Result<BTreeMap<&[u8], (usize, usize)>, String> {
    let (mut places, mut end) = (BTreeMap::new(), 0);
    for (at, element) in (1..).zip(list.split_inclusive(|byte| *byte == END)) {
        end += element.len();
        if places.insert(element, (at, end)).is_some() {
            return Err(format!("append list: {} is there twice", text(element)));
        }
    }
    Ok(places)
}

/// Where an operation stands; `None` if it may stand anywhere, or nowhere.
fn point(
    operation: &Operation,
    longest: &[u8],
    places: &BTreeMap<&[u8], (usize, usize)>,
    ends: &[usize],
) -> Result<Option<usize>, String> {
    let wrong = |what: String| Err(format!("append list: {what}: {operation}"));
    match (&operation.act, &operation.answer) {
        (Act::Get, None) => Ok(None),
        (Act::Get, Some(Answer::Value(seen))) => {
            let seen = seen.as_deref().unwrap_or_default();
            if !longest.starts_with(seen) {
                return wrong(format!("no prefix of {}", text(longest)));
            }
            // As many elements as end in front of its end, and the one that ends with it, or would.
            let ended = ends.partition_point(|end| *end < seen.len());
            let count = ended + usize::from(!seen.is_empty());
            Ok(Some(2 * count + 1))
        }
        (Act::Append(element), answer) => match (places.get(&element[..]), answer) {
            (Some((at, end)), Some(Answer::Int(bytes))) if *bytes != *end as i64 => {
                wrong(format!("it is number {at}, where the list has {end} bytes"))
            }
            (Some((at, _)), None | Some(Answer::Int(_))) => Ok(Some(2 * at)),
            // Nobody has seen it: it stands behind all that anybody has seen, the longer the later.
            (None, Some(Answer::Int(bytes))) if longest.len() < *bytes as usize => {
                Ok(Some(2 * places.len() + *bytes as usize - longest.len()))
            }
            (None, Some(Answer::Int(_))) => wrong(format!("lost from {}", text(longest))),
            (None, None) => Ok(None),
            _ => wrong("no answer to it".into()),
        },
        _ => wrong("not an operation on a list".into()),
    }
}

/// Whether every operation stands behind all that were over before it was asked for.
fn in_time(mut points: Vec<Placed<'_>>) -> Result<(), String> {
    let mut over: Vec<(u64, usize)> =
        points.iter().map(|it| (it.operation.returned, it.point)).collect();
    over.sort_unstable();
    points.sort_by_key(|it| it.operation.called);
    let (mut next, mut reached) = (0, 0);
    for Placed { operation, point } in points {
        while let Some(&(returned, point)) = over.get(next)
            && returned < operation.called
        {
            reached = reached.max(point);
            next += 1;
        }
        if point < reached {
            return Err(format!(
                "append list: it stands at {point} of {reached} that were over before it was asked \
                 for: {operation}"
            ));
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `append(…)` or `get(…)`: called, returned, element or list, and what came back.
    fn append(called: u64, returned: u64, element: &str, bytes: Option<i64>) -> Operation {
        let act = Act::Append(element.as_bytes().to_vec());
        Operation { client: 0, act, called, returned, answer: bytes.map(Answer::Int) }
    }

    fn get(called: u64, returned: u64, list: &str) -> Operation {
        let value = (!list.is_empty()).then(|| list.as_bytes().to_vec());
        let answer = Some(Answer::Value(value));
        Operation { client: 1, act: Act::Get, called, returned, answer }
    }

    const NEVER: u64 = u64::MAX;

    #[test]
    fn what_one_order_explains_is_fine() {
        for history in [
            &[][..],
            &[get(1, 2, "")],
            &[append(1, 2, "a,", Some(2)), get(3, 4, "a,"), append(3, 9, "b,", Some(4))],
            // Both at once, in either order; the read in between.
            &[append(1, 9, "a,", Some(4)), append(1, 9, "b,", Some(2)), get(2, 8, "b,a,")],
            // Of unknown outcome: executed late, or never.
            &[append(1, NEVER, "a,", None), get(3, 4, ""), get(5, 6, "a,")],
            &[append(1, NEVER, "a,", None), get(3, 4, "")],
            // Answered after the last read began.
            &[get(1, 9, ""), append(2, 3, "a,", Some(2))],
        ] {
            assert_eq!(check(history), Ok(()), "{history:?}");
        }
    }

    #[test]
    fn what_no_order_explains_is_seen() {
        for (history, what) in [
            (&[append(1, 2, "a,", Some(2)), get(3, 4, "")][..], "asked for"),
            (&[append(1, 2, "a,", Some(2)), get(3, 4, "b,")], "lost"),
            (&[append(1, 9, "a,", None), get(3, 4, "a,a,")], "twice"),
            (&[append(1, 2, "a,", Some(2)), get(3, 4, "a,b,")], "nobody"),
            (&[get(1, 2, "a,"), get(1, 2, "b,a,")], "no prefix"),
            (&[get(1, 2, "a,b,"), get(3, 4, "a,")], "asked for"),
            (&[append(5, 6, "a,", Some(2)), get(1, 2, "a,")], "asked for"),
            (
                &[append(1, 2, "b,", Some(4)), append(3, 4, "a,", Some(2)), get(5, 6, "a,b,")],
                "asked",
            ),
            (&[append(1, 2, "a,", Some(4)), get(3, 4, "a,")], "number 1"),
            (&[append(1, 2, "a,", Some(2)), append(3, 4, "b,", Some(4)), get(5, 6, "a,")], "asked"),
        ] {
            let error = check(history).expect_err("a bad history");
            assert!(error.contains(what), "{error} for {history:?}");
        }
    }

    #[test]
    fn many_unknown_outcomes_cost_nothing() {
        let mut history: Vec<Operation> =
            (0..2_000).map(|n| append(n, NEVER, &format!("{n},"), None)).collect();
        let list: String = (0..2_000).rev().map(|n| format!("{n},")).collect();
        history.push(get(3_000, 3_001, &list));
        assert_eq!(check(&history), Ok(()));
    }
}
