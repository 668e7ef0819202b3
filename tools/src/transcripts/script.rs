//! The file format: commands, their input, and what they are expected to print.
//!
//! ```text
//! # a comment
//! command argument key=value key=(value, value)     a trailing \ goes on with the next line
//! input, any number of lines
//! ----
//! expected output, up to a blank line; between doubled "----" lines it may hold blank lines
//! ```

use std::fmt;

/// One command of a transcript and what came of it when the transcript was recorded.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Case {
    /// Where the command stands in its file, counting from one.
    pub(super) line: usize,
    pub(super) command: Command,
    /// Without surrounding blanks.
    pub(super) input: String,
    /// Line by line.
    pub(super) expected: Vec<String>,
}

/// A command line.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) name: String,
    pub(super) arguments: Vec<Argument>,
}

/// `key`, `key=value` or `key=(value, value)`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Argument {
    pub(super) key: String,
    pub(super) values: Vec<String>,
}

/// The file or a command in it makes no sense; nothing can be said about agreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nonsense(pub(super) String);

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Command {
    /// Parses one line; `None` if there is nothing on it.
    pub(super) fn parse(line: &str) -> Result<Option<Self>, Nonsense> {
        let mut words = words(line)?.into_iter();
        let Some(name) = words.next() else { return Ok(None) };
        let arguments = words.map(|word| Argument::parse(&word)).collect();
        Ok(Some(Self { name, arguments }))
    }

    /// The arguments that are bare numbers, in order.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, Nonsense> {
        let bare = self.arguments.iter().filter(|argument| argument.values.is_empty());
        bare.map(|argument| number(&argument.key)).collect()
    }

    /// The argument at this position, as a number.
    pub(super) fn number_at(&self, at: usize) -> Result<u64, Nonsense> {
        let argument = self.arguments.get(at);
        argument.map_or_else(
            || Err(Nonsense(format!("{}: argument {} is missing", self.name, at + 1))),
            |argument| number(&argument.key),
        )
    }

    /// The one value of the argument with this key, if it is given.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        let argument = self.arguments.iter().find(|argument| argument.key == key)?;
        argument.values.first().map(String::as_str)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for Argument { key, values } in &self.arguments {
            match &values[..] {
                [] => write!(f, " {key}")?,
                [value] => write!(f, " {key}={value}")?,
                values => write!(f, " {key}=({})", values.join(","))?,
            }
        }
        Ok(())
    }
}

impl Argument {
    fn parse(word: &str) -> Self {
        let Some((key, value)) = word.split_once('=') else {
            return Self { key: word.to_owned(), values: Vec::new() };
        };
        let list = value.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        let values = match list {
            Some(list) if list.trim().is_empty() => Vec::new(),
            Some(list) => list.split(',').map(|value| value.trim().to_owned()).collect(),
            None => vec![value.to_owned()],
        };
        Self { key: key.to_owned(), values }
    }
}

pub(super) fn number(text: &str) -> Result<u64, Nonsense> {
    text.parse().map_err(|_| Nonsense(format!("{text:?} is not a number")))
}

pub(super) fn truth(text: &str) -> Result<bool, Nonsense> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Nonsense(format!("{text:?} is neither true nor false"))),
    }
}

/// Splits at blanks that are not inside parentheses.
fn words(line: &str) -> Result<Vec<String>, Nonsense> {
    let (mut words, mut word, mut depth) = (Vec::new(), String::new(), 0_usize);
    for letter in line.chars() {
        match letter {
            '(' => depth += 1,
            ')' => {
                depth = depth
                    .checked_sub(1)
                    .ok_or_else(|| Nonsense(format!("a parenthesis too many in {line:?}")))?;
            }
            _ => {}
        }
        if letter.is_whitespace() && depth == 0 {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
        } else {
            word.push(letter);
        }
    }
    if depth > 0 {
        return Err(Nonsense(format!("a parenthesis is left open in {line:?}")));
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

/// Everything a file asks for, in order.
pub(super) fn parse(text: &str) -> Result<Vec<Case>, Nonsense> {
    let mut lines = text.lines().enumerate();
    let mut cases = Vec::new();
    while let Some((at, line)) = lines.next() {
        let mut line = line.trim().to_owned();
        if line.starts_with('#') {
            continue;
        }
        while let Some(start) = line.strip_suffix('\\') {
            let Some((_, next)) = lines.next() else { break };
            line = format!("{start} {}", next.trim());
        }
        let located = |Nonsense(what)| Nonsense(format!("line {}: {what}", at + 1));
        let Some(command) = Command::parse(&line).map_err(located)? else { continue };
        // `subtest NAME` and `subtest end` only group what lies between.
        if command.name == "subtest" {
            continue;
        }
        let mut input = Vec::new();
        let mut separated = false;
        for (_, line) in lines.by_ref() {
            if line == "----" {
                separated = true;
                break;
            }
            input.push(line);
        }
        if !separated {
            return Err(located(Nonsense(format!("no ---- follows {:?}", command.name))));
        }
        let expected = expected(&mut lines.by_ref().map(|(_, line)| line));
        let input = input.join("\n").trim().to_owned();
        cases.push(Case { line: at + 1, command, input, expected });
    }
    Ok(cases)
}

fn expected<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut expected: Vec<String> = Vec::new();
    let Some(first) = lines.next() else { return expected };
    if first != "----" {
        let lines = std::iter::once(first).chain(lines);
        return lines.take_while(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    }
    let mut closing = false;
    for line in lines {
        if closing && line == "----" {
            expected.pop();
            break;
        }
        closing = line == "----";
        expected.push(line.to_owned());
    }
    expected
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# Two commands.
first 1 2 \\
  colour=red

second list=(a, b,c)
some input
  more input

----
----
out

put
----
----

subtest inner

third
----
";

    #[test]
    fn a_file_is_a_list_of_commands() {
        let cases = parse(&TEXT.replacen("red\n\n", "red\n----\nyes\n  no\n\n", 1)).expect("sense");
        let names: Vec<_> = cases.iter().map(|case| (case.line, &*case.command.name)).collect();
        assert_eq!(names, [(2, "first"), (8, "second"), (22, "third")]);
        assert_eq!(cases[0].command.numbers(), Ok(vec![1, 2]));
        assert_eq!(cases[0].command.value("colour"), Some("red"));
        assert_eq!(cases[0].expected, ["yes", "  no"]);
        assert_eq!(cases[1].command.arguments[0].values, ["a", "b", "c"]);
        assert_eq!(cases[1].input, "some input\n  more input");
        assert_eq!(cases[1].expected, ["out", "", "put"]);
        assert!(cases[2].expected.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_said_with_its_line() {
        let wrong = |text: &str| parse(text).expect_err("nonsense").0;
        assert_eq!(wrong("\ncommand 1\ninput\n"), "line 2: no ---- follows \"command\"");
        assert!(wrong("command a=(1\n----\n").starts_with("line 1: a parenthesis is left open"));
        let command = Command::parse("go x").expect("sense").expect("a command");
        assert!(command.number_at(0).is_err() && command.number_at(1).is_err());
    }
}
