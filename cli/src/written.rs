//! Figures as people read them: three significant digits and a unit.

/// Ends quietly when the reader has gone.
pub fn quietly(result: std::io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Seconds with three significant digits.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.9995e-6 => format!("{} ns", three(s * 1e9)),
        s if s < 0.9995e-3 => format!("{} µs", three(s * 1e6)),
        s if s < 0.9995 => format!("{} ms", three(s * 1e3)),
        s => format!("{} s", three(s)),
    }
}

/// Bytes with three significant digits.
pub fn bytes(bytes: f64) -> String {
    let mebibytes = bytes / 1_048_576.0;
    if bytes < 1024.0 {
        format!("{bytes:.0} B")
    } else if mebibytes < 1.0 {
        format!("{} KiB", three(bytes / 1024.0))
    } else if mebibytes < 1024.0 {
        format!("{} MiB", three(mebibytes))
    } else {
        format!("{} GiB", three(mebibytes / 1024.0))
    }
}

/// A count with three significant digits.
pub fn count(count: f64) -> String {
    match count {
        n if n < 10_000.0 => format!("{n:.0}"),
        n if n < 999_500.0 => format!("{} k", three(n / 1e3)),
        n => format!("{} M", three(n / 1e6)),
    }
}

fn three(number: f64) -> String {
    match number {
        n if n < 9.995 => format!("{n:.2}"),
        n if n < 99.95 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_enough() {
        assert_eq!(seconds(0.001234), "1.23 ms");
        assert_eq!(seconds(0.9996), "1.00 s");
        assert_eq!(seconds(0.9994), "999 ms");
        assert_eq!(seconds(83.21), "83.2 s");
        assert_eq!(seconds(12.3e-6), "12.3 µs");
        assert_eq!(seconds(45e-9), "45.0 ns");
        assert_eq!(bytes(3.5 * 1_048_576.0), "3.50 MiB");
        assert_eq!(bytes(2048.0 * 1_048_576.0), "2.00 GiB");
        assert_eq!(bytes(1536.0), "1.50 KiB");
        assert_eq!(bytes(12.0), "12 B");
        assert_eq!(count(9999.0), "9999");
        assert_eq!(count(12_345.0), "12.3 k");
        assert_eq!(count(2_500_000.0), "2.50 M");
    }
}
