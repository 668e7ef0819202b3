//! Where and when a report was made: what a stranger needs in order to make it again.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The generator's version, and the commit of the sources it was built from, as they are now.
pub(crate) fn generator() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let asked = ["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short", "HEAD"];
    let commit = Command::new("git").args(asked).output().ok().filter(|it| it.status.success());
    match commit {
        Some(output) => {
            format!("load {version}, commit {}", String::from_utf8_lossy(&output.stdout).trim())
        }
        None => format!("load {version}"),
    }
}

/// The processor's name, as the kernel has it.
pub(crate) fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Now, in UTC, to the second.
pub(crate) fn date() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    written(since.as_secs())
}

/// Seconds since 1970 as a date: years from March, four hundred of which are always as long.
fn written(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The command line, to be pasted into a shell.
pub(crate) fn command(words: impl Iterator<Item = String>) -> String {
    words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "_@%+=:,./-".contains(it);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(written(seconds), date);
        }
    }

    #[test]
    fn a_command_survives_the_shell() {
        let words = ["load", "--target", "a b=127.0.0.1:1", "--html", "it's.html", ""];
        let command = command(words.iter().map(ToString::to_string));
        assert_eq!(command, r"load --target 'a b=127.0.0.1:1' --html 'it'\''s.html' ''");
    }
}
