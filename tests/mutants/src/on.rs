//! Which mutant is on: `MUTANT` of the environment, or none. With `MUTANT_REACH=FILE` none is, and the file gets a line for each that
//! was asked about. This file becomes a module of the crate that is changed.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

const NONE: usize = usize::MAX;
const RECORD: usize = usize::MAX - 1;
const UNREAD: usize = usize::MAX - 2;

static CHOSEN: AtomicUsize = AtomicUsize::new(UNREAD);
static ASKED: [AtomicBool; 1 << 14] = [const { AtomicBool::new(false) }; 1 << 14];
static FILE: Mutex<Option<std::fs::File>> = Mutex::new(None);

#[inline]
pub(crate) fn on(number: usize) -> bool {
    let chosen = CHOSEN.load(Relaxed);
    match chosen {
        RECORD if ASKED[number].load(Relaxed) => false,
        RECORD | UNREAD => slow(number),
        _ => chosen == number,
    }
}

#[cold]
fn slow(number: usize) -> bool {
    let mut file = FILE.lock().expect("nobody panics with it");
    if CHOSEN.load(Relaxed) == UNREAD {
        let chosen = std::env::var("MUTANT").ok();
        let chosen = chosen.map(|number| number.parse().expect("MUTANT is a number"));
        *file = std::env::var_os("MUTANT_REACH")
            .map(|path| std::fs::File::create(path).expect("MUTANT_REACH can be written"));
        let none = if file.is_some() { RECORD } else { NONE };
        CHOSEN.store(chosen.unwrap_or(none), Relaxed);
    }
    if let Some(file) = &mut *file
        && !ASKED[number].swap(true, Relaxed)
    {
        writeln!(file, "{number}").expect("MUTANT_REACH can be written");
    }
    CHOSEN.load(Relaxed) == number
}
