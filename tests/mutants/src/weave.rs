//! The text of a file with all its mutants in it.
//!
//! Everything is put between the bytes of the source, so a place inside another needs no care: each brings what stands in front of
//! it and behind it. What a mutant puts in place of an expression has no mutants itself, because only one is on at a time.

use std::cmp::Reverse;
use std::ops::Range;

use crate::find::{Form, Found, Site};

/// A file as it is built, and which bytes belong to whom.
pub struct Woven {
    pub text: String,
    /// A mutant's own text, and its place in [`Found::mutants`].
    pub own: Vec<(Range<usize>, usize)>,
    /// All of a place, and its place in [`Found::sites`].
    pub sites: Vec<(Range<usize>, usize)>,
}

/// The file with the mutants that `number` has a number for, and without `const` in front of the functions that hold one.
pub fn weave(source: &str, found: &Found, number: impl Fn(usize) -> Option<usize>) -> Woven {
    let mut source = source.to_owned();
    let mut inserts = Vec::new();
    for (place, site) in found.sites.iter().enumerate() {
        let live: Vec<Live<'_>> = site
            .texts
            .iter()
            .filter_map(|(mutant, text)| {
                Some(Live { mutant: *mutant, number: number(*mutant)?, text })
            })
            .collect();
        if live.is_empty() {
            continue;
        }
        if let Some(of) = found.mutants[live[0].mutant].in_const {
            source.replace_range(found.consts[of].keyword.clone(), "     ");
        }
        let (open, close) = parts(site, &live);
        let (from, to) = (site.range.start, site.range.end);
        let (open_at, close_at) = match site.form {
            Form::Instead | Form::GuardedArm => (from, to),
            Form::Leave | Form::Empty => (from + 1, to - 1),
            Form::Arm => (to, to),
        };
        // Behind what ends there, the inner one first; the outer one first of what begins there.
        inserts.push((open_at, true, Reverse(to), Reverse(0), place, open));
        if let Some(close) = close {
            inserts.push((
                close_at,
                false,
                Reverse(from),
                Reverse(place),
                place,
                Piece::plain(close),
            ));
        }
    }
    inserts.sort_by_key(|&(at, opens, outer, inner, place, _)| (at, opens, outer, inner, place));

    let mut woven = Woven { text: String::new(), own: Vec::new(), sites: Vec::new() };
    let mut begins = vec![0; found.sites.len()];
    let mut done = 0;
    for (at, opens, _, _, place, piece) in inserts {
        woven.text.push_str(&source[done..at]);
        done = at;
        let base = woven.text.len();
        woven.own.extend(
            piece.own.into_iter().map(|(own, mutant)| (base + own.start..base + own.end, mutant)),
        );
        woven.text.push_str(&piece.text);
        if opens {
            begins[place] = base;
        }
        if !opens || matches!(found.sites[place].form, Form::Leave | Form::Arm) {
            woven.sites.push((begins[place]..woven.text.len(), place));
        }
    }
    woven.text.push_str(&source[done..]);
    woven
}

struct Live<'a> {
    mutant: usize,
    number: usize,
    text: &'a str,
}

#[derive(Default)]
struct Piece {
    text: String,
    own: Vec<(Range<usize>, usize)>,
}

impl Piece {
    fn plain(text: String) -> Self {
        Self { text, own: Vec::new() }
    }

    fn put(&mut self, before: &str, live: &Live<'_>, after: &str) {
        self.text.push_str(before);
        let start = self.text.len();
        self.text.push_str(live.text);
        self.own.push((start..self.text.len(), live.mutant));
        self.text.push_str(after);
    }
}

/// What stands in front of a place and behind it.
fn parts(site: &Site, live: &[Live<'_>]) -> (Piece, Option<String>) {
    let mut open = Piece::default();
    let on = |live: &Live<'_>| format!("crate::mutant::on({})", live.number);
    let first = on(&live[0]);
    match site.form {
        Form::Instead => {
            open.text.push('(');
            for each in live {
                open.put(&format!("if {} {{ ", on(each)), each, " } else ");
            }
            open.text.push_str("{ ");
            (open, Some(" })".into()))
        }
        Form::Leave => {
            for each in live {
                open.put(&format!(" if {} {{ return ", on(each)), each, "; }");
            }
            (open, None)
        }
        Form::Empty => {
            open.text.push_str("::std::iter::Iterator::take({");
            (open, Some(format!("}}, if {first} {{ 0 }} else {{ usize::MAX }})")))
        }
        Form::Arm => (Piece::plain(format!(" if !{first}")), None),
        Form::GuardedArm => (Piece::plain(format!("!{first} && (")), Some(")".into())),
    }
}
