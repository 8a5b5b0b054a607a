//! Order statistics of a handful of samples.

/// What is reported of one allocator's samples.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    /// The middle.
    pub median: f64,
    /// The fastest.
    pub min: f64,
    /// The slowest.
    pub max: f64,
    /// Half the interquartile range over the median, in percent.
    pub spread_percent: f64,
}

impl Summary {
    /// Of at least one sample.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_unstable_by(f64::total_cmp);
        let median = quantile(&samples, 0.5);
        let half_range = (quantile(&samples, 0.75) - quantile(&samples, 0.25)) / 2.0;
        Self {
            median,
            min: samples[0],
            max: samples[samples.len() - 1],
            spread_percent: 100.0 * half_range / median,
        }
    }
}

/// Interpolated between neighbours.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let below = sorted[at.floor() as usize];
    let above = sorted[at.ceil() as usize];
    below + (above - below) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries() {
        let s = Summary::of(vec![5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((s.min, s.median, s.max), (1.0, 3.0, 5.0));
        assert!((s.spread_percent - 100.0 / 3.0).abs() < 1e-9);
        let one = Summary::of(vec![2.0]);
        assert_eq!((one.median, one.spread_percent), (2.0, 0.0));
        assert_eq!(Summary::of(vec![1.0, 2.0]).median, 1.5);
    }
}
