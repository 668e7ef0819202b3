//! `tool transcripts` from the outside: what it prints and how it ends, on conversations of our own in
//! `testdata/transcripts` (the ones it was made for are not kept here).

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/transcripts")
}

fn play(arguments: &[&Path]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tools"));
    let output = command.arg("transcripts").args(arguments).output().unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    (output, said)
}

/// A directory with one file in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("transcripts-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("it.txt"), text).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn our_own_transcripts_agree() {
    let (output, said) = play(&[&testdata()]);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().count(), 7, "a line per file and a total: {said}");
    assert!(said.contains("\n6 files: 6 agree, 0 differ, 0 unusable; "), "{said}");
}

#[test]
fn one_wrong_line_is_shown_and_fails() {
    let text = fs::read_to_string(testdata().join("left_behind.txt")).unwrap();
    let right = "3: StateReplicate match=5 next=8 paused inflight=2[full]";
    let wrong = "3: StateReplicate match=6 next=8 paused inflight=2[full]";
    assert_eq!(text.matches(right).count(), 1);
    let scratch = Scratch::new("wrong", &text.replace(right, wrong));
    let (output, said) = play(&[&scratch.0]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("differs  at line 49\n  status 1\n"), "{said}");
    assert!(said.contains(&format!("    expected  {wrong}\n    got       {right}\n")), "{said}");
    assert!(said.ends_with("1 files: 0 agree, 1 differ, 0 unusable; 0 commands\n"), "{said}");
    let story = String::from_utf8(output.stderr).unwrap();
    assert!(story.contains("1 differ"), "{story}");
}

#[test]
fn a_missing_line_and_one_too_many_fail() {
    let text = fs::read_to_string(testdata().join("halves.txt")).unwrap();
    for (name, changed) in [
        ("missing", text.replace("VotePending\n", "")),
        ("more", text.replace("VotePending\n", "VotePending\nVoteWon\n")),
    ] {
        let scratch = Scratch::new(name, &changed);
        let (output, said) = play(&[&scratch.0]);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
    }
}

#[test]
fn what_cannot_be_played_fails() {
    for (name, text, expected) in [
        ("unknown", "dance 1\n----\nok\n", "line 1: unknown command \"dance\""),
        (
            "mixed",
            "vote\n----\nVoteWon\n\ncampaign 1\n----\nok\n",
            "line 1: unknown command \"vote\"",
        ),
        ("nobody", "campaign 1\n----\nok\n", "line 1: there is no node 1"),
        ("option", "add-nodes 1 colour=red\n----\nok\n", "unknown option \"colour\""),
        ("open", "campaign 1\n", "line 1: no ---- follows"),
        ("empty", "# nothing\n", "there are no commands"),
        ("early", "add-nodes 1 voters=(1) index=1\n----\nok\n", "index must be specified as > 1"),
    ] {
        let scratch = Scratch::new(name, text);
        let (output, said) = play(&[&scratch.0]);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(expected), "{name}: {said}");
    }
    let (output, _) = play(&[Path::new("/nonexistent")]);
    assert_eq!(output.status.code(), Some(1));
}

/// Our core does not log; what the other library logged is left out on both sides.
#[test]
fn log_lines_are_left_out_and_nothing_else() {
    let logged = "add-nodes 1 voters=(1) index=3\n----\nINFO 1 something\n  DEBUG else\n";
    let scratch = Scratch::new("logged", logged);
    assert!(play(&[&scratch.0]).0.status.success());
    let scratch = Scratch::new("not-logged", &logged.replace("DEBUG", "NOTICE"));
    assert_eq!(play(&[&scratch.0]).0.status.code(), Some(1));
}

#[test]
fn what_is_printed_can_be_played() {
    let file = testdata().join("overtaken.txt");
    let (_, printed) = play(&[Path::new("--print"), &file]);
    let scratch = Scratch::new("printed", &printed);
    let (output, said) = play(&[&scratch.0]);
    assert!(output.status.success(), "{said}");
}
