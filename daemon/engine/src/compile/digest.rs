//! Content digests: what subjects, classes and their parts are numbered by.
//!
//! The keys are fixed, so a number is the same after a restart. They are no secret: who could
//! find two contents of one number would need to choose the policies themselves, as
//! contents hold nothing of a container's own choosing but the numbers of ports that a
//! policy names. Digests of parts are 128 bits wide and summed, so a set's digest
//! does not depend on the order in which it is met.

use std::hash::Hash;

use netpol_abi::tables::FIRST_HASHED;
use siphasher::sip::SipHasher24;
use siphasher::sip128::{Hasher128, SipHasher24 as WideHasher};

/// Changes with the meaning of what is hashed, so that two versions of this crate never give
/// one number to two things.
const VERSION: u64 = 1;

/// The digest of a set of parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SetDigest(u128);

impl SetDigest {
    pub(super) fn add(&mut self, part: u128) {
        self.0 = self.0.wrapping_add(part);
    }

    pub(super) fn remove(&mut self, part: u128) {
        self.0 = self.0.wrapping_sub(part);
    }

    /// Of two sets that have no part in common.
    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

/// The digest of a part; `domain` keeps parts of different kinds apart.
pub(super) fn part(domain: &str, content: impl Hash) -> u128 {
    let mut hasher = WideHasher::new_with_keys(VERSION, 0x7061_7274);
    domain.hash(&mut hasher);
    content.hash(&mut hasher);
    hasher.finish128().as_u128()
}

/// The number of a subject or class.
pub(super) fn number(domain: &str, content: impl Hash) -> u64 {
    use std::hash::Hasher;

    let mut hasher = SipHasher24::new_with_keys(VERSION, 0x6e75_6d62_6572);
    domain.hash(&mut hasher);
    content.hash(&mut hasher);
    match hasher.finish() {
        reserved if reserved < FIRST_HASHED => reserved + FIRST_HASHED,
        number => number,
    }
}
