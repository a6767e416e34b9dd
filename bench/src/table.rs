//! The table that a comparison prints.

use std::fmt::Write;

use clap::ValueEnum;

use crate::compare::{FOREIGN_MAX, Record};
use crate::measure::{Cost, Figure, Measurement, Outcome, Unit};
use crate::peers::PeerName;
use crate::statistics::Summary;
use crate::workloads::WorkloadName;

/// The peer that the table is about: the others are measured to be compared with it.
const OWN: PeerName = PeerName::Mainspring;
/// The same in another way, which is no other peer: it is compared with [`OWN`].
const OWN_OTHERWISE: [PeerName; 2] = [PeerName::MainspringOff, PeerName::MainspringCompat];

pub(crate) fn render(records: &[Record]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n{:<24} {:<16} {:<14} {:>25} {:<31} {:>11} {:>11} {:>11}",
        "workload",
        "figure",
        "peer",
        "median (min..max)",
        "  x best other (min..max)",
        "wall/op",
        "CPU/op",
        "switches/op",
    );
    for &workload in WorkloadName::value_variants() {
        let records: Vec<&Record> = records.iter().filter(|record| record.workload == workload).collect();
        render_workload(&mut text, workload, &records);
    }
    let _ = writeln!(
        text,
        "\nx: in terms of the best peer but {OWN}, which is named, and what begins with that name in terms of {OWN}; \
         the median of the ratios within a round; above 1 is better, also where less is better.",
    );
    text.push_str(&warning(records));
    text
}

fn render_workload(text: &mut String, workload: WorkloadName, records: &[&Record]) {
    let mut names: Vec<&str> = Vec::new();
    for figure in records.iter().filter_map(|record| measured(record)).flat_map(|m| &m.figures) {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    for name in names {
        let best = best_other(records, name);
        let own = of_peer(records, OWN);
        for &peer in PeerName::value_variants() {
            let base =
                if OWN_OTHERWISE.contains(&peer) && !own.is_empty() { Some(&own) } else { best.as_ref() };
            render_line(text, workload, name, &of_peer(records, peer), base.map(Vec::as_slice));
        }
    }
    for &peer in PeerName::value_variants() {
        let skipped = of_peer(records, peer).into_iter().find_map(|record| match &record.outcome {
            Outcome::Skipped(reason) => Some(reason),
            Outcome::Measured(_) => None,
        });
        if let Some(reason) = skipped {
            let _ = writeln!(
                text,
                "{:<24} {:<16} {:<14} skipped: {reason}",
                workload.to_string(),
                "",
                peer.to_string()
            );
        }
    }
}

/// A figure of one peer, whose records these are, in terms of the base's.
fn render_line(
    text: &mut String,
    workload: WorkloadName,
    name: &str,
    records: &[&Record],
    base: Option<&[&Record]>,
) {
    let figures: Vec<&Figure> = records.iter().filter_map(|record| figure(record, name)).collect();
    let Some(values) = Summary::of(figures.iter().map(|figure| figure.value).collect()) else { return };
    let (peer, unit) = (records[0].peer, figures[0].unit);
    let show = |value| show(value, unit);
    let _ = write!(
        text,
        "{:<24} {name:<16} {:<14} {:>25} {:<31}",
        workload.to_string(),
        peer.to_string(),
        format!("{} ({}..{})", show(values.median), show(values.min), show(values.max)),
        base.map_or_else(String::new, |base| show_ratios(records, base, name)),
    );
    let measurements: Vec<&Measurement> = records.iter().filter_map(|record| measured(record)).collect();
    if measurements[0].figures[0].name == name {
        let median = |part: fn(&Cost) -> f64| {
            Summary::of(measurements.iter().map(|m| part(&m.cost)).collect()).map_or(0.0, |s| s.median)
        };
        let _ = write!(
            text,
            " {:>11} {:>11} {:>11.4}",
            self::show(median(|cost| cost.wall_ns), Unit::Nanoseconds),
            self::show(median(|cost| cost.cpu_ns), Unit::Nanoseconds),
            median(|cost| cost.context_switches),
        );
    }
    text.push('\n');
}

/// How one peer did in terms of another, round by round.
fn show_ratios(records: &[&Record], base: &[&Record], name: &str) -> String {
    let peer = base[0].peer;
    if records[0].peer == peer {
        return String::new();
    }
    let ratios = records.iter().filter_map(|record| {
        let own = figure(record, name)?;
        let base = figure(base.iter().find(|base| base.round == record.round)?, name)?;
        own.unit.ratio(own.value, base.value)
    });
    Summary::of(ratios.collect())
        .map_or_else(String::new, |x| format!("{:>6.2} ({:.2}..{:.2}) {peer}", x.median, x.min, x.max))
}

/// The records of the peer whose median of a figure is the best, [`OWN`] left out; those of one of
/// [`OWN_OTHERWISE`] if there is no other.
fn best_other<'a>(records: &[&'a Record], name: &str) -> Option<Vec<&'a Record>> {
    let others =
        PeerName::value_variants().iter().filter(|&&peer| peer != OWN && !OWN_OTHERWISE.contains(&peer));
    let with_median = others.filter_map(|&peer| {
        let own = of_peer(records, peer);
        let figures: Vec<&Figure> = own.iter().filter_map(|record| figure(record, name)).collect();
        let unit = figures.first()?.unit;
        let median = Summary::of(figures.iter().map(|figure| figure.value).collect())?.median;
        Some((unit, median, own))
    });
    let best = with_median
        .reduce(|best, next| if next.0.ratio(next.1, best.1).is_some_and(|x| x > 1.0) { next } else { best });
    best.map(|(_, _, records)| records).or_else(|| {
        let mut otherwise = OWN_OTHERWISE.iter().map(|&peer| of_peer(records, peer));
        otherwise.find(|records| records.iter().any(|record| figure(record, name).is_some()))
    })
}

fn of_peer<'a>(records: &[&'a Record], peer: PeerName) -> Vec<&'a Record> {
    records.iter().copied().filter(|record| record.peer == peer).collect()
}

fn figure<'a>(record: &'a Record, name: &str) -> Option<&'a Figure> {
    measured(record)?.figures.iter().find(|figure| figure.name == name)
}

fn measured(record: &Record) -> Option<&Measurement> {
    match &record.outcome {
        Outcome::Measured(measurement) => Some(measurement),
        Outcome::Skipped(_) => None,
    }
}

fn warning(records: &[Record]) -> String {
    let disturbed = records.iter().filter(|record| record.foreign > FOREIGN_MAX).count();
    if disturbed == 0 {
        return String::new();
    }
    let most = records.iter().map(|record| record.foreign).fold(0.0, f64::max);
    format!(
        "WARNING: the machine was busy: in {disturbed} of {} measurements other processes used more than \
         {:.0} % of it, up to {:.0} %.\n",
        records.len(),
        FOREIGN_MAX * 100.0,
        most * 100.0,
    )
}

/// Three digits and a unit.
fn show(value: f64, unit: Unit) -> String {
    let (steps, units): (&[f64], &[&str]) = match unit {
        Unit::PerSecond => (&[1.0, 1e3, 1e6, 1e9], &["/s", "k/s", "M/s", "G/s"]),
        Unit::Nanoseconds | Unit::NanosecondsAdded => (&[1.0, 1e3, 1e6, 1e9], &["ns", "us", "ms", "s"]),
        Unit::Bytes => (&[1.0, 1e3, 1e6, 1e9], &["B", "kB", "MB", "GB"]),
        Unit::Part | Unit::Count => (&[1.0, 1e3, 1e6, 1e9], &["", "k", "M", "G"]),
    };
    let index = steps.iter().rposition(|&step| value.abs() >= step).unwrap_or(0);
    let scaled = value / steps[index];
    let digits = if scaled.abs() < 10.0 { 2 } else { usize::from(scaled.abs() < 100.0) };
    format!("{scaled:.digits$}{}", units[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(round: u32, peer: PeerName, value: f64) -> Record {
        let figures = vec![Figure { name: "rate".to_owned(), value, unit: Unit::PerSecond }];
        let cost = Cost { wall_ns: 1.0, cpu_ns: 2.0, context_switches: 0.5 };
        let outcome = Outcome::Measured(Measurement { figures, cost });
        Record { round, workload: WorkloadName::Echo, peer, foreign: 0.0, outcome }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine became ten times slower in the second round; the medians alone would say 0.2.
        let mut records = vec![
            record(0, PeerName::Tokio, 1e6),
            record(0, PeerName::Mainspring, 2e6),
            record(1, PeerName::Tokio, 1e5),
            record(1, PeerName::Mainspring, 2e5),
        ];
        let text = render(&records);
        assert!(text.contains("2.00 (2.00..2.00) tokio"), "{text}");
        assert!(text.contains("100k/s (100k/s..1.00M/s)"), "{text}");
        assert!(!text.contains("WARNING"), "{text}");
        records[3].foreign = 0.5;
        assert!(render(&records).contains("in 1 of 4 measurements"));
    }

    #[test]
    fn the_base_is_the_best_of_the_others() {
        let text = render(&[
            record(0, PeerName::Tokio, 2e6),
            record(0, PeerName::Smol, 4e6),
            record(0, PeerName::Mainspring, 8e6),
        ]);
        assert!(text.contains("0.50 (0.50..0.50) smol"), "{text}");
        assert!(text.contains("2.00 (2.00..2.00) smol"), "{text}");
        assert_eq!(text.matches(") smol").count(), 2, "the base has no ratio: {text}");
    }

    #[test]
    fn what_is_no_other_peer_is_compared_with_the_own_one() {
        let own = record(0, PeerName::Mainspring, 4e6);
        let without = record(0, PeerName::MainspringOff, 8e6);
        let text = render(&[record(0, PeerName::Tokio, 2e6), own, without]);
        assert!(text.contains("2.00 (2.00..2.00) tokio"), "{text}");
        assert!(text.contains("2.00 (2.00..2.00) mainspring "), "{text}");
        let own = record(0, PeerName::Mainspring, 4e6);
        let without = record(0, PeerName::MainspringOff, 8e6);
        let text = render(&[own, without]);
        assert!(text.contains("0.50 (0.50..0.50) mainspring-off"), "{text}");
    }

    #[test]
    fn a_peer_that_was_skipped_says_why_beside_one_that_was_not() {
        let mut skipped = record(0, PeerName::Go, 1.0);
        skipped.outcome = Outcome::Skipped("no go".to_owned());
        let text = render(&[record(0, PeerName::Mainspring, 1e6), skipped]);
        assert!(text.contains("skipped: no go"), "{text}");
        assert!(text.contains("1.00M/s"), "{text}");
    }

    #[test]
    fn values_have_three_digits() {
        assert_eq!(show(0.5, Unit::Nanoseconds), "0.50ns");
        assert_eq!(show(51_234.0, Unit::Nanoseconds), "51.2us");
        assert_eq!(show(-418.01, Unit::NanosecondsAdded), "-418ns");
        assert_eq!(show(999_000.0, Unit::PerSecond), "999k/s");
        assert_eq!(show(3.456e6, Unit::PerSecond), "3.46M/s");
        assert_eq!(show(0.913, Unit::Part), "0.91");
        assert_eq!(show(12.0, Unit::Count), "12.0");
    }
}
