//! What a command prints, at the level of detail that the transcript has asked for.

/// From the most talkative to none at all.
const LEVELS: [&str; 6] = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE"];

/// Gathers what one command prints. Our core logs nothing, so of the levels only the last matters:
/// it silences the commands themselves, their errors excepted.
#[derive(Debug, Default)]
pub(super) struct Output {
    text: String,
    /// Put before every line.
    indent: &'static str,
    level: usize,
}

impl Output {
    pub(super) fn level(&self) -> usize {
        self.level
    }

    pub(super) fn set_level(&mut self, level: usize) {
        self.level = level;
    }

    /// Sets the level by name.
    pub(super) fn set_level_named(&mut self, name: &str) -> Result<(), String> {
        let level = LEVELS.iter().position(|level| level.eq_ignore_ascii_case(name));
        self.level =
            level.ok_or_else(|| format!("log levels must be either of [{}]", LEVELS.join(" ")))?;
        Ok(())
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.level == LEVELS.len() - 1
    }

    /// What follows is indented, or no longer is.
    pub(super) fn indent(&mut self, yes: bool) {
        self.indent = if yes { "  " } else { "" };
    }

    /// Prints lines.
    pub(super) fn lines(&mut self, text: &str) {
        if !self.is_quiet() {
            for line in text.lines() {
                self.text += self.indent;
                self.text += line;
                self.text.push('\n');
            }
        }
    }

    /// Everything printed; starts over.
    pub(super) fn take(&mut self) -> String {
        self.indent = "";
        std::mem::take(&mut self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_level_silences() {
        let mut out = Output::default();
        out.set_level_named("Warn").expect("a level");
        out.lines("a\nb");
        out.indent(true);
        out.lines("c\n");
        assert_eq!(out.take(), "a\nb\n  c\n");
        out.set_level_named("none").expect("a level");
        out.lines("d");
        assert_eq!(out.take(), "");
        let error = "log levels must be either of [DEBUG INFO WARN ERROR FATAL NONE]";
        assert_eq!(out.set_level_named("loud"), Err(error.to_owned()));
    }
}
