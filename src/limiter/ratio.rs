//! Exact parts of whole numbers: `a * b / c`, with the product in 128 bits, so that only the result has to fit.

/// `a * b / c`, rounded down. `c` is at least 1; a result beyond 64 bits is the largest number.
pub fn floor(a: u64, b: u64, c: u64) -> u64 {
    u64::try_from(u128::from(a) * u128::from(b) / u128::from(c.max(1))).unwrap_or(u64::MAX)
}

/// `a * b / c`, rounded up. `c` is at least 1; a result beyond 64 bits is the largest number.
pub fn ceil(a: u64, b: u64, c: u64) -> u64 {
    u64::try_from((u128::from(a) * u128::from(b)).div_ceil(u128::from(c.max(1)))).unwrap_or(u64::MAX)
}
