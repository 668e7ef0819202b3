//! The public names of the library, kept in `docs/public-api.txt`: a change of them is a line in a diff.
//!
//! ```sh
//! UPDATE_EXPECT=1 cargo tidy          # write the listing anew; then read the difference
//! ```
//!
//! It reads the sources as text, module by module from `src/lib.rs` on, so it needs no nightly compiler: what is declared
//! `pub` in a public module, or is handed on by `pub use` from a private one, with the signatures of its public
//! functions, fields, variants and implementations, what is derived, and which functions of a trait have a body. What
//! macros make is listed only for `number!` of `src/id.rs`, and what is `#[doc(hidden)]` is not: no promise is made of it.
//!
//! `docs/public-api-0.1.txt` is the listing that version 0.1 promises: what is in it stays while the version is that, and a
//! trait that others implement gets no function without a body. It is written anew when the version is raised
//! (`UPDATE_EXPECT=1` does that then). `cargo semver-checks` knows more of the rules: `SEMVER=1 .ci/run`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One item: what stands in front of its body, and the body.
struct Item<'a> {
    head: String,
    /// What is derived, and whether it may grow.
    attributes: String,
    is_hidden: bool,
    has_body: bool,
    body: &'a str,
    /// The body with text and comments blanked out.
    masked: &'a str,
}

/// Comments and the insides of text become blanks, so that every brace that is left is one.
fn masked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let raw = rest
            .strip_prefix(b"r")
            .map(|rest| rest.iter().take_while(|byte| **byte == b'#').count());
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if let Some(hashes) = raw.filter(|hashes| {
            rest.get(1 + hashes) == Some(&b'"')
                && (at == 0 || !bytes[at - 1].is_ascii_alphanumeric())
        }) {
            let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
            let open = 2 + hashes;
            let inside = rest[open..].windows(close.len()).position(|window| window == close);
            at + open + inside.expect("closed") + close.len()
        } else if rest[0] == b'"' {
            let mut end = 1;
            while rest[end] != b'"' {
                end += if rest[end] == b'\\' { 2 } else { 1 };
            }
            at + end + 1
        } else if rest.starts_with(b"'\\") {
            at + 3 + rest[3..].iter().position(|byte| *byte == b'\'').expect("closed")
        } else if rest[0] == b'\'' && rest.get(2) == Some(&b'\'') {
            at + 3
        } else {
            at += 1;
            continue;
        };
        out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The items of a module, an implementation or a trait, without those of tests.
fn items<'a>(text: &'a str, masked: &'a str) -> Vec<Item<'a>> {
    let bytes = masked.as_bytes();
    let (mut items, mut start, mut depth, mut open) = (Vec::new(), 0, 0, None);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => {
                // What `use` names in braces is no body.
                let is_use = || bare(&masked[start..at]).split(' ').any(|word| word == "use");
                if depth == 0 && *byte == b'{' && open.is_none() && !is_use() {
                    open = Some(at);
                }
                depth += 1;
            }
            b'}' | b')' | b']' => depth -= 1,
            _ => {}
        }
        if depth != 0 || !b";}".contains(byte) {
            continue;
        }
        let has_value = is_value(bare(&masked[start..open.unwrap_or(at)]));
        if *byte == b';' || (open.is_some() && !has_value) {
            let open = open.take().unwrap_or(at);
            let body = (open + 1).min(at);
            let tested = masked[start..open].contains("#[cfg(test)]");
            if !tested {
                let before = &masked[start..open];
                items.push(Item {
                    head: head_of(before),
                    attributes: attributes(before),
                    is_hidden: before.contains("#[doc(hidden)]"),
                    has_body: open < at,
                    body: &text[body..at],
                    masked: &masked[body..at],
                });
            }
            start = at + 1;
        }
    }
    items
}

/// Whether it is something with a value, in which a brace begins no body.
fn is_value(head: &str) -> bool {
    let rest = head.strip_prefix("pub").map_or(head, |rest| {
        rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest)
    });
    let mut words = rest.split_whitespace();
    match words.next() {
        Some("static" | "type") => true,
        Some("const") => !matches!(words.next(), Some("fn" | "unsafe" | "extern")),
        _ => false,
    }
}

/// What of an item's attributes its users depend on.
fn attributes(text: &str) -> String {
    let lines = text.split("#[").skip(1).filter_map(|rest| rest.split_once(']'));
    let kept = lines.map(|(line, _)| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let kept = kept.filter(|line| line.starts_with("derive(") || line == "non_exhaustive");
    kept.map(|line| format!(" #[{}]", line.replace("( ", "(").replace(",)", ")"))).collect()
}

/// Without attributes.
fn bare(text: &str) -> &str {
    let mut text = text.trim();
    while text.starts_with('#') {
        let mut depth = 0;
        let end = text.char_indices().find(|(_, c)| {
            depth += i32::from(*c == '[') - i32::from(*c == ']');
            *c == ']' && depth == 0
        });
        text = end.map_or("", |(at, _)| text[at + 1..].trim_start());
    }
    text
}

/// The same on one line, without what it is equal to.
fn head_of(text: &str) -> String {
    let words = bare(text).split_whitespace().collect::<Vec<_>>().join(" ");
    let value = words.find(" =").filter(|_| words.starts_with("pub const"));
    words[..value.unwrap_or(words.len())].replace("( ", "(").replace(", )", ")").replace(",)", ")")
}

/// The name that an item of this head declares.
fn name_of(head: &str) -> Option<&str> {
    let mut words =
        head.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    words.find(|word| {
        matches!(
            *word,
            "struct" | "enum" | "union" | "trait" | "fn" | "const" | "static" | "type" | "mod"
        )
    })?;
    words.find(|word| !matches!(*word, "fn" | "mut" | "unsafe"))
}

/// What an `impl` is of.
fn implemented(head: &str) -> &str {
    let generic = head.trim_start_matches("impl").trim_start();
    let rest = match generic.strip_prefix('<') {
        Some(_) => {
            let mut depth = 0;
            let end = generic.char_indices().find(|(_, c)| {
                depth += i32::from(*c == '<') - i32::from(*c == '>');
                depth == 0
            });
            end.map_or("", |(at, _)| generic[at + 1..].trim_start())
        }
        None => generic,
    };
    let of = rest.split_once(" for ").map_or(rest, |(_, of)| of);
    let path = of.split(['<', ' ', '{']).next().unwrap_or_default();
    path.rsplit("::").next().unwrap_or_default()
}

#[derive(Default)]
struct Listing {
    /// By module.
    lines: BTreeMap<String, Vec<String>>,
    types: BTreeSet<String>,
    impls: Vec<(String, String, Vec<String>)>,
}

impl Listing {
    /// `only`: the names that are handed on from a private module.
    fn module(&mut self, file: &Path, module: &str, only: Option<&BTreeSet<String>>) {
        let text = fs::read_to_string(file).expect("a module has a file");
        let mask = masked(&text);
        let items = items(&text, &mask);
        let folder = match file.file_name().and_then(|name| name.to_str()) {
            Some("lib.rs" | "mod.rs") => file.parent().expect("a folder").to_owned(),
            _ => file.with_extension(""),
        };
        let file_of = |name: &str| -> PathBuf {
            let flat = folder.join(format!("{name}.rs"));
            if flat.exists() { flat } else { folder.join(name).join("mod.rs") }
        };
        let handed_on: Vec<&str> = items
            .iter()
            .filter(|item| item.head.starts_with("pub use "))
            .map(|item| &item.head[8..])
            .collect();
        for item in items.iter().filter(|item| !item.is_hidden) {
            let (head, name) = (&item.head, name_of(&item.head).unwrap_or_default());
            if head.starts_with("mod ") || head.starts_with("pub mod ") {
                let names: BTreeSet<String> = handed_on
                    .iter()
                    .filter_map(|path| {
                        path.trim_start_matches("self::").strip_prefix(&format!("{name}::"))
                    })
                    .flat_map(|names| names.trim_matches(['{', '}', ' ']).split(','))
                    .map(|name| name.trim().rsplit("::").next().unwrap_or_default().to_owned())
                    .collect();
                let file = file_of(name);
                let child = format!("{module}::{name}");
                match head.starts_with("pub ") && only.is_none() {
                    true => self.module(&file, &child, None),
                    // Its implementations may be of public types, whatever it hands on.
                    false if file.exists() => self.module(&file, module, Some(&names)),
                    false => {}
                }
                continue;
            }
            if head.starts_with("impl") {
                let of = implemented(head).to_owned();
                let is_trait = head.contains(" for ");
                let inner = self::items(item.body, item.masked);
                let functions =
                    inner.iter().filter(|item| item.head.starts_with("pub ") && !is_trait);
                let lines = std::iter::once(head.clone())
                    .filter(|_| is_trait)
                    .chain(functions.map(|item| format!("{of}: {}", item.head)))
                    .collect();
                self.impls.push((module.to_owned(), of, lines));
                continue;
            }
            let lines = self.lines.entry(module.to_owned()).or_default();
            if head.starts_with("number!") {
                for line in item.masked.lines().chain(head.lines()) {
                    let words: Vec<&str> = line.split(['(', ')', ',', ' ']).collect();
                    if let Some(at) = words.iter().position(|word| ["u64", "u16"].contains(word)) {
                        lines.push(format!("pub struct {}(pub {})", words[at - 1], words[at]));
                        self.types.insert(words[at - 1].to_owned());
                    }
                }
            }
            if !head.starts_with("pub ") || only.is_some_and(|only| !only.contains(name)) {
                continue;
            }
            if only.is_none() || !head.starts_with("pub use") {
                lines.push(format!("{head}{}", item.attributes));
            }
            let kind = head.split(' ').find(|word| ["struct", "enum", "trait"].contains(word));
            if let Some(kind) = kind {
                self.types.insert(name.to_owned());
                if kind == "trait" {
                    let inner = self::items(item.body, item.masked);
                    lines.extend(inner.iter().map(|item| {
                        let body = if item.has_body { " {}" } else { "" };
                        format!("    {}{body}", item.head)
                    }));
                } else {
                    let inner = parts(item.masked);
                    let shown =
                        inner.iter().filter(|part| kind == "enum" || part.starts_with("pub "));
                    lines.extend(shown.map(|part| format!("    {part}")));
                }
            }
        }
    }

    fn text(mut self) -> String {
        for (module, of, found) in std::mem::take(&mut self.impls) {
            if self.types.contains(&of) {
                self.lines.entry(module).or_default().extend(found);
            }
        }
        let mut out = String::new();
        for (module, lines) in self.lines {
            if !lines.is_empty() {
                out += &format!("{module}\n");
                lines.iter().for_each(|line| out += &format!("    {line}\n"));
            }
        }
        out
    }
}

/// Fields or variants, each on one line.
fn parts(masked: &str) -> Vec<String> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in masked.char_indices() {
        depth += i32::from("{([<".contains(c)) - i32::from("})]".contains(c));
        // `->` closes nothing.
        depth -=
            i32::from(c == '>' && !masked[..at].ends_with('-') && !masked[..at].ends_with('='));
        if c == ',' && depth == 0 {
            parts.push(head_of(&masked[start..at]));
            start = at + 1;
        }
    }
    parts.push(head_of(&masked[start..]));
    parts.retain(|part| !part.is_empty());
    parts
}

#[test]
fn the_public_names_are_listed_in_docs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut listing = Listing::default();
    listing.module(&root.join("src/lib.rs"), "outrigger", None);
    let file = root.join("docs/public-api.txt");
    expect_test::expect_file![file].assert_eq(&listing.text());
}

/// The lines of a listing, each behind the lines that it is of.
fn paths(listing: &str) -> BTreeSet<String> {
    let mut above: Vec<&str> = Vec::new();
    let lines = listing.lines().map(|line| {
        let depth = (line.len() - line.trim_start().len()) / 4;
        above.truncate(depth);
        above.push(line.trim_start());
        above.join(" › ")
    });
    lines.collect()
}

/// What no longer works for who has built on `before`.
fn broken(before: &str, now: &str) -> Vec<String> {
    let (before, now) = (paths(before), paths(now));
    let gone = before.difference(&now).map(|line| format!("gone: {line}"));
    let traits = before.iter().filter(|line| line.contains("pub trait "));
    let traits: BTreeSet<&str> = traits.map(String::as_str).collect();
    let is_demanded = |line: &&String| {
        let of = line.rsplit_once(" › ").map(|(of, _)| of);
        of.is_some_and(|of| traits.contains(of)) && !line.ends_with("{}")
    };
    let demanded = now.difference(&before).filter(is_demanded);
    gone.chain(demanded.map(|line| format!("demanded of implementations: {line}"))).collect()
}

#[test]
fn what_this_version_has_promised_is_still_there() {
    let mut version = env!("CARGO_PKG_VERSION").split('.');
    let (major, minor) = (version.next().expect("a version"), version.next().expect("a version"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let promised = root.join(format!("docs/public-api-{major}.{minor}.txt"));
    let now = fs::read_to_string(root.join("docs/public-api.txt")).expect("it is listed");
    if std::env::var_os("UPDATE_EXPECT").is_some() && !promised.exists() {
        fs::write(&promised, &now).expect("the promise of a new version");
    }
    let promised = fs::read_to_string(&promised)
        .expect("every version has its listing: UPDATE_EXPECT=1 cargo tidy writes it");
    let broken = broken(&promised, &now);
    assert!(
        broken.is_empty(),
        "raise the version in Cargo.toml, or put back:\n{}",
        broken.join("\n")
    );
}

#[test]
fn what_breaks_others_is_told_and_what_is_new_is_not() {
    let before = "a\n    pub struct S #[derive(Clone)]\n        pub x: u8\n    pub trait T\n        fn f();\n";
    assert_eq!(broken(before, before), [""; 0]);
    let more = before.replace("fn f();\n", "fn f();\n        fn g() {}\n") + "    pub fn h()\n";
    assert_eq!(broken(before, &more), [""; 0]);
    let moved = before.replace("a\n", "b\n");
    assert_eq!(broken(before, &moved).len(), 5, "all of it is gone");
    for (from, to, expected) in [
        (" #[derive(Clone)]", "", "gone: a › pub struct S #[derive(Clone)]"),
        ("x: u8", "x: u16", "gone: a › pub struct S #[derive(Clone)] › pub x: u8"),
        (
            "fn f();\n",
            "fn f();\n        fn g();\n",
            "demanded of implementations: a › pub trait T › fn g();",
        ),
    ] {
        assert!(broken(before, &before.replace(from, to)).contains(&expected.to_owned()), "{to}");
    }
}

#[test]
fn the_reader_of_the_sources_sees_what_is_public() {
    let text = r##"
        /// A brace in a comment: {
        #[must_use = "that is no `use`"]
        pub struct Open { pub a: [u8; 4], b: u64 }
        pub const TEXT: &str = "} {";
        impl<T: Into<u8>> Open { pub fn new(t: T) -> Self { Self { a: *r#"}{"#, b: '{' } } fn hidden() {} }
        #[cfg(test)] mod tests { pub fn not_this() {} }
        pub(crate) fn nor_this() {}
        impl Open { pub fn all(&self) -> impl Iterator<Item = u8> { [1].into_iter() } pub fn more() {} }
        #[derive(Clone, Copy)]
        #[non_exhaustive]
        pub enum Kind { A }
        #[doc(hidden)]
        pub mod inside;
    "##;
    let mask = masked(text);
    let heads: Vec<String> = items(text, &mask).into_iter().map(|item| item.head).collect();
    let expected = [
        "pub struct Open",
        "pub const TEXT: &str",
        "impl<T: Into<u8>> Open",
        "pub(crate) fn nor_this()",
        "impl Open",
        "pub enum Kind",
        "pub mod inside",
    ];
    assert_eq!(heads, expected);
    let all = items(text, &mask);
    assert_eq!(all[5].attributes, " #[derive(Clone, Copy)] #[non_exhaustive]");
    assert!(all[6].is_hidden && !all[6].has_body && all[5].has_body);
    let functions = items(all[4].body, all[4].masked);
    let functions: Vec<_> = functions.iter().map(|item| item.head.as_str()).collect();
    let both = ["pub fn all(&self) -> impl Iterator<Item = u8>", "pub fn more()"];
    assert_eq!(functions, both, "an equals sign in a type is no value");
    assert_eq!(implemented(&heads[2]), "Open");
    assert_eq!(parts(items(text, &mask)[0].masked), ["pub a: [u8; 4]", "b: u64"]);
}
