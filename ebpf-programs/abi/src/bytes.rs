//! Copies of addresses, by words. Left to itself the compiler calls for a copy of memory, which in a
//! program is a loop over bytes: some 20 ns for an IPv6 address. And their hash.

/// An IP address: two loads and two stores.
#[inline(always)]
pub const fn words(address: [u8; 16]) -> [u8; 16] {
    u128::from_ne_bytes(address).to_ne_bytes()
}

/// A MAC address.
#[inline(always)]
pub const fn octets([a, b, c, d, e, f]: [u8; 6]) -> [u8; 6] {
    [a, b, c, d, e, f]
}

/// An address spread over 32 bits, of which the upper ones depend on all of it: neighbours get different numbers.
#[inline(always)]
pub const fn spread(address: &[u8; 16]) -> u32 {
    let whole = u128::from_le_bytes(*address);
    let half = (whole ^ (whole >> 64)) as u64;
    let quarter = (half ^ (half >> 32)) as u32;
    // Knuth's multiplicative hash.
    quarter.wrapping_mul(0x9e37_79b1)
}
