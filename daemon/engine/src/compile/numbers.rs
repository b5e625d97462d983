//! The numbers of policy sets and classes, and the digests that they are made from.
//!
//! A number is a keyed hash of an *ordered* list. The daemon's key is a secret of the host, so an
//! author of manifests can't choose contents whose numbers are equal. What the number stands for
//! is decided by its content all the same: wherever a digest or a number is met again, the two
//! contents are compared. Digests only find candidates (see [`super::interned`]), and
//! two contents of one number are a [`Collision`]: the world is refused.

use std::fmt;
use std::hash::Hash;

use netpol_abi::tables::FIRST_HASHED;
use siphasher::sip::SipHasher24;
use siphasher::sip128::{Hasher128, SipHasher24 as WideHasher};

/// Changes with the meaning of what is hashed, so that tables which an older version of this crate
/// left behind have other numbers.
const VERSION: u64 = 2;

/// The key under which contents are hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NumberKey {
    words: [u64; 2],
    /// Bits of each digest and number that are used.
    bits: u32,
}

impl NumberKey {
    /// A key of these random bytes, which must be kept secret.
    #[must_use]
    pub const fn new(secret: [u8; 16]) -> Self {
        let secret = u128::from_le_bytes(secret);
        Self {
            words: [secret as u64, (secret >> 64) as u64],
            bits: u128::BITS,
        }
    }

    /// The same key, with digests and numbers of a few bits, which tests use to meet collisions.
    #[doc(hidden)]
    #[must_use]
    pub const fn narrowed(self, bits: u32) -> Self {
        Self { bits, ..self }
    }

    /// The digest of a content; `domain` keeps contents of different sorts apart.
    pub(super) fn digest(&self, domain: &str, content: impl Hash) -> u128 {
        let mut hasher = WideHasher::new_with_keys(self.words[0], self.words[1]);
        (VERSION, domain, content).hash(&mut hasher);
        self.cut(hasher.finish128().as_u128())
    }

    /// The number of a policy set or class.
    pub(super) fn number(&self, domain: &str, content: impl Hash) -> u64 {
        use std::hash::Hasher;

        let mut hasher = SipHasher24::new_with_keys(self.words[0], self.words[1]);
        (VERSION, domain, content).hash(&mut hasher);
        match self.cut(hasher.finish().into()) as u64 {
            reserved if reserved < FIRST_HASHED => reserved + FIRST_HASHED,
            number => number,
        }
    }

    const fn cut(&self, digest: u128) -> u128 {
        if self.bits < u128::BITS {
            digest & ((1 << self.bits) - 1)
        } else {
            digest
        }
    }
}

/// A public one, for tables that are never pinned: numbers are then the same in every run.
impl Default for NumberKey {
    fn default() -> Self {
        Self::new([0; 16])
    }
}

/// Without the secret.
impl fmt::Debug for NumberKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NumberKey").finish_non_exhaustive()
    }
}

/// Two contents have one number: a verdict of the one would be the other's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{sort} {number:#018x} would stand for two things, so these policies are refused as a whole: \
     {} and {}", things[0], things[1]
)]
pub struct Collision {
    /// `policy_set` or `class`.
    pub sort: &'static str,
    /// The number.
    pub number: u64,
    /// What it stands for, and what it would stand for besides.
    pub things: [String; 2],
}

/// Items of a list that a [`Collision`] names.
const NAMED: usize = 8;

/// A list for a [`Collision`], cut where it is long.
pub(super) fn list(items: impl IntoIterator<Item = String>) -> String {
    let mut items: Vec<String> = items.into_iter().collect();
    if items.len() > NAMED {
        let more = items.len() - NAMED;
        items.truncate(NAMED);
        items.push(format!("{more} more"));
    }
    items.join(", ")
}

/// The ports that names stand for, for a [`Collision`].
pub(super) fn ports(ports: &super::ports::Resolved) -> String {
    if ports.is_empty() {
        return String::new();
    }
    let ports = ports
        .iter()
        .map(|((protocol, name), port)| format!("{name}={port}/{protocol}"));
    format!(" with the ports {}", list(ports))
}
