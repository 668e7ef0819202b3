//! Is there one order of all operations that explains every answer?
//!
//! The search is Wing & Gong's with Lowe's memory of configurations (WGL): pick any operation that
//! was called before the earliest return still open, run it against the model, go on; step back when
//! an answer does not fit. A configuration (which operations are done, which value holds) that failed
//! once is never tried again.
//!
//! ```text
//!  called ──────────────── returned            must be placed between the two
//!     called ──────────────────────── ∞        unknown outcome: placed late, or never
//! ```
//!
//! An operation of unknown outcome is tried only after all known ones: most of the time it is not
//! needed to explain anything, and then it is never placed. Having placed more of them is never an
//! advantage (what was not placed may still be, or stay out), so a configuration is also given up if
//! one with the same answered operations done, the same value, and fewer unknown ones placed has
//! failed. Without this rule ten unknown writes make a thousand ways to say the same.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::entry::checksum;

use super::history::{Act, Answer, Operation};

/// Configurations tried before the search gives up on one key. No healthy history comes near it.
const STEPS_MAX: u64 = 500_000;

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// An order exists.
    Linearizable,
    /// None exists; the deepest the search came, as the number of answered operations explained.
    Violated {
        /// Answered operations explained at best.
        explained: usize,
        /// The operation that could not be explained then, by its place among the operations given.
        stuck: usize,
    },
    /// Too many configurations.
    GaveUp,
}

/// The value of a key.
type Value = Option<Vec<u8>>;
/// A set of operations, one bit each.
type Bits = SmallVec<[u64; 2]>;
/// Which answered operations are done: the first that is not, and those from its word of bits on, without
/// the words at the end that are zero. Everything before is done, so this names the set, and is short however
/// long the history is.
type Done = (u32, Bits);

/// What a value is after an operation.
enum After {
    /// What it was.
    Same,
    /// Something else, maybe.
    Value(Value),
}

/// What an operation does to `value`, if it may have had the answer that its client heard. An operation
/// that fails and changes nothing (`INCR` of text) cannot have been answered.
fn run(operation: &Operation, value: &Value) -> Option<After> {
    let heard = operation.answer.as_ref();
    let fits = |answer: &Answer| heard.is_none_or(|heard| heard == answer);
    let becomes = |value: Vec<u8>| After::Value(Some(value));
    match &operation.act {
        Act::Get => {
            let is_it = |heard: &Answer| matches!(heard, Answer::Value(heard) if heard == value);
            heard.is_none_or(is_it).then_some(After::Same)
        }
        Act::Set(new) => fits(&Answer::Ok).then(|| becomes(new.clone())),
        Act::Cas { old, new } if value.as_ref() == Some(old) => {
            fits(&Answer::Ok).then(|| becomes(new.clone()))
        }
        Act::Cas { .. } => fits(&Answer::Value(None)).then_some(After::Same),
        Act::Append(tail) => {
            let before = value.as_deref().unwrap_or_default();
            let bytes = (before.len() + tail.len()) as i64;
            fits(&Answer::Int(bytes)).then(|| becomes([before, tail].concat()))
        }
        Act::Incr => {
            let number = value.as_ref().map_or(Some(0), |value| {
                std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok())
            });
            match number.and_then(|number| number.checked_add(1)) {
                Some(next) => {
                    fits(&Answer::Int(next)).then(|| becomes(next.to_string().into_bytes()))
                }
                None => heard.is_none().then_some(After::Same),
            }
        }
        Act::Del => {
            let existed = i64::from(value.is_some());
            fits(&Answer::Int(existed)).then_some(After::Value(None))
        }
    }
}

/// Values by number, so that a configuration is small.
struct Values {
    /// By length and checksum: the numbers of those that have both. They are compared then.
    by_digest: BTreeMap<(Option<u32>, u32), SmallVec<[u32; 2]>>,
    by_number: Vec<Value>,
}

impl Values {
    fn number(&mut self, value: Value) -> u32 {
        let digest = match &value {
            Some(bytes) => (Some(bytes.len() as u32), checksum(bytes)),
            None => (None, 0),
        };
        let alike = self.by_digest.entry(digest).or_default();
        let known = alike.iter().find(|number| self.by_number[**number as usize] == value);
        if let Some(&number) = known {
            return number;
        }
        let next = self.by_number.len() as u32;
        alike.push(next);
        self.by_number.push(value);
        next
    }
}

/// A configuration, and the next candidate to try from it.
struct Frame {
    value: u32,
    /// The operation that led here.
    placed: usize,
    candidates: SmallVec<[u32; 16]>,
    next: usize,
}

struct Search<'a> {
    operations: &'a [Operation],
    /// Answered operations done, by place.
    done: Vec<u64>,
    /// The last word of them with a bit that was ever set.
    high: usize,
    /// Operations of unknown outcome placed, by their place among those.
    placed: Bits,
    /// The first answered operation not done; all answered ones before it are.
    low: usize,
    /// The operations of unknown outcome. They stay open for ever, and are few.
    unknown: Vec<u32>,
    answered_left: usize,
}

impl Search<'_> {
    fn is_done(&self, place: usize) -> bool {
        is_in(&self.done, place)
    }

    fn set(&mut self, place: usize, done: bool) {
        if self.operations[place].answer.is_none() {
            let place = self.unknown.binary_search(&(place as u32));
            put(&mut self.placed, place.expect("it is one of the unknown"), done);
            return;
        }
        put(&mut self.done, place, done);
        if done {
            self.high = self.high.max(place / 64);
            self.answered_left -= 1;
        } else {
            self.low = self.low.min(place);
            self.answered_left += 1;
        }
        let is_passed =
            |low: usize, it: &Self| it.is_done(low) || it.operations[low].answer.is_none();
        while self.low < self.operations.len() && is_passed(self.low, self) {
            self.low += 1;
        }
    }

    /// The answered operations done, as a name for them.
    fn named(&self) -> Done {
        let words = self.done.get(self.low / 64..=self.high).unwrap_or_default();
        let used = words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        (self.low as u32, Bits::from_slice(&words[..used]))
    }

    /// What may come next: called before every open return. Answered operations first, by return.
    fn candidates(&self) -> SmallVec<[u32; 16]> {
        let mut deadline = u64::MAX;
        let mut answered: SmallVec<[u32; 16]> = SmallVec::new();
        for (place, operation) in (self.low..).zip(&self.operations[self.low..]) {
            if operation.called > deadline {
                break;
            }
            if operation.answer.is_some() && !self.is_done(place) {
                deadline = deadline.min(operation.returned);
                answered.push(place as u32);
            }
        }
        let mut unknown: SmallVec<[u32; 16]> = SmallVec::new();
        for (at, &place) in self.unknown.iter().enumerate() {
            let operation = &self.operations[place as usize];
            if operation.called > deadline {
                break;
            }
            // Of several that do the same (`INCR`, `DEL`), the first called can stand for any.
            let same = |&other: &u32| self.operations[other as usize].act == operation.act;
            if !is_in(&self.placed, at) && !unknown.iter().any(same) {
                unknown.push(place);
            }
        }
        answered.sort_by_key(|&place| self.operations[place as usize].returned);
        answered.extend(unknown);
        answered
    }
}

/// Searches for an order that explains `operations` (in the order of their calls), starting from a
/// key that does not exist.
#[must_use]
pub fn check(operations: &[Operation]) -> Verdict {
    debug_assert!(operations.is_sorted_by_key(|operation| operation.called));
    let mut values = Values { by_digest: BTreeMap::new(), by_number: Vec::new() };
    let unknown = (0..).zip(operations).filter(|it| it.1.answer.is_none()).map(|it| it.0);
    let unknown: Vec<u32> = unknown.collect();
    let low = operations.iter().position(|operation| operation.answer.is_some());
    let mut search = Search {
        operations,
        done: vec![0; operations.len() / 64 + 1],
        high: 0,
        placed: SmallVec::from_elem(0, unknown.len() / 64 + 1),
        low: low.unwrap_or(operations.len()),
        unknown,
        answered_left: operations.iter().filter(|operation| operation.answer.is_some()).count(),
    };
    let answered = search.answered_left;
    let mut seen: BTreeMap<(Done, u32), SmallVec<[Bits; 1]>> = BTreeMap::new();
    let mut best = (0, 0);
    let mut steps = 0_u64;
    let value = values.number(None);
    let candidates = search.candidates();
    let mut stack = vec![Frame { value, placed: usize::MAX, candidates, next: 0 }];
    loop {
        if search.answered_left == 0 {
            return Verdict::Linearizable;
        }
        let Some(top) = stack.last_mut() else {
            return Verdict::Violated { explained: best.0, stuck: best.1 };
        };
        let Some(&place) = top.candidates.get(top.next) else {
            let placed = top.placed;
            stack.pop();
            if placed != usize::MAX {
                search.set(placed, false);
            }
            continue;
        };
        top.next += 1;
        steps += 1;
        if steps > STEPS_MAX {
            return Verdict::GaveUp;
        }
        let place = place as usize;
        let (before, operation, last) = (top.value, &operations[place], top.placed);
        let is_blind = matches!(operation.act, Act::Set(_) | Act::Del);
        if operation.answer.is_none()
            && is_blind
            && operations.get(last).is_some_and(|last| last.answer.is_none())
        {
            // It hides what was placed just before it, which then need not have been placed.
            continue;
        }
        let value = match run(operation, &values.by_number[before as usize]) {
            Some(After::Same) => before,
            Some(After::Value(after)) => values.number(after),
            None => {
                let explained = answered - search.answered_left;
                if explained >= best.0 {
                    best = (explained, place);
                }
                continue;
            }
        };
        if operation.answer.is_none() && value == before {
            // Without an effect and without an answer it explains nothing.
            continue;
        }
        search.set(place, true);
        let tried = seen.entry((search.named(), value)).or_default();
        steps += tried.len() as u64 / 8;
        if !tried.iter().any(|tried| is_within(tried, &search.placed)) {
            tried.push(search.placed.clone());
            let candidates = search.candidates();
            stack.push(Frame { value, placed: place, candidates, next: 0 });
        } else {
            search.set(place, false);
        }
    }
}

fn is_in(set: &[u64], place: usize) -> bool {
    set[place / 64] & (1 << (place % 64)) != 0
}

fn put(set: &mut [u64], place: usize, is_in: bool) {
    let bit = 1 << (place % 64);
    set[place / 64] = if is_in { set[place / 64] | bit } else { set[place / 64] & !bit };
}

/// Every bit of `few` is in `many`.
fn is_within(few: &Bits, many: &Bits) -> bool {
    few.iter().zip(many).all(|(few, many)| few & !many == 0)
}

/// The operations around the one that could not be explained, for a reader.
#[must_use]
pub fn story(operations: &[Operation], stuck: usize) -> String {
    let mut text = String::new();
    for (place, operation) in operations.iter().enumerate() {
        let near = place + 15 >= stuck && place <= stuck + 5;
        let open = operation.answer.is_none() && place <= stuck;
        if near || open {
            let mark = if place == stuck { ">>" } else { "  " };
            text += &format!("{mark} {operation}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `client called returned act answer`, with `-` for an unknown return.
    fn history(script: &str) -> Vec<Operation> {
        let mut operations: Vec<_> = script.lines().filter_map(operation).collect();
        operations.sort_by_key(|operation| operation.called);
        operations
    }

    fn operation(line: &str) -> Option<Operation> {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let words: Vec<_> = line.split_whitespace().collect();
        let [called, returned, act, rest @ ..] = &words[..] else { return None };
        let (act, rest) = match (*act, rest) {
            ("get", rest) => (Act::Get, rest),
            ("set", [value, rest @ ..]) => (Act::Set(bytes(value)), rest),
            ("append", [value, rest @ ..]) => (Act::Append(bytes(value)), rest),
            ("cas", [old, new, rest @ ..]) => (Act::Cas { old: bytes(old), new: bytes(new) }, rest),
            ("incr", rest) => (Act::Incr, rest),
            ("del", rest) => (Act::Del, rest),
            other => panic!("unknown act {other:?}"),
        };
        let answer = rest.first().map(|answer| match (*answer, answer.strip_prefix(':')) {
            (_, Some(number)) => Answer::Int(number.parse().expect("a number")),
            ("ok", _) => Answer::Ok,
            ("nil", _) => Answer::Value(None),
            (value, _) => Answer::Value(Some(bytes(value))),
        });
        let returned = if *returned == "-" { u64::MAX } else { returned.parse().expect("a time") };
        let called = called.parse().expect("a time");
        Some(Operation { client: 0, act, called, returned, answer })
    }

    fn holds(script: &str) -> bool {
        match check(&history(script)) {
            Verdict::Linearizable => true,
            Verdict::Violated { .. } => false,
            Verdict::GaveUp => panic!("gave up"),
        }
    }

    #[test]
    fn one_client_after_another() {
        assert!(holds("1 2 get nil\n 3 4 set a ok\n 5 6 get a\n 7 8 append b :2\n 9 10 get ab"));
        assert!(holds("1 2 incr :1\n 3 4 incr :2\n 5 6 del :1\n 7 8 get nil\n 9 10 del :0"));
        assert!(holds("1 2 set a ok\n 3 4 cas a b ok\n 5 6 cas a c nil\n 7 8 get b"));
    }

    #[test]
    fn a_stale_read_is_seen() {
        assert!(!holds("1 2 set a ok\n 3 4 set b ok\n 5 6 get a"));
        assert!(holds("1 2 set a ok\n 3 9 set b ok\n 5 6 get a"), "the second write was under way");
        assert!(!holds("1 2 set a ok\n 3 9 set b ok\n 4 5 get b\n 6 7 get a"), "time goes back");
    }

    #[test]
    fn a_lost_write_is_seen() {
        assert!(!holds("1 2 set a ok\n 3 4 get nil"));
        assert!(!holds("1 2 incr :1\n 1 2 incr :1"));
    }

    #[test]
    fn a_write_done_twice_is_seen() {
        assert!(!holds("1 2 incr :1\n 3 4 get 2"));
        assert!(!holds("1 - append x\n 3 4 get xx"));
    }

    #[test]
    fn an_unknown_outcome_may_happen_late_or_never_but_once() {
        assert!(holds("1 - set a\n 3 4 get nil\n 5 6 get nil"));
        assert!(holds("1 - set a\n 3 4 get nil\n 5 6 get a"));
        assert!(!holds("1 - set a\n 3 4 get a\n 5 6 set b ok\n 7 8 get a"));
        assert!(!holds("3 - set a\n 1 2 get a"), "seen before it was asked");
    }

    #[test]
    fn what_nobody_wrote_is_seen() {
        assert!(!holds("1 2 set a ok\n 3 4 get z"));
    }

    #[test]
    fn forty_unknown_writes_do_not_slow_the_search() {
        let mut script = String::new();
        for round in 0..40 {
            script += &format!("{} - incr\n", round * 10);
            script += &format!("{} {} get {}\n", round * 10 + 1, round * 10 + 2, round / 2);
        }
        assert!(!holds(&script), "nobody set it to zero");
        assert!(holds(&script.replacen("get 0", "get nil", 2)));
        script.clear();
        for round in 0..40 {
            script += &format!("{} - set u{round}\n", round * 10);
            script += &format!("{} {} set v{round} ok\n", round * 10 + 1, round * 10 + 4);
            script += &format!("{} {} get v{round}\n", round * 10 + 5, round * 10 + 7);
        }
        assert!(holds(&script));
    }
}
