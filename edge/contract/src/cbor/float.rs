//! Floats of all lengths, by their bits: nothing is computed, and nothing rounded.

use super::{EIGHT_BYTES, FOUR_BYTES, TWO_BYTES};

// IEEE 754's formats, as (bits of the exponent, bits of the fraction).
const HALF: (u32, u32) = (5, 10);
const SINGLE: (u32, u32) = (8, 23);
const DOUBLE_FRACTION: u32 = 52;
const DOUBLE_EXPONENT_MAX: u64 = 0x7FF;

/// The value of a float of the length that `info` says.
pub(super) fn widened(bits: u64, info: u8) -> f64 {
    let (exponent_bits, fraction_bits) = match info {
        EIGHT_BYTES => return f64::from_bits(bits),
        TWO_BYTES => HALF,
        _ => SINGLE,
    };
    let exponent_max = (1 << exponent_bits) - 1;
    let sign = bits >> (exponent_bits + fraction_bits);
    let exponent = bits >> fraction_bits & exponent_max;
    let mut fraction = bits << (DOUBLE_FRACTION - fraction_bits) & ((1 << DOUBLE_FRACTION) - 1);
    let bias = (DOUBLE_EXPONENT_MAX >> 1) - (exponent_max >> 1);
    let exponent = if exponent == exponent_max {
        DOUBLE_EXPONENT_MAX
    } else if exponent > 0 {
        exponent + bias
    } else if fraction == 0 {
        0
    } else {
        // Below the format's normal numbers; a double has an exponent for it. The leading one becomes the implicit one.
        let shift = fraction.leading_zeros() - (u64::BITS - 1 - DOUBLE_FRACTION);
        fraction = fraction << shift & ((1 << DOUBLE_FRACTION) - 1);
        bias + 1 - u64::from(shift)
    };
    f64::from_bits(sign << 63 | exponent << DOUBLE_FRACTION | fraction)
}

/// The shortest form of a value that keeps it: a head's lower bits, and the float's.
pub(super) fn shortest(value: f64) -> (u8, u64) {
    if value.is_nan() {
        return (TWO_BYTES, 0x7E00);
    }
    if let Some(half) = narrowed(value, HALF) {
        return (TWO_BYTES, half);
    }
    match narrowed(value, SINGLE) {
        Some(single) => (FOUR_BYTES, single),
        None => (EIGHT_BYTES, value.to_bits()),
    }
}

/// A value, not NaN, in a narrower format, if that has it exactly.
#[inline(never)]
fn narrowed(value: f64, (exponent_bits, fraction_bits): (u32, u32)) -> Option<u64> {
    let bits = value.to_bits();
    let exponent_max: u64 = (1 << exponent_bits) - 1;
    let sign = bits >> 63 << (exponent_bits + fraction_bits);
    let exponent = bits >> DOUBLE_FRACTION & DOUBLE_EXPONENT_MAX;
    let fraction = bits & ((1 << DOUBLE_FRACTION) - 1);
    let bias = (DOUBLE_EXPONENT_MAX >> 1) - (exponent_max >> 1);
    // How many bits of the fraction must be 0, because there is no room for them.
    let drop = DOUBLE_FRACTION - fraction_bits;
    let (exponent, significand, drop) = if exponent == DOUBLE_EXPONENT_MAX {
        (exponent_max, fraction, drop)
    } else if exponent | fraction == 0 {
        (0, 0, drop)
    } else if exponent > bias {
        let exponent = exponent - bias;
        if exponent >= exponent_max {
            return None;
        }
        (exponent, fraction, drop)
    } else {
        // Below the format's normal numbers: the leading one is written, and there are fewer places after it.
        let below = u32::try_from(bias + 1 - exponent).ok()?;
        (0, fraction | 1 << DOUBLE_FRACTION, drop + below)
    };
    let exact = significand == 0 || significand.trailing_zeros() >= drop;
    // With a leading one at most as many can be 0 as there are, so that the shift is short.
    exact.then(|| sign | exponent << fraction_bits | significand.checked_shr(drop).unwrap_or_default())
}
