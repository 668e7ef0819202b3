//! What the mutator makes of small sources.

use crate::find::{Found, find};
use crate::weave::weave;

fn found(source: &str) -> Found {
    find("a.rs", source).expect("the source parses")
}

/// What would be changed in a function, in words.
fn changes(source: &str) -> Vec<String> {
    found(source).mutants.into_iter().map(|mutant| mutant.what).collect()
}

/// The text with all mutants, in one line, with `on(1)` for the question about the first.
fn woven(source: &str) -> String {
    let text = weave(source, &found(source), |place| Some(place + 1)).text;
    syn::parse_file(&text).expect("the woven text parses");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace("crate::mutant::", "").replace("::std::", "")
}

#[test]
fn an_expression_becomes_a_choice_and_the_inner_one_too() {
    assert_eq!(
        woven("fn f(a: S) { g(a == !b) }"),
        "fn f(a: S) { if on(1) { return (); } g((if on(2) { (a) != (!b) } else { a == \
         (if on(3) { (b) } else { !b }) })) }"
    );
    assert_eq!(
        woven("fn f() { a && b && c }"),
        "fn f() { if on(1) { return (); } (if on(2) { (a && b) || (c) } else { \
         (if on(3) { (a) || (b) } else { a && b }) && c }) }"
    );
}

#[test]
fn a_function_leaves_with_what_its_type_allows() {
    let of = |ty: &str| changes(&format!("fn f() -> {ty} {{ g() }}"));
    let to =
        |values: &[&str]| values.iter().map(|v| format!("replace it with {v}")).collect::<Vec<_>>();
    assert_eq!(of("bool"), to(&["true", "false"]));
    assert_eq!(of("()"), to(&["()"]));
    assert_eq!(
        of("Result<Option<u8>, E>"),
        to(&[
            "result::Result::Ok(option::Option::None)",
            "result::Result::Ok(option::Option::Some(0))",
            "result::Result::Ok(option::Option::Some(1))",
        ])
    );
    assert_eq!(
        of("(u8, Index)"),
        to(&["(0, default::Default::default(), )", "(1, default::Default::default(), )",])
    );
    assert_eq!(of("&str"), to(&["\"\"", "\"xyzzy\""]));
    assert_eq!(of("!"), to(&[]));
    assert_eq!(
        woven("fn f() -> impl Iterator<Item = u8> { g() }"),
        "fn f() -> impl Iterator<Item = u8> {iter::Iterator::take({ g() }, if on(1) { 0 } else \
         { usize::MAX })}"
    );
}

#[test]
fn what_is_the_same_is_no_change() {
    assert_eq!(changes("fn f() {} fn g() -> bool { true }"), ["replace it with false"]);
    assert!(changes("fn f() -> Self { Self::default() }").is_empty());
    assert_eq!(
        changes("fn f() -> Option<()> { None }"),
        ["replace it with option::Option::Some(())"]
    );
    assert!(changes("impl Default for S { fn default() -> Self { Self::new() } }").is_empty());
}

#[test]
fn arms_are_deleted_where_another_takes_what_they_took() {
    let source = "fn f() -> ! { match a { B if c => d, E => g, _ => h } }";
    assert_eq!(
        changes(source),
        [
            "delete match arm B",
            "replace match guard c with true",
            "replace match guard c with false",
            "delete match arm E",
        ]
    );
    assert_eq!(
        woven(source),
        "fn f() -> ! { match a { B if !on(1) && ((if on(2) { true } else if on(3) { false } else \
         { c })) => d, E if !on(4) => g, _ => h } }"
    );
    assert!(changes("fn f() -> ! { match a { B => c, D => e } }").is_empty());
}

#[test]
fn a_field_is_deleted_where_another_value_has_it() {
    assert_eq!(
        woven("fn f() -> ! { S { a: 1, ..T } }"),
        "fn f() -> ! { (if on(1) { S { ..T } } else { S { a: 1, ..T } }) }"
    );
}

#[test]
fn tests_constants_patterns_chains_and_mistakes_stay() {
    for source in [
        "const A: u8 = 1 + 1;",
        "#[cfg(test)] mod tests { fn f() { a + b } }",
        "impl S { #[cfg(test)] fn f() { a + b } }",
        "fn f() -> ! { const A: u8 = 1 + 1; [0; 1 + 1]; let -1 = a; assert!(a < b); }",
        "fn f() -> ! { if let A = b && let C = d {} }",
        "fn f() -> ! { if planted(Planted::A) { a + b } }",
        "fn f() -> ! { if planted(Planted::A) && a { a + b } }",
    ] {
        assert_eq!(changes(source), [""; 0], "{source}");
    }
}

#[test]
fn a_function_is_constant_as_long_as_nothing_in_it_is_changed() {
    let source = "const fn f() { a } const fn g() { b }";
    let text = weave(source, &found(source), |place| (place == 1).then_some(7)).text;
    assert_eq!(
        text,
        "const fn f() { a }       fn g() { if crate::mutant::on(7) { return (); } b }"
    );
}

#[test]
fn what_the_compiler_points_at_is_known() {
    let source = "fn f() -> bool { a < b }";
    let woven = weave(source, &found(source), Some);
    let own: Vec<&str> = woven.own.iter().map(|(own, _)| &woven.text[own.clone()]).collect();
    assert_eq!(own, ["true", "false", "(a) == (b)", "(a) > (b)", "(a) <= (b)"]);
    let (place, _) = &woven.sites[1];
    assert!(woven.text[place.clone()].ends_with("else { a < b })"));
}
