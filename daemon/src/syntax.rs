//! What is wrong with labels and names that come from elsewhere than manifests, as one line on what would be right:
//! configuration keys, and container labels, which the user who starts the container chooses. The rules themselves are
//! [`netpol_engine::names`]. Pure. Called by `config` and `runtime`.

use netpol_engine::names;

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
/// The text is no key.
pub fn label_key(text: &str) -> Result<(), SyntaxError> {
    none(&names::qualified(text), SyntaxError::LabelKey)
}

/// Is it a label's value?
///
/// # Errors
/// The text is no value.
pub fn label_value(text: &str) -> Result<(), SyntaxError> {
    none(&names::value(text), SyntaxError::LabelValue)
}

/// Is it a DNS-1123 label, as a Namespace's name is?
///
/// # Errors
/// The text is no DNS-1123 label.
pub fn dns_label(text: &str) -> Result<(), SyntaxError> {
    none(&names::label(text), SyntaxError::DnsLabel)
}

/// Is it a port's name (an IANA service name)?
///
/// # Errors
/// The text is no port's name.
pub fn port_name(text: &str) -> Result<(), SyntaxError> {
    none(&names::port(text), SyntaxError::PortName)
}

fn none(breaches: &[String], error: SyntaxError) -> Result<(), SyntaxError> {
    if breaches.is_empty() {
        Ok(())
    } else {
        Err(error)
    }
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
