//! What names, labels and port names may look like (k8s.io/apimachinery
//! `pkg/api/validate/content` and `pkg/util/validation`), in the API server's words.
//!
//! The one statement of these rules. Pure text checks; the callers add field and place, and the daemon, whose labels come from
//! containers, words of its own. A text can break several rules, and each is told. Lengths are bytes, whatever the words call them: Kubernetes says
//! `characters` of names, and `bytes` of labels.

/// The rules that a text breaks, as the API server words them; none where it is valid.
pub type Breaches = Vec<String>;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const WORD: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const WORD_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const WORDS: &[&str] = &["MyName", "my.name", "123-abc"];

/// `RegexError`, its examples joined as Kubernetes does.
fn pattern(rule: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<_> = examples.iter().map(|text| format!("'{text}', ")).collect();
    format!(
        "{rule} (e.g. {}regex used for validation is '{pattern}')",
        examples.join(" or ")
    )
}

fn no_more_than(limit: usize, unit: &str) -> String {
    format!("must be no more than {limit} {unit}")
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Made of `inner`, with an `edge` at both ends; not empty.
fn framed(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => edge(*one),
        [first, middle @ .., last] => {
            edge(*first) && edge(*last) && middle.iter().copied().all(inner)
        }
    }
}

fn is_label(text: &str) -> bool {
    framed(text, is_lower, |byte| is_lower(byte) || byte == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_word(text: &str) -> bool {
    framed(
        text,
        |byte| byte.is_ascii_alphanumeric(),
        |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
    )
}

fn subdomain_in(text: &str, unit: &str) -> Breaches {
    let mut breaches = Vec::new();
    if text.len() > 253 {
        breaches.push(no_more_than(253, unit));
    }
    if !is_subdomain(text) {
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        breaches.push(pattern(rule, SUBDOMAIN, &["example.com"]));
    }
    breaches
}

/// Names of most objects: `IsDNS1123Subdomain`.
#[must_use]
pub fn subdomain(text: &str) -> Breaches {
    subdomain_in(text, "characters")
}

/// Names of namespaces: `IsDNS1123Label`.
#[must_use]
pub fn label(text: &str) -> Breaches {
    let mut breaches = Vec::new();
    if text.len() > 63 {
        breaches.push(no_more_than(63, "characters"));
    }
    if !is_label(text) {
        let rule = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
        breaches.push(if is_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            pattern(rule, LABEL, &["my-name", "123-abc"])
        });
    }
    breaches
}

/// Keys of labels and annotations: `IsLabelKey`, which was `IsQualifiedName`.
#[must_use]
pub fn qualified(text: &str) -> Breaches {
    let mut breaches = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            let rule = pattern(WORD_RULE, WORD, WORDS);
            return vec![format!(
                "a valid label key {rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            breaches.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            let found = subdomain_in(prefix, "bytes");
            breaches.extend(found.into_iter().map(|rule| format!("prefix part {rule}")));
            name
        }
    };
    if name.is_empty() {
        breaches.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        breaches.push(format!("name part {}", no_more_than(63, "bytes")));
    }
    if !is_word(name) {
        let rule = pattern(WORD_RULE, WORD, WORDS);
        breaches.push(format!("name part {rule}"));
    }
    breaches
}

/// Values of labels: `IsLabelValue`.
#[must_use]
pub fn value(text: &str) -> Breaches {
    let mut breaches = Vec::new();
    if text.len() > 63 {
        breaches.push(no_more_than(63, "bytes"));
    }
    if !text.is_empty() && !is_word(text) {
        let rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        let examples = ["MyValue", "my_value", "12345"];
        breaches.push(pattern(rule, &format!("({WORD})?"), &examples));
    }
    breaches
}

/// Would the API take this label? Containers may have others.
pub(crate) fn is_pair(key: &str, value_of_it: &str) -> bool {
    qualified(key).is_empty() && value(value_of_it).is_empty()
}

/// Names of ports: `IsValidPortName` (RFC 6335's service names, in lower case).
#[must_use]
pub fn port(text: &str) -> Breaches {
    let bytes = text.as_bytes();
    let mut breaches = Vec::new();
    if text.len() > 15 {
        breaches.push(no_more_than(15, "characters"));
    }
    let mut require = |holds: bool, rule: &str| {
        if !holds {
            breaches.push(rule.to_owned());
        }
    };
    require(
        !text.is_empty() && text.bytes().all(|byte| is_lower(byte) || byte == b'-'),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    require(
        text.bytes().any(|byte| byte.is_ascii_lowercase()),
        "must contain at least one letter (a-z)",
    );
    require(!text.contains("--"), "must not contain consecutive hyphens");
    require(
        bytes.first() != Some(&b'-') && bytes.last() != Some(&b'-'),
        "must not begin or end with a hyphen",
    );
    breaches
}

/// A valid name close to a text that is none (`My_App` → `my-app`): for hints.
pub(crate) fn lower_like(text: &str, check: fn(&str) -> Breaches) -> Option<String> {
    like(&text.to_lowercase(), check)
}

/// A valid text close to one that is not, its case kept (`a b` → `a-b`): for hints.
pub(crate) fn like(text: &str, check: fn(&str) -> Breaches) -> Option<String> {
    let spelled: String = text
        .chars()
        .map(|letter| match letter {
            '.' | '_' | '/' if check(&format!("a{letter}a")).is_empty() => letter,
            letter if letter.is_ascii_alphanumeric() => letter,
            _ => '-',
        })
        .collect();
    let meant = spelled.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
    (!meant.is_empty() && check(meant).is_empty()).then(|| meant.to_owned())
}

#[cfg(test)]
mod tests {
    //! Tables: what passes, and every rule that the rest breaks.
    use super::*;

    fn hold(check: fn(&str) -> Breaches, good: &[&str], bad: &[(&str, &[&str])]) {
        for text in good {
            assert_eq!(check(text), Breaches::new(), "{text:?}");
        }
        for (text, parts) in bad {
            let found = check(text);
            assert_eq!(found.len(), parts.len(), "{text:?}: {found:?}");
            for (rule, part) in found.iter().zip(*parts) {
                assert!(rule.starts_with(part), "{text:?}: {rule}");
            }
        }
    }

    #[test]
    fn subdomains() {
        let long = "a".repeat(254);
        let worse = "A".repeat(254);
        let rule: &[&str] = &["a lowercase RFC 1123 subdomain must consist"];
        hold(
            subdomain,
            &["a", "a.b", "0-9.x", &"a".repeat(253)],
            &[
                ("", rule),
                (".", rule),
                ("a..b", rule),
                ("A", rule),
                ("-a", rule),
                ("a-.b", rule),
                ("a_b", rule),
                ("é", rule),
                (&long, &["must be no more than 253 characters"]),
                (&worse, &["must be no more than 253 characters", rule[0]]),
            ],
        );
        assert_eq!(
            subdomain("A")[0],
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        );
    }

    #[test]
    fn labels() {
        let long = "a".repeat(64);
        hold(
            label,
            &["a", "a-b", "0"],
            &[
                ("", &["a lowercase RFC 1123 label must consist"]),
                ("a.b", &["must not contain dots"]),
                ("a..b", &["a lowercase RFC 1123 label must consist"]),
                (&long, &["must be no more than 63 characters"]),
            ],
        );
        assert_eq!(
            label("A")[0],
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        );
    }

    #[test]
    fn qualified_names() {
        let long = "a".repeat(64);
        let prefix = format!("{}/a", "a".repeat(254));
        let rule = "name part must consist";
        hold(
            qualified,
            &[
                "a",
                "A_b.c",
                "x.example/flag",
                "kubernetes.io/metadata.name",
            ],
            &[
                ("", &["name part must be non-empty", rule]),
                ("/a", &["prefix part must be non-empty"]),
                ("a/", &["name part must be non-empty", rule]),
                ("/", &["prefix part must be", "name part must be", rule]),
                ("X.example/a", &["prefix part a lowercase RFC 1123"]),
                ("X/-", &["prefix part a lowercase RFC 1123", rule]),
                (&prefix, &["prefix part must be no more than 253 bytes"]),
                ("a/b/c", &["a valid label key must consist"]),
                ("a b", &[rule]),
                ("-a", &[rule]),
                (&long, &["name part must be no more than 63 bytes"]),
            ],
        );
        assert_eq!(
            qualified("a b")[0],
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        );
    }

    #[test]
    fn label_values() {
        let long = "a".repeat(64);
        let rule: &[&str] = &["a valid label must be an empty string or consist"];
        hold(
            value,
            &["", "a", "A_b.c-1"],
            &[
                ("a b", rule),
                ("-", rule),
                (&long, &["must be no more than 63 bytes"]),
            ],
        );
        assert_eq!(
            value("a b")[0],
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        );
    }

    #[test]
    fn port_names() {
        let charset = "must contain only alpha-numeric";
        let letter = "must contain at least one letter";
        let edge = "must not begin or end";
        hold(
            port,
            &["http", "a", "1a", "a-1", "abcdefghijklmno"],
            &[
                ("", &[charset, letter]),
                ("80", &[letter]),
                ("HTTP", &[charset, letter]),
                ("8000-9000", &[letter]),
                ("a--b", &["must not contain consecutive"]),
                ("-a", &[edge]),
                ("a-", &[edge]),
                ("-", &[letter, edge]),
                ("abcdefghijklmnop", &["must be no more than 15 characters"]),
            ],
        );
    }

    #[test]
    fn what_was_probably_meant() {
        for (text, check, meant) in [
            ("My_App", label as fn(&str) -> Breaches, Some("my-app")),
            ("a.b", label, Some("a-b")),
            ("A.b", subdomain, Some("a.b")),
            ("-", label, None),
            ("größe", label, Some("gr--e")),
        ] {
            assert_eq!(lower_like(text, check).as_deref(), meant, "{text}");
        }
        assert_eq!(like("My App ", value).as_deref(), Some("My-App"));
        assert_eq!(like("/a b/", qualified).as_deref(), Some("a-b"));
        assert_eq!(like("x.io/c d", qualified).as_deref(), Some("x.io/c-d"));
    }
}
