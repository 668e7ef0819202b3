//! What one key was told, and what it may therefore hold.
//!
//! Each key has one writer, which waits for an answer (or for the end of the connection) before it
//! touches the key again. So the attempts on a key are numbered in real time, and:
//!
//! ```text
//! acknowledged   is there, once, and before everything that was sent after its answer
//! refused        is never there
//! unknown        is there at most once, at any place after what was acknowledged before it was sent
//! settled        the whole cluster was dead since: an unknown that was not there then may not
//!                come back, and what was there stays as it was
//! ```

/// What the node said about one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Executed.
    Acknowledged,
    /// Not executed, and never will be.
    Refused,
    /// Executed or not, now or later. Every attempt begins here.
    Unknown,
}

/// A broken promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// Acknowledged (or read before), and gone.
    Lost,
    /// Refused, and there.
    RefusedSeen,
    /// There twice.
    Duplicated,
    /// Not there after the whole cluster was dead, and there later.
    Late,
    /// There, at the wrong place.
    Misordered,
    /// Nobody wrote this, or no node may say this.
    Alien,
    /// Two nodes say different things while nobody writes.
    Disagreement,
}

/// A broken promise, its weight in writes, and its story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which promise.
    pub wrong: Wrong,
    /// How many writes it is about.
    pub writes: u64,
    /// Key, node, and what was there instead.
    pub what: String,
}

impl Finding {
    /// One write.
    pub fn new(wrong: Wrong, what: impl Into<String>) -> Self {
        Self { wrong, writes: 1, what: what.into() }
    }
}

/// A key that is set once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Once {
    pub(crate) fate: Fate,
    /// The node that was asked.
    pub(crate) node: u8,
    /// Whether it was there at the last check.
    settled: Option<bool>,
}

impl Once {
    pub(crate) fn new(node: u8) -> Self {
        Self { fate: Fate::Unknown, node, settled: None }
    }

    /// Holds what a node returned against what may be.
    pub(crate) fn judge(&self, value: Option<&[u8]>, written: &[u8]) -> Vec<Finding> {
        if let Some(value) = value.filter(|value| *value != written) {
            let value = String::from_utf8_lossy(value);
            return vec![Finding::new(Wrong::Alien, format!("holds {value:?}, never written"))];
        }
        let wrong = match (self.fate, self.settled, value.is_some()) {
            (Fate::Acknowledged, _, false) => (Wrong::Lost, "was acknowledged and is gone"),
            (Fate::Refused, _, true) => (Wrong::RefusedSeen, "was refused and is there"),
            (Fate::Unknown, Some(true), false) => (Wrong::Lost, "was read before and is gone"),
            (Fate::Unknown, Some(false), true) => (Wrong::Late, "came back from the dead"),
            _ => return Vec::new(),
        };
        vec![Finding::new(wrong.0, wrong.1)]
    }

    /// Nobody is writing any more: what was read is what happened.
    pub(crate) fn settle(&mut self, is_there: bool) {
        self.settled = Some(is_there);
    }

    /// Whether the last check settled it for the first time, as executed.
    pub(crate) fn is_news(&self) -> bool {
        self.fate == Fate::Unknown && self.settled.is_none()
    }
}

/// A key that is set again and again; its value is the number of the attempt.
#[derive(Debug, Default)]
pub(crate) struct Register {
    attempts: Vec<Fate>,
    /// The last acknowledged attempt, or the one read at the last check.
    known: Option<u32>,
    /// Unknown since the last check: each may have come after `known`.
    open: Vec<u32>,
}

impl Register {
    pub(crate) fn issue(&mut self) -> u32 {
        self.attempts.push(Fate::Unknown);
        let attempt = self.attempts.len() as u32 - 1;
        self.open.push(attempt);
        attempt
    }

    pub(crate) fn on_answer(&mut self, attempt: u32, fate: Fate) {
        self.attempts[attempt as usize] = fate;
        if fate != Fate::Unknown {
            self.open.retain(|open| *open != attempt);
        }
        if fate == Fate::Acknowledged {
            self.known = Some(attempt);
        }
    }

    pub(crate) fn judge(&self, value: Option<u32>) -> Vec<Finding> {
        if value == self.known || value.is_some_and(|value| self.open.contains(&value)) {
            return Vec::new();
        }
        let known = self.known.map_or("nothing".to_owned(), |known| format!("attempt {known}"));
        let Some(value) = value else {
            return vec![Finding::new(Wrong::Lost, format!("is gone, {known} was there"))];
        };
        let (wrong, how) = match self.attempts.get(value as usize) {
            None => (Wrong::Alien, "never made"),
            Some(Fate::Refused) => (Wrong::RefusedSeen, "refused"),
            Some(Fate::Acknowledged) => (Wrong::Lost, "acknowledged before"),
            Some(Fate::Unknown) => (Wrong::Late, "settled before"),
        };
        vec![Finding::new(wrong, format!("holds attempt {value}, {how}, after {known}"))]
    }

    pub(crate) fn settle(&mut self, value: Option<u32>) {
        self.known = value;
        self.open.clear();
    }
}

/// A key that is appended to; its value is the numbers of the attempts, in order.
#[derive(Debug, Default)]
pub(crate) struct List {
    attempts: Vec<Fate>,
    /// What the last check read.
    settled: Vec<u32>,
    /// The attempts made before it.
    settled_attempts: usize,
}

impl List {
    pub(crate) fn issue(&mut self) -> u32 {
        self.attempts.push(Fate::Unknown);
        self.attempts.len() as u32 - 1
    }

    pub(crate) fn on_answer(&mut self, attempt: u32, fate: Fate) {
        self.attempts[attempt as usize] = fate;
    }

    /// How many elements there may be by now.
    pub(crate) fn length(&self) -> std::ops::RangeInclusive<u64> {
        let since = &self.attempts[self.settled_attempts..];
        let count = |fate| since.iter().filter(|attempt| **attempt == fate).count();
        let least = self.settled.len() + count(Fate::Acknowledged);
        least as u64..=(least + count(Fate::Unknown)) as u64
    }

    pub(crate) fn judge(&self, elements: &[u32]) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut times = vec![0u32; self.attempts.len()];
        for element in elements {
            match times.get_mut(*element as usize) {
                Some(times) => *times += 1,
                None => found.push(Finding::new(Wrong::Alien, format!("{element} never written"))),
            }
        }
        let mut was_there = vec![false; self.attempts.len()];
        self.settled.iter().for_each(|element| was_there[*element as usize] = true);
        for (attempt, (&fate, &times)) in self.attempts.iter().zip(&times).enumerate() {
            let must = fate == Fate::Acknowledged || was_there[attempt];
            let wrong = match (fate, times) {
                (Fate::Refused, 1..) => Wrong::RefusedSeen,
                (_, 2..) => Wrong::Duplicated,
                (_, 0) if must => Wrong::Lost,
                (_, 1) if !must && attempt < self.settled_attempts => Wrong::Late,
                _ => continue,
            };
            let what = format!("attempt {attempt}, {fate:?}, is there {times} times");
            found.push(Finding::new(wrong, what));
        }
        if found.is_empty() {
            found.extend(self.misplaced(elements));
        }
        found
    }

    /// An acknowledged element after one that was sent later, or what was read has moved.
    fn misplaced(&self, elements: &[u32]) -> Option<Finding> {
        if !elements.starts_with(&self.settled) {
            let what = "does not begin with what the last check read";
            return Some(Finding::new(Wrong::Misordered, what));
        }
        let mut latest = 0;
        for &element in elements {
            if element < latest && self.attempts[element as usize] == Fate::Acknowledged {
                let what = format!("attempt {element}, acknowledged, lies after attempt {latest}");
                return Some(Finding::new(Wrong::Misordered, what));
            }
            latest = latest.max(element);
        }
        None
    }

    /// Takes what was read for what happened; how many unknown attempts were executed.
    pub(crate) fn settle(&mut self, elements: Vec<u32>) -> u64 {
        let news = elements.get(self.settled.len()..).unwrap_or(&[]);
        let unknown = news.iter().filter(|element| {
            self.attempts.get(**element as usize).is_some_and(|fate| *fate == Fate::Unknown)
        });
        let executed = unknown.count() as u64;
        self.settled = elements;
        self.settled_attempts = self.attempts.len();
        executed
    }
}

/// A key that is incremented.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    /// What the last check read.
    base: u64,
    acknowledged: u64,
    refused: u64,
    unknown: u64,
}

impl Counter {
    pub(crate) fn issue(&mut self) {
        self.unknown += 1;
    }

    pub(crate) fn on_answer(&mut self, fate: Fate) {
        match fate {
            Fate::Acknowledged => self.acknowledged += 1,
            Fate::Refused => self.refused += 1,
            Fate::Unknown => return,
        }
        self.unknown -= 1;
    }

    /// What it may hold by now.
    pub(crate) fn judge(&self, value: u64) -> Vec<Finding> {
        let least = self.base + self.acknowledged;
        let most = least + self.unknown;
        let (wrong, writes) = if value < least {
            (Wrong::Lost, least - value)
        } else if value <= most {
            return Vec::new();
        } else if self.refused < value - most {
            (Wrong::Duplicated, value - most)
        } else {
            // As many were refused: which of the two it was, a number cannot tell.
            (Wrong::RefusedSeen, value - most)
        };
        let what = format!(
            "is {value}; {} at the last check, then {} acknowledged, {} unknown, {} refused",
            self.base, self.acknowledged, self.unknown, self.refused
        );
        vec![Finding { wrong, writes, what }]
    }

    /// Takes what was read for what happened; how many unknown attempts were executed.
    pub(crate) fn settle(&mut self, value: u64) -> u64 {
        let executed = value.saturating_sub(self.base + self.acknowledged);
        *self = Self { base: value, ..Self::default() };
        executed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Fate::{Acknowledged, Refused, Unknown};

    fn wrongs(found: &[Finding]) -> Vec<Wrong> {
        found.iter().map(|finding| finding.wrong).collect()
    }

    #[test]
    fn a_key_set_once() {
        let judge = |fate, settled, value: Option<&[u8]>| {
            wrongs(&Once { fate, node: 1, settled }.judge(value, b"v"))
        };
        let there = Some(&b"v"[..]);
        assert_eq!(judge(Acknowledged, None, there), []);
        assert_eq!(judge(Acknowledged, None, None), [Wrong::Lost]);
        assert_eq!(judge(Acknowledged, None, Some(b"w")), [Wrong::Alien]);
        assert_eq!(judge(Refused, None, None), []);
        assert_eq!(judge(Refused, None, there), [Wrong::RefusedSeen]);
        assert_eq!(judge(Unknown, None, there), []);
        assert_eq!(judge(Unknown, None, None), []);
        assert_eq!(judge(Unknown, Some(true), None), [Wrong::Lost]);
        assert_eq!(judge(Unknown, Some(false), there), [Wrong::Late]);
    }

    fn list(fates: &[Fate]) -> List {
        let mut list = List::default();
        for fate in fates {
            let attempt = list.issue();
            list.on_answer(attempt, *fate);
        }
        list
    }

    #[test]
    fn a_list_holds_every_acknowledged_element_once_and_in_order() {
        let list = list(&[Acknowledged, Unknown, Refused, Acknowledged]);
        let judge = |elements: &[u32]| wrongs(&list.judge(elements));
        assert_eq!(list.length(), 2..=3);
        assert_eq!(judge(&[0, 3]), []);
        assert_eq!(judge(&[0, 1, 3]), []);
        assert_eq!(judge(&[0, 3, 1]), [], "an unknown one may come late");
        assert_eq!(judge(&[0]), [Wrong::Lost]);
        assert_eq!(judge(&[]), [Wrong::Lost, Wrong::Lost]);
        assert_eq!(judge(&[0, 2, 3]), [Wrong::RefusedSeen]);
        assert_eq!(judge(&[0, 0, 3]), [Wrong::Duplicated]);
        assert_eq!(judge(&[0, 1, 1, 3]), [Wrong::Duplicated]);
        assert_eq!(judge(&[3, 0]), [Wrong::Misordered]);
        assert_eq!(judge(&[1, 0, 3]), [Wrong::Misordered], "sent after 0 was answered");
        assert_eq!(judge(&[0, 3, 9]), [Wrong::Alien]);
    }

    #[test]
    fn a_settled_list_only_grows() {
        let mut list = list(&[Acknowledged, Unknown, Unknown]);
        assert_eq!(list.settle(vec![0, 2]), 1);
        let next = list.issue();
        list.on_answer(next, Acknowledged);
        let judge = |elements: &[u32]| wrongs(&list.judge(elements));
        assert_eq!(list.length(), 3..=3);
        assert_eq!(judge(&[0, 2, 3]), []);
        assert_eq!(judge(&[0, 3]), [Wrong::Lost], "it was read before");
        assert_eq!(judge(&[0, 2, 3, 1]), [Wrong::Late]);
        assert_eq!(judge(&[2, 0, 3]), [Wrong::Misordered]);
    }

    #[test]
    fn a_counter_stays_between_its_bounds() {
        let mut counter = Counter::default();
        for fate in [Acknowledged, Acknowledged, Refused, Unknown] {
            counter.issue();
            counter.on_answer(fate);
        }
        assert_eq!(wrongs(&counter.judge(1)), [Wrong::Lost]);
        assert_eq!(wrongs(&counter.judge(2)), []);
        assert_eq!(wrongs(&counter.judge(3)), []);
        assert_eq!(wrongs(&counter.judge(4)), [Wrong::RefusedSeen]);
        assert_eq!(wrongs(&counter.judge(5)), [Wrong::Duplicated]);
        assert_eq!(counter.judge(0)[0].writes, 2);
        assert_eq!(counter.settle(3), 1);
        assert_eq!(wrongs(&counter.judge(2)), [Wrong::Lost]);
        assert_eq!(wrongs(&counter.judge(4)), [Wrong::Duplicated]);
    }

    #[test]
    fn a_register_holds_the_last_or_an_unknown() {
        let mut register = Register::default();
        assert_eq!(wrongs(&register.judge(None)), []);
        for fate in [Acknowledged, Unknown, Refused, Acknowledged] {
            let attempt = register.issue();
            register.on_answer(attempt, fate);
        }
        assert_eq!(wrongs(&register.judge(Some(3))), []);
        assert_eq!(wrongs(&register.judge(Some(1))), [], "it may come late");
        assert_eq!(wrongs(&register.judge(Some(0))), [Wrong::Lost]);
        assert_eq!(wrongs(&register.judge(None)), [Wrong::Lost]);
        assert_eq!(wrongs(&register.judge(Some(2))), [Wrong::RefusedSeen]);
        assert_eq!(wrongs(&register.judge(Some(7))), [Wrong::Alien]);
        register.settle(Some(3));
        assert_eq!(wrongs(&register.judge(Some(1))), [Wrong::Late]);
    }
}
