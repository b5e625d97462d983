//! The one wrapper through which the shared layouts become map keys and values.
//!
//! One of the named exceptions to the rule against `unsafe`: it holds a single
//! `unsafe impl` and nothing else.
#![allow(unsafe_code)]

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A key or value of a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Wire<T>(pub T);

// SAFETY: `aya::Pod` asks that a value may be read from and written as plain bytes.
// `FromBytes` promises that every bit pattern is a value, `IntoBytes` that there is
// no padding, `Immutable` that nothing changes behind a shared reference; the
// wrapper is transparent, so it has T's layout.
unsafe impl<T: Copy + FromBytes + IntoBytes + Immutable + 'static> aya::Pod for Wire<T> {}
