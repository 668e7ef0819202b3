//! The inputs that the fuzz targets keep, run through the same targets without a fuzzer: what was
//! found once stays found.

use std::fs;
use std::path::{Path, PathBuf};

use crate::targets::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// Says which input it was, should one panic.
struct Running(PathBuf);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("while running {}", self.0.display());
        }
    }
}

#[test]
fn every_kept_input_still_passes() {
    for (name, run) in TARGETS {
        let files = fs::read_dir(fuzz().join("corpus").join(name)).expect("each target has some");
        let files: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
        assert!(
            (1..=50).contains(&files.len()),
            "{name} keeps {} inputs, not 1 to 50",
            files.len()
        );
        for file in files {
            let input = fs::read(&file).expect("readable");
            assert!(input.len() <= 4096, "{} is larger than 4 KiB", file.display());
            let running = Running(file);
            run(&input);
            drop(running);
        }
    }
}

#[test]
fn the_first_choice_of_everything_passes() {
    for (_, run) in TARGETS {
        for how in 0..=u8::MAX {
            run(&[how]);
        }
        run(&[]);
    }
}

#[cfg(feature = "runtime")]
#[test]
fn every_target_has_its_entry_its_corpus_and_its_place_in_the_list() {
    let listed = |folder: &str| {
        let files = fs::read_dir(fuzz().join(folder)).expect("it exists");
        let names = files.map(|file| file.expect("an entry").path());
        let mut names: Vec<_> =
            names.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
        names.sort();
        names
    };
    let mut targets: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    targets.sort();
    assert_eq!(listed("fuzz_targets"), targets);
    assert_eq!(listed("corpus"), targets);
}
