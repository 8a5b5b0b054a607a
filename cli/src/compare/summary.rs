//! What a list of samples says: medians, quartiles, ratios.

use serde::Serialize;

/// The spread of a list of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub min: f64,
    /// A quarter of the numbers are at most this.
    pub lower_quartile: f64,
    pub median: f64,
    /// A quarter of the numbers are at least this.
    pub upper_quartile: f64,
    pub max: f64,
}

impl Spread {
    /// The spread of at least one number.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (sorted.len() - 1) as f64;
            let (low, high) = (place.floor() as usize, place.ceil() as usize);
            sorted[low] + (sorted[high] - sorted[low]) * place.fract()
        };
        Spread {
            min: at(0.0),
            lower_quartile: at(0.25),
            median: at(0.5),
            upper_quartile: at(0.75),
            max: at(1.0),
        }
    }

    /// Half the distance between the quartiles, as a share of the median.
    pub fn relative(&self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        (self.upper_quartile - self.lower_quartile) / 2.0 / self.median
    }
}

/// The quotients of two lists, place by place; where both are zero, one.
pub fn ratios<'a>(
    of: impl IntoIterator<Item = f64> + 'a,
    over: impl IntoIterator<Item = f64> + 'a,
) -> impl Iterator<Item = f64> + 'a {
    of.into_iter().zip(over).map(|(of, over)| if of == over { 1.0 } else { of / over })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_numbers() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread.min, 1.0);
        assert_eq!(spread.lower_quartile, 1.75);
        assert_eq!(spread.median, 2.5);
        assert_eq!(spread.upper_quartile, 3.25);
        assert_eq!(spread.max, 4.0);
        assert_eq!(spread.relative(), 0.3);
        let one = Spread::of([7.0]);
        assert_eq!((one.min, one.median, one.max), (7.0, 7.0, 7.0));
    }

    #[test]
    fn ratios_pair_the_rounds() {
        // The second round was ten times as slow for both.
        let ratios: Vec<f64> = ratios([2.0, 20.0], [1.0, 10.0]).collect();
        assert_eq!(ratios, [2.0, 2.0]);
        assert_eq!(super::ratios([0.0], [0.0]).collect::<Vec<_>>(), [1.0]);
    }
}
