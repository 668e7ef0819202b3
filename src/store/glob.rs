//! Redis' glob patterns: `*`, `?`, `[a-z]`, `[^a]`, and a backslash before anything.

/// Whether `text` matches `pattern`. Takes time proportional to the product of their lengths at
/// worst: a star remembers only the last place it may resume from.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut resume: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            resume = Some((p, t));
            continue;
        }
        let step = text.get(t).and_then(|&byte| one(&pattern[p..], byte));
        if let Some(used) = step {
            p += used;
            t += 1;
        } else if t == text.len() && p == pattern.len() {
            return true;
        } else if let Some((after_star, from)) = resume.filter(|&(_, from)| from < text.len()) {
            p = after_star;
            t = from + 1;
            resume = Some((after_star, t));
        } else {
            return false;
        }
    }
}

/// If the first element of `pattern` (not a star) matches `byte`: how long that element is.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (escaped == byte).then_some(2),
        [b'[', ref rest @ ..] => {
            let (negated, mut at) =
                if rest.first() == Some(&b'^') { (true, 1) } else { (false, 0) };
            let mut found = false;
            while at < rest.len() && rest[at] != b']' {
                if rest[at] == b'\\' && at + 1 < rest.len() {
                    at += 1;
                    found |= rest[at] == byte;
                } else if at + 2 < rest.len() && rest[at + 1] == b'-' {
                    let (low, high) = (rest[at].min(rest[at + 2]), rest[at].max(rest[at + 2]));
                    found |= (low..=high).contains(&byte);
                    at += 2;
                } else {
                    found |= rest[at] == byte;
                }
                at += 1;
            }
            let used = 1 + (at + 1).min(rest.len());
            (found != negated).then_some(used)
        }
        [literal, ..] => (literal == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn globs_match_as_in_redis() {
        let cases = [
            ("*", "", true),
            ("*", "anything", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("*:1:*", "a:2:b:1:c", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("[", "x", false),
            ("", "", true),
            ("", "x", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "a*".repeat(40) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(2000).as_bytes()));
    }
}
