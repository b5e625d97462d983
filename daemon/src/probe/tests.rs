//! What can be tried without root: the namespace that we are in.

#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn errors_tell_refusal_from_silence() {
    for (kind, arrived) in [
        (ErrorKind::ConnectionRefused, Some(true)),
        (ErrorKind::TimedOut, Some(false)),
        (ErrorKind::HostUnreachable, None),
        (ErrorKind::NetworkUnreachable, None),
    ] {
        assert_eq!(failed(&kind.into()).arrived(), arrived, "{kind}");
    }
}

#[test]
fn a_namespace_that_is_none_is_said() {
    let none = Path::new("/nonexistent/netns");
    assert!(matches!(
        namespace::inside(none, || ()),
        Err(NamespaceError::Open { .. })
    ));
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(
        namespace::inside(file.path(), || ()),
        Err(NamespaceError::Open { .. })
    ));
}

#[test]
fn nonces_differ() {
    assert_ne!(nonce(), nonce());
}
