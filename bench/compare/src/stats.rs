//! Medians and ratios, and how they are printed.

/// The middle value; of an even number of values the mean of the middle two. None of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let (upper, lower) = (values.len() / 2, values.len().checked_sub(1)? / 2);
    Some(f64::midpoint(values[lower], values[upper]))
}

/// The median of what each round says `ours` is in multiples of `theirs`: values of one round were taken
/// side by side, so what the machine did to both drops out.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    median(ours.iter().zip(theirs).filter(|(_, theirs)| 0.0 < **theirs).map(|(a, b)| a / b))
}

/// Who is measured in which order in a round: each round somebody else goes first, so that nobody always
/// follows the same neighbour.
pub(crate) fn order(of: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..of).map(move |place| (place + round) % of)
}

/// A whole number with its thousands apart.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if 0 < at && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 && digits != "0" { format!("-{text}") } else { text }
}

/// A number with so many digits behind the point, or a dash.
pub(crate) fn digits(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.digits$}"))
}

/// A Markdown table: the first column is text, the others are numbers.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|---{}|\n", head.join(" | "), "|--:".repeat(head.len() - 1));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_one_and_none() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median([7.0]), Some(7.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The machine was twice as slow in the second round, for both.
        assert_eq!(ratio(&[10.0, 5.0, 10.0], &[5.0, 2.5, 5.0]), Some(2.0));
        // The ratio of the medians would be 1.
        assert_eq!(ratio(&[1.0, 2.0, 9.0], &[2.0, 1.0, 3.0]), Some(2.0));
        assert_eq!(ratio(&[1.0], &[0.0]), None);
        assert_eq!(ratio(&[1.0], &[]), None);
    }

    #[test]
    fn everybody_is_measured_once_a_round_and_goes_first_in_turn() {
        assert!(order(3, 0).eq([0, 1, 2]));
        assert!(order(3, 1).eq([1, 2, 0]));
        assert!(order(3, 5).eq([2, 0, 1]));
        assert!(order(1, 9).eq([0]));
    }

    #[test]
    fn numbers_are_printed_for_readers() {
        assert_eq!(whole(0.4), "0");
        assert_eq!(whole(999.6), "1,000");
        assert_eq!(whole(1_234_567.0), "1,234,567");
        assert_eq!(whole(-1_234.0), "-1,234");
        assert_eq!(digits(Some(1.256), 2), "1.26");
        assert_eq!(digits(None, 2), "–");
        let text = table(&["a", "b"], &[vec!["x".into(), "1".into()]]);
        assert_eq!(text, "| a | b |\n|---|--:|\n| x | 1 |\n");
    }
}
