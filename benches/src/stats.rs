//! Medians, ranges and ratios of interleaved runs. One run's figure means nothing on a shared machine; the ratio
//! of two that ran one after the other, taken many times, does.

use serde::Serialize;

/// Median and range of some figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// Median (the mean of the middle two of an even number).
    pub median: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure; `None` of none.
    pub fn of(figures: &[f64]) -> Option<Spread> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let mid = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) { (sorted[mid - 1] + sorted[mid]) / 2.0 } else { sorted[mid] };
        Some(Spread { min: first, median, max: last })
    }

    /// Of the ratios `a[i] / b[i]`, pair by pair.
    pub fn of_ratios(a: &[f64], b: &[f64]) -> Option<Spread> {
        let ratios: Vec<f64> = a.iter().zip(b).filter(|(_, b)| **b > 0.0).map(|(a, b)| a / b).collect();
        Spread::of(&ratios)
    }
}

/// The smallest figure that at least `percent` of all do not exceed (nearest rank); `None` of none.
pub fn percentile(figures: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { min: 1.0, median: 2.5, max: 4.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // Both halve together: the machine slowed down, the ratio stays.
        assert_eq!(Spread::of_ratios(&[10.0, 5.0], &[20.0, 10.0]).unwrap().median, 0.5);
    }

    #[test]
    fn a_percentile_is_one_of_the_figures() {
        let figures: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(percentile(&figures, 50.0), Some(10.0));
        assert_eq!(percentile(&figures, 100.0), Some(20.0));
        assert_eq!(percentile(&[7.0], 50.0), Some(7.0));
        assert_eq!(percentile(&[], 50.0), None);
    }
}
