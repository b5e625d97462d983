//! Slips of the pen: how far two words are apart, and which known word was perhaps meant.
//!
//! For hints alone: nothing that decides a verdict may ask here. Words may be hostile: where
//! many are compared, those of very different length are told apart without a look at their
//! letters. Letters are Unicode scalar values. Called by the manifest reader, by whatever
//! names a Pod, and by what explains labels.

/// Letters to insert, remove or replace to get from one text to the other (Levenshtein).
/// Costs the product of both lengths.
#[must_use]
pub fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in two.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[two.len()]
}

/// The most letters that a slip gets wrong.
const SLIP: usize = 2;

/// How far a word is from one that it is probably a slip of: case does not count, and short
/// words must be closer. `None`: another word.
fn slip(word: &str, meant: &str) -> Option<usize> {
    // Bytes bound letters from above only; a letter has four at most.
    if word.len().abs_diff(meant.len()) > SLIP * 4 {
        return None;
    }
    let letters = distance(&word.to_ascii_lowercase(), &meant.to_ascii_lowercase());
    (letters <= SLIP && letters * 2 < meant.len()).then_some(letters)
}

/// The known word that this one is a slip of, if any; itself, where it is known.
#[must_use]
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .filter_map(|meant| Some((slip(word, meant)?, meant)))
        .min_by_key(|(letters, _)| *letters)
        .map(|(_, meant)| *meant)
}

/// Are two different words probably meant as one: by [`slip`], or with two neighbouring letters
/// swapped, however short? Numbers are not: `web-1` and `web-2` are neighbours, no slip.
#[must_use]
pub fn resembles(one: &str, two: &str) -> bool {
    let without_digits = |text: &str| -> String {
        let letters = text.chars().filter(|letter| !letter.is_ascii_digit());
        letters.collect()
    };
    let is_slip = || slip(one, two).is_some() && slip(two, one).is_some();
    one != two && (is_slip() || is_swap(one, two)) && without_digits(one) != without_digits(two)
}

/// Do they differ by two neighbouring letters that changed places?
fn is_swap(one: &str, two: &str) -> bool {
    let mut differ = one.chars().zip(two.chars()).enumerate();
    let mut differ = differ.by_ref().filter(|(_, (a, b))| a != b);
    let (first, second, third) = (differ.next(), differ.next(), differ.next());
    let (Some((at, (a, b))), Some((next, (c, d))), None) = (first, second, third) else {
        return false;
    };
    one.len() == two.len() && next == at + 1 && (a, b) == (d, c)
}

/// Are two different label keys one but for their spelling: case, prefix, dashes, dots or
/// underscores, or a slip (`App`, `example.com/app`, `aap` for `app`)?
#[must_use]
pub fn same_but_for_spelling(one: &str, two: &str) -> bool {
    let bare = |key: &str| -> String {
        let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
        let letters = name
            .chars()
            .filter(|letter| !matches!(letter, '-' | '_' | '.'));
        letters.collect::<String>().to_ascii_lowercase()
    };
    one != two && (bare(one) == bare(two) || resembles(one, two))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted() {
        for (one, two, letters) in [
            ("", "", 0),
            ("", "ab", 2),
            ("port", "port", 0),
            ("prot", "port", 2),
            ("fronted", "frontend", 1),
            ("größe", "grösse", 2),
        ] {
            assert_eq!(distance(one, two), letters, "{one} {two}");
            assert_eq!(distance(two, one), letters, "{two} {one}");
        }
    }

    #[test]
    fn a_slip_is_taken_for_the_nearest_word() {
        let known = ["ingress", "egress", "podSelector", "to"];
        for (word, meant) in [
            ("ingres", Some("ingress")),
            ("egres", Some("egress")),
            ("podselektor", Some("podSelector")),
            ("podSelector", Some("podSelector")),
            ("t", None),
            ("selector", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &known), meant, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), &known), None);
    }

    #[test]
    fn values_resemble_each_other_by_a_letter_or_two() {
        for (one, two, so) in [
            ("frontend", "fronted", true),
            ("frontend", "Frontend", true),
            ("frontend", "frontend", false),
            ("frontend", "backend", false),
            ("web-1", "web-2", false),
            ("v1", "v10", false),
            ("db", "dc", false),
            ("db", "bd", true),
            ("frontend", "forntend", true),
            ("ab", "ba-c", false),
            ("12-a", "21-a", false),
            ("", "a", false),
        ] {
            assert_eq!(resembles(one, two), so, "{one} {two}");
            assert_eq!(resembles(two, one), so, "{two} {one}");
        }
    }

    #[test]
    fn keys_are_one_but_for_prefix_case_and_dashes() {
        for (one, two, so) in [
            ("app", "App", true),
            ("app", "example.com/app", true),
            (
                "app.kubernetes.io/component",
                "app.kubernetes.io/componant",
                true,
            ),
            ("k8s-app", "k8s_app", true),
            ("component", "componant", true),
            ("app", "app", false),
            ("app", "tier", false),
            ("app.kubernetes.io/name", "app.kubernetes.io/part-of", false),
        ] {
            assert_eq!(same_but_for_spelling(one, two), so, "{one} {two}");
            assert_eq!(same_but_for_spelling(two, one), so, "{two} {one}");
        }
    }
}
