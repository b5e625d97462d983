//! The spelling of labels and names, as the Kubernetes API takes them.
//!
//! For what comes from elsewhere than manifests: configuration keys and container
//! labels, which are chosen by whoever starts the container. Pure. Called by
//! `config` and `runtime`.

/// What is wrong with a name, as what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum SyntaxError {
    /// A qualified name: `[prefix/]name`.
    #[error(
        "at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit, after an optional DNS name and `/`"
    )]
    LabelKey,
    /// A label's value.
    #[error(
        "at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit; it may be empty"
    )]
    LabelValue,
    /// A DNS-1123 label.
    #[error(
        "at most 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit"
    )]
    DnsLabel,
    /// A port's name.
    #[error(
        "at most 15 lower-case letters, digits and single `-`, with a letter, beginning and ending with a letter or digit"
    )]
    PortName,
}

/// Is it a label's key?
///
/// # Errors
/// It is not.
pub fn label_key(text: &str) -> Result<(), SyntaxError> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let prefix_fits = prefix.is_none_or(|prefix| {
        prefix.len() <= 253 && prefix.split('.').all(|part| dns_label_of(part, 253))
    });
    (prefix_fits && !name.is_empty() && label_value(name).is_ok())
        .then_some(())
        .ok_or(SyntaxError::LabelKey)
}

/// Is it a label's value?
///
/// # Errors
/// It is not.
pub fn label_value(text: &str) -> Result<(), SyntaxError> {
    let fits = text.len() <= 63
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && alphanumeric_ends(text);
    (text.is_empty() || fits)
        .then_some(())
        .ok_or(SyntaxError::LabelValue)
}

/// Is it a DNS-1123 label, as a Namespace's name is?
///
/// # Errors
/// It is not.
pub fn dns_label(text: &str) -> Result<(), SyntaxError> {
    dns_label_of(text, 63)
        .then_some(())
        .ok_or(SyntaxError::DnsLabel)
}

/// Is it a port's name (an IANA service name)?
///
/// # Errors
/// It is not.
pub fn port_name(text: &str) -> Result<(), SyntaxError> {
    let fits = dns_label_of(text, 15)
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && !text.contains("--");
    fits.then_some(()).ok_or(SyntaxError::PortName)
}

fn dns_label_of(text: &str, most: usize) -> bool {
    !text.is_empty()
        && text.len() <= most
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && alphanumeric_ends(text)
}

fn alphanumeric_ends(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().last()];
    ends.into_iter()
        .all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_keys() {
        for good in [
            "app",
            "a",
            "A_b.c-1",
            "netpold.io/namespace",
            "x-1.y/Z",
            &"k".repeat(63),
        ] {
            assert_eq!(label_key(good), Ok(()), "{good:?}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "-a",
            "a-",
            "a b",
            "Ex.com/a",
            "a..b/c",
            "é",
            "a\n",
            &"k".repeat(64),
            &format!("{}/a", "p".repeat(254)),
        ] {
            assert!(label_key(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn label_values() {
        for good in ["", "1", "v1.2_3-x"] {
            assert_eq!(label_value(good), Ok(()), "{good:?}");
        }
        for bad in ["_a", "a_", "a/b", "a b", "\0", &"v".repeat(64)] {
            assert!(label_value(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(dns_label("kube-system"), Ok(()));
        for bad in ["", "Shop", "a_b", "a.b", "-a", "a-", &"n".repeat(64)] {
            assert!(dns_label(bad).is_err(), "{bad:?}");
        }
        assert_eq!(port_name("http"), Ok(()));
        for bad in ["", "80", "a--b", "HTTP", "sixteen-letters-"] {
            assert!(port_name(bad).is_err(), "{bad:?}");
        }
    }
}
