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
fn nonces_differ() {
    assert_ne!(nonce(), nonce());
}
