//! Values with units: sizes, times, limits.

use super::{DECAY_MOST_MS, Limit};
use core::time::Duration;

/// A number with decimals and what follows it: the number times `scale`, and the rest.
pub fn number(text: &[u8], scale: impl Fn(&[u8]) -> Option<u64>) -> Option<u64> {
    let whole = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = &text[whole..];
    let mut decimals: &[u8] = b"";
    if let Some(behind) = rest.strip_prefix(b".") {
        let count = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (decimals, rest) = behind.split_at(count);
        if decimals.is_empty() {
            return None;
        }
    }
    if whole == 0 {
        return None;
    }
    let scale = scale(rest.trim_ascii())?;
    let value = digits(&text[..whole])? * u128::from(scale);
    // More decimals than six say nothing any more.
    let decimals = &decimals[..decimals.len().min(6)];
    let part = digits(decimals)? * u128::from(scale) / 10u128.pow(decimals.len() as u32);
    u64::try_from(value + part).ok()
}

/// A whole number of digits and nothing else, none of which is 0.
pub fn digits(text: &[u8]) -> Option<u128> {
    let add = |value: u128, digit: &u8| {
        let digit = char::from(*digit).to_digit(10)?;
        value.checked_mul(10)?.checked_add(digit.into())
    };
    text.iter().try_fold(0, add).filter(|&value| value <= u64::MAX.into())
}

/// Whether it is a path that the kernel takes, and an absolute one: a process may be anywhere when it writes.
pub fn is_path(text: &[u8]) -> bool {
    text.starts_with(b"/") && text.len() < libc::PATH_MAX as usize
}

pub fn limit(text: &[u8]) -> Option<Limit> {
    if text == b"none" {
        return Some(Limit::None);
    }
    if text.ends_with(b"%") {
        let share = number(text, |unit| (unit == b"%").then_some(1))?;
        return (1..=100).contains(&share).then_some(Limit::CgroupShare(share as u8));
    }
    let bytes = size(text)?;
    (bytes >= 1 << 20).then_some(Limit::Bytes(bytes))
}

pub fn size(text: &[u8]) -> Option<usize> {
    let bytes = number(text, |unit| {
        Some(match unit {
            b"KB" | b"kB" => 1000,
            b"MB" => 1_000_000,
            b"GB" => 1_000_000_000,
            b"TB" => 1_000_000_000_000,
            b"KiB" | b"K" | b"k" => 1 << 10,
            b"MiB" | b"M" | b"m" => 1 << 20,
            b"GiB" | b"G" | b"g" => 1 << 30,
            b"TiB" | b"T" | b"t" => 1 << 40,
            b"B" => 1,
            _ => return None,
        })
    })?;
    usize::try_from(bytes).ok()
}

pub fn time(text: &[u8]) -> Option<Duration> {
    let ms = number(text, |unit| {
        Some(match unit {
            b"ms" => 1,
            b"s" => 1000,
            b"min" => 60_000,
            b"h" => 3_600_000,
            _ => return None,
        })
    })?;
    (ms <= DECAY_MOST_MS).then_some(Duration::from_millis(ms))
}
