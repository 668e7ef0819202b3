//! What counts as agreement: the same lines, after the other library's log lines are dropped.

/// The levels a log line may begin with, each followed by a blank.
const LOG_LEVELS: [&str; 4] = ["DEBUG ", "INFO ", "WARN ", "ERROR "];

/// What a command prints when it has nothing to say.
pub(super) const NOTHING: &str = "ok";

/// The first line at which the two differ.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Counts from zero, log lines left out.
    pub(super) at: usize,
    pub(super) expected: Vec<String>,
    pub(super) actual: Vec<String>,
}

/// Compares what a command was expected to print with what it printed.
pub(super) fn compare(expected: &[String], actual: &str) -> Option<Difference> {
    let expected = without_logs(expected.iter().map(String::as_str));
    let actual = without_logs(actual.lines());
    if expected == actual {
        return None;
    }
    let same = expected.iter().zip(&actual).take_while(|(a, b)| a == b).count();
    Some(Difference { at: same, expected, actual })
}

/// Our core does not log, so it cannot be held to these. An output of nothing else said no more
/// than that the command was carried out.
fn without_logs<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_log = |line: &str| LOG_LEVELS.iter().any(|level| line.trim_start().starts_with(level));
    let kept: Vec<_> = lines.filter(|line| !is_log(line)).map(str::to_owned).collect();
    if kept.is_empty() { vec![NOTHING.to_owned()] } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn only_log_lines_are_dropped() {
        let said = "> 1 did this\n  INFO 1 thought\nDEBUG 2 too\n  ERROR oh\nINFORMED 3\n";
        assert_eq!(compare(&lines(said), "> 1 did this\nINFORMED 3\n"), None);
        assert_eq!(compare(&lines("INFO all of it\n"), "ok"), None);
        assert_eq!(compare(&lines(""), "ok"), None);
        assert!(compare(&lines("a"), "ok").is_some());
    }

    #[test]
    fn indentation_order_and_missing_lines_count() {
        let differs = |expected: &str, actual: &str| {
            compare(&lines(expected), actual).map(|difference| difference.at)
        };
        assert_eq!(differs("a\nb\nc", "a\nb\n"), Some(2));
        assert_eq!(differs("a\nb", "b\na"), Some(0));
        assert_eq!(differs("a\n  b", "a\nb"), Some(1));
        assert_eq!(differs("a\nb", "a\nb\n"), None);
    }
}
