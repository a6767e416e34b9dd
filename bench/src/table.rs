//! The table that a comparison prints.

use std::fmt::Write;

use clap::ValueEnum;

use crate::compare::{FOREIGN_MAX, Record};
use crate::measure::{Cost, Figure, Measurement, Outcome, Unit};
use crate::peers::PeerName;
use crate::statistics::Summary;
use crate::workloads::WorkloadName;

const BASE: PeerName = PeerName::Tokio;

pub(crate) fn render(records: &[Record]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n{:<14} {:<10} {:<11} {:>25} {:>22} {:>11} {:>11} {:>11}",
        "workload",
        "figure",
        "peer",
        "median (min..max)",
        format!("x {BASE} (min..max)"),
        "wall/op",
        "CPU/op",
        "switches/op",
    );
    for &workload in WorkloadName::value_variants() {
        let records: Vec<&Record> = records.iter().filter(|record| record.workload == workload).collect();
        if !records.is_empty() {
            render_workload(&mut text, workload, &records);
        }
    }
    text.push_str(
        "\nx: the median of the ratios within a round; above 1 is better, also where less is better.\n",
    );
    text.push_str(&warning(records));
    text
}

fn render_workload(text: &mut String, workload: WorkloadName, records: &[&Record]) {
    if let Some(reason) = records.iter().find_map(|record| match &record.outcome {
        Outcome::Skipped(reason) => Some(reason),
        Outcome::Measured(_) => None,
    }) {
        let _ = writeln!(text, "{workload:<14} skipped: {reason}");
        return;
    }
    let figures = records.iter().find_map(|record| measured(record)).map_or(0, |m| m.figures.len());
    for index in 0..figures {
        for &peer in PeerName::value_variants() {
            let own: Vec<&Record> = records.iter().copied().filter(|record| record.peer == peer).collect();
            let ratios = if peer == BASE { None } else { ratios(records, peer, index) };
            render_line(text, workload, index, &own, ratios);
        }
    }
}

fn render_line(
    text: &mut String,
    workload: WorkloadName,
    index: usize,
    records: &[&Record],
    ratios: Option<Summary>,
) {
    let measurements: Vec<&Measurement> = records.iter().filter_map(|record| measured(record)).collect();
    let Some(figure) = measurements.first().and_then(|m| m.figures.get(index)) else { return };
    let values = measurements.iter().filter_map(|m| m.figures.get(index)).map(|figure| figure.value);
    let Some(values) = Summary::of(values.collect()) else { return };
    let show = |value| show(value, figure.unit);
    let _ = write!(
        text,
        "{:<14} {:<10} {:<11} {:>25} {:>22}",
        workload.to_string(),
        figure.name,
        records[0].peer.to_string(),
        format!("{} ({}..{})", show(values.median), show(values.min), show(values.max)),
        ratios.map_or_else(String::new, |x| format!("{:.2} ({:.2}..{:.2})", x.median, x.min, x.max)),
    );
    if index == 0 {
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

/// How `peer` did in terms of the base, round by round.
fn ratios(records: &[&Record], peer: PeerName, index: usize) -> Option<Summary> {
    let figure = |peer, round| -> Option<&Figure> {
        let record = records.iter().find(|record| record.peer == peer && record.round == round)?;
        measured(record)?.figures.get(index)
    };
    let rounds = records.iter().filter(|record| record.peer == peer).map(|record| record.round);
    let ratios = rounds.filter_map(|round| Some(figure(peer, round)?.ratio_to(figure(BASE, round)?)));
    Summary::of(ratios.collect())
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
        Unit::Nanoseconds => (&[1.0, 1e3, 1e6, 1e9], &["ns", "us", "ms", "s"]),
    };
    let index = steps.iter().rposition(|&step| value >= step).unwrap_or(0);
    let scaled = value / steps[index];
    let digits = if scaled < 10.0 { 2 } else { usize::from(scaled < 100.0) };
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
        assert!(text.contains("2.00 (2.00..2.00)"), "{text}");
        assert!(text.contains("100k/s (100k/s..1.00M/s)"), "{text}");
        assert!(!text.contains("WARNING"), "{text}");
        records[3].foreign = 0.5;
        assert!(render(&records).contains("in 1 of 4 measurements"));
    }

    #[test]
    fn a_skipped_workload_says_why() {
        let mut record = record(0, PeerName::Tokio, 1.0);
        record.outcome = Outcome::Skipped("no wrk".to_owned());
        assert!(render(&[record]).contains("skipped: no wrk"));
    }

    #[test]
    fn values_have_three_digits() {
        assert_eq!(show(0.5, Unit::Nanoseconds), "0.50ns");
        assert_eq!(show(51_234.0, Unit::Nanoseconds), "51.2us");
        assert_eq!(show(999_000.0, Unit::PerSecond), "999k/s");
        assert_eq!(show(3.456e6, Unit::PerSecond), "3.46M/s");
    }
}
