//! Order statistics of small and large samples.

/// The value that `part` (0 to 1) of the values do not exceed; sorts them. The lower one of the two
/// middle values is the median of an even number.
///
/// # Panics
///
/// If there are no values, or one of them is not a number.
pub(crate) fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(|a, b| a.partial_cmp(b).expect("a figure that is not a number"));
    let rank = (part * values.len() as f64).ceil() as usize;
    values[rank.saturating_sub(1)]
}

/// Median, smallest and largest of several values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// `None` of no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Summary> {
        if values.is_empty() {
            return None;
        }
        let median = percentile(&mut values, 0.5);
        Some(Summary { median, min: values[0], max: values[values.len() - 1] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 0.0), 1.0);
        assert_eq!(percentile(&mut values, 0.5), 50.0);
        assert_eq!(percentile(&mut values, 0.99), 99.0);
        assert_eq!(percentile(&mut values, 1.0), 100.0);
        assert_eq!(percentile(&mut [7.0], 0.99), 7.0);
    }

    #[test]
    fn a_summary_holds_the_ends_and_the_middle() {
        assert_eq!(Summary::of(vec![]), None);
        let summary = Summary::of(vec![5.0, 1.0, 9.0]).unwrap();
        assert_eq!(summary, Summary { median: 5.0, min: 1.0, max: 9.0 });
    }
}
