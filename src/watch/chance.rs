//! The chances of the heap profile, without the mathematics library: a program that has no other use for it
//! would load it for two functions, and keep the pages around them resident.

use core::f64::consts::{LN_2, SQRT_2};

/// The natural logarithm of a positive, normal number, to within 1e-10.
pub fn ln(x: f64) -> f64 {
    const FRACTION: u64 = (1 << 52) - 1;
    let mut exponent = (x.to_bits() >> 52) as i64 - 1023;
    let mut fraction = f64::from_bits(x.to_bits() & FRACTION | 1023 << 52);
    if fraction > SQRT_2 {
        fraction /= 2.0;
        exponent += 1;
    }
    // ln f = 2 artanh((f - 1) / (f + 1)), by its power series: the argument is at most 0.172.
    let t = (fraction - 1.0) / (fraction + 1.0);
    let s = t * t;
    let series = 1.0 + s * (1.0 / 3.0 + s * (0.2 + s * (1.0 / 7.0 + s * (1.0 / 9.0 + s / 11.0))));
    exponent as f64 * LN_2 + 2.0 * t * series
}

/// `1 - exp(-x)` for `x` of 0 and more, to within one part in 1e10: the chance that a Poisson process with one
/// event per unit has one within `x`.
pub fn within(x: f64) -> f64 {
    if x > 40.0 {
        return 1.0;
    }
    let (mut part, mut halvings) = (x, 0);
    while part > 1.0 / 64.0 {
        part /= 2.0;
        halvings += 1;
    }
    let mut chance =
        part * (1.0 - part / 2.0 * (1.0 - part / 3.0 * (1.0 - part / 4.0 * (1.0 - part / 5.0))));
    // In twice the length there is one in the first half, or in the second, or in both.
    for _ in 0..halvings {
        chance *= 2.0 - chance;
    }
    chance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_mathematics_library_has_it() {
        let mut x = 1e-300;
        while x < 1e300 {
            assert!((ln(x) - x.ln()).abs() <= 1e-10, "{x}: {} {}", ln(x), x.ln());
            let right = -(-x).exp_m1();
            assert!((within(x) - right).abs() <= right * 1e-10, "{x}: {} {right}", within(x));
            x *= 1.01;
        }
        for x in [1.0, SQRT_2, 0.5, 1.0 - f64::EPSILON / 2.0, 0.5f64.powi(54)] {
            assert!((ln(x) - x.ln()).abs() <= 1e-10, "{x}");
        }
        assert_eq!((within(0.0), within(f64::INFINITY)), (0.0, 1.0));
    }
}
