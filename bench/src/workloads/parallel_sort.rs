//! Merge sort of 4 million numbers: a task for one half, the other half in the task itself, down to 20,000 numbers or
//! less, which are sorted at once. How long it takes, the copy of the unsorted numbers included. It is what many
//! short computations take that wait for each other, with some long ones in the end.

use std::pin::Pin;

use super::{Plan, in_batches};
use crate::measure::{Figure, Measurement};
use crate::peers::Peer;

const NUMBERS: usize = 4_000_000;
const GRAIN: usize = 20_000;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    let mut random = fastrand::Rng::with_seed(1);
    let numbers: Vec<u64> = (0..NUMBERS).map(|_| random.u64(..)).collect();
    peer.run(async move {
        // The first sort, which does not count, is the one that is checked.
        assert!(sort::<P>(numbers.clone()).await.is_sorted(), "the numbers are not sorted");
        let batch = || async { drop(sort::<P>(numbers.clone()).await) };
        let mut measurement = in_batches(plan, 1, batch).await;
        measurement.figures = vec![Figure::nanoseconds("sorted", measurement.cost.wall_ns)];
        measurement
    })
}

fn sort<P: Peer>(mut numbers: Vec<u64>) -> Pin<Box<dyn Future<Output = Vec<u64>> + Send>> {
    Box::pin(async move {
        if numbers.len() <= GRAIN {
            numbers.sort_unstable();
            return numbers;
        }
        let upper = P::spawn(sort::<P>(numbers.split_off(numbers.len() / 2)));
        let lower = sort::<P>(numbers).await;
        merge(&lower, &upper.await.expect("the task of the other half"))
    })
}

fn merge<'a>(mut left: &'a [u64], mut right: &'a [u64]) -> Vec<u64> {
    let mut merged = Vec::with_capacity(left.len() + right.len());
    while let (Some(a), Some(b)) = (left.first(), right.first()) {
        let next = if a <= b { &mut left } else { &mut right };
        merged.push(next[0]);
        *next = &next[1..];
    }
    merged.extend_from_slice(left);
    merged.extend_from_slice(right);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_merged_is_sorted_and_complete() {
        assert_eq!(merge(&[1, 4, 4, 9], &[0, 4, 10, 11]), [0, 1, 4, 4, 4, 9, 10, 11]);
        assert_eq!(merge(&[], &[1]), [1]);
        assert_eq!(merge(&[2], &[]), [2]);
    }
}
