//! What names, labels and port names may look like (k8s.io/apimachinery
//! `pkg/util/validation`), in the API server's words.
//!
//! Pure text checks; the callers add field and place. Lengths are bytes.

use std::borrow::Cow;

/// The first rule that a text breaks, as the API server words it.
pub(super) type Check = Result<(), Cow<'static, str>>;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

fn at_most(text: &str, limit: usize) -> Check {
    if text.len() > limit {
        return Err(format!("must be no more than {limit} bytes").into());
    }
    Ok(())
}

fn require(holds: bool, message: &'static str) -> Check {
    if holds { Ok(()) } else { Err(message.into()) }
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

/// Names of most objects: `IsDNS1123Subdomain`.
pub(super) fn subdomain(text: &str) -> Check {
    at_most(text, 253)?;
    require(text.split('.').all(is_label), SUBDOMAIN)
}

/// Names of namespaces: `IsDNS1123Label`.
pub(super) fn label(text: &str) -> Check {
    at_most(text, 63)?;
    require(is_label(text), LABEL)
}

fn is_word(text: &str) -> bool {
    framed(
        text,
        |byte| byte.is_ascii_alphanumeric(),
        |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
    )
}

/// Keys of labels and annotations: `IsQualifiedName`.
pub(super) fn qualified(text: &str) -> Check {
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return Err(format!("a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')").into());
        }
        Some(("", _)) => return Err("prefix part must be non-empty".into()),
        Some((prefix, name)) => {
            subdomain(prefix).map_err(|message| format!("prefix part {message}"))?;
            name
        }
    };
    require(!name.is_empty(), "name part must be non-empty")?;
    at_most(name, 63).map_err(|message| format!("name part {message}"))?;
    if is_word(name) {
        return Ok(());
    }
    Err(format!("name part {QUALIFIED}").into())
}

/// Values of labels: `IsValidLabelValue`.
pub(super) fn value(text: &str) -> Check {
    at_most(text, 63)?;
    require(text.is_empty() || is_word(text), VALUE)
}

/// Names of ports: `IsValidPortName` (RFC 6335's service names, in lower case).
pub(super) fn port(text: &str) -> Check {
    at_most(text, 15)?;
    require(
        !text.is_empty() && text.bytes().all(|byte| is_lower(byte) || byte == b'-'),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    )?;
    require(
        text.bytes().any(|byte| byte.is_ascii_lowercase()),
        "must contain at least one letter (a-z)",
    )?;
    require(!text.contains("--"), "must not contain consecutive hyphens")?;
    require(
        !text.starts_with('-') && !text.ends_with('-'),
        "must not begin or end with a hyphen",
    )
}

#[cfg(test)]
mod tests {
    //! Tables: what passes, and the first rule that the rest breaks.
    use super::*;

    fn hold(check: fn(&str) -> Check, good: &[&str], bad: &[(&str, &str)]) {
        for text in good {
            assert_eq!(check(text), Ok(()), "{text:?}");
        }
        for (text, part) in bad {
            let message = check(text).expect_err(text);
            assert!(message.contains(part), "{text:?}: {message}");
        }
    }

    #[test]
    fn subdomains() {
        let long = "a".repeat(254);
        hold(
            subdomain,
            &["a", "a.b", "0-9.x", &"a".repeat(253)],
            &[
                ("", "must consist"),
                (".", "must consist"),
                ("a..b", "must consist"),
                ("A", "must consist"),
                ("-a", "must consist"),
                ("a-.b", "must consist"),
                ("a_b", "must consist"),
                ("é", "must consist"),
                (&long, "253"),
            ],
        );
    }

    #[test]
    fn labels() {
        let long = "a".repeat(64);
        hold(
            label,
            &["a", "a-b", "0"],
            &[("", "must consist"), ("a.b", "must consist"), (&long, "63")],
        );
    }

    #[test]
    fn qualified_names() {
        let long = "a".repeat(64);
        hold(
            qualified,
            &[
                "a",
                "A_b.c",
                "x.example/flag",
                "kubernetes.io/metadata.name",
            ],
            &[
                ("", "name part must be non-empty"),
                ("/a", "prefix part must be non-empty"),
                ("a/", "name part must be non-empty"),
                ("X.example/a", "prefix part a lowercase"),
                ("a/b/c", "a qualified name must"),
                ("a b", "name part must consist"),
                ("-a", "name part must consist"),
                (&long, "name part must be no more than 63"),
            ],
        );
    }

    #[test]
    fn label_values() {
        let long = "a".repeat(64);
        hold(
            value,
            &["", "a", "A_b.c-1"],
            &[
                ("a b", "a valid label"),
                ("-", "a valid label"),
                (&long, "63"),
            ],
        );
    }

    #[test]
    fn port_names() {
        hold(
            port,
            &["http", "a", "1a", "a-1", "abcdefghijklmno"],
            &[
                ("", "only alpha-numeric"),
                ("80", "at least one letter"),
                ("HTTP", "only alpha-numeric"),
                ("a--b", "consecutive"),
                ("-a", "begin or end"),
                ("a-", "begin or end"),
                ("abcdefghijklmnop", "15"),
            ],
        );
    }
}
