//! Series of single subscriptions and consumers, made anew for each scrape: so those of what is gone are
//! gone with it, which the recorder does not do.
//!
//! # Invariants
//!
//! - A label set comes once: consumers of one name, of several tenants, are one series with the worst of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use punchline_runtime::dispatch::figures::Figures;
use punchline_runtime::node::Node;

/// Most subscriptions with series of their own.
const SUBSCRIPTIONS_MAX: usize = 1_000;
/// Most consumers with series of their own.
const CONSUMERS_MAX: usize = 100;

/// The series, as Prometheus reads them. May read the journal: not for async tasks.
pub(super) fn of(node: &Node, per_subscription: bool) -> String {
    let mut text = String::new();
    if per_subscription {
        subscriptions(&mut text, &node.dispatcher().figures(SUBSCRIPTIONS_MAX, |_| true));
    }
    consumers(&mut text, &node.dispatcher().figures(CONSUMERS_MAX, |consumer| !consumer.is_empty()));
    text
}

fn subscriptions(text: &mut String, figures: &[Figures]) {
    let series = |of: fn(&Figures) -> f64| figures.iter().map(move |f| (f.id.to_string(), of(f))).collect();
    let pending = series(|f| f.pending as f64);
    family(text, "subscription_pending_events", "Events that match and are not delivered.", "subscription", pending);
    let dead = series(|f| f.dead_letters as f64);
    family(text, "subscription_dead_letters", "Deliveries given up, to be redriven.", "subscription", dead);
    let oldest = series(|f| f.oldest_pending_ms as f64 / 1_000.0);
    let help = "Age of the oldest event that is pending.";
    family(text, "subscription_oldest_pending_seconds", help, "subscription", oldest);
}

fn consumers(text: &mut String, figures: &[Figures]) {
    let mut worst: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for figures in figures {
        let lag = worst.entry(&figures.consumer).or_default();
        *lag = (lag.0.max(figures.lag_events), lag.1.max(figures.oldest_pending_ms));
    }
    let events = worst.iter().map(|(name, lag)| ((*name).to_owned(), lag.0 as f64)).collect();
    let help = "Positions of the journal between a consumer and the head, while it has something to do.";
    family(text, "consumer_lag_events", help, "consumer", events);
    let seconds = worst.iter().map(|(name, lag)| ((*name).to_owned(), lag.1 as f64 / 1_000.0)).collect();
    let help = "Age of the oldest event that a consumer has not done.";
    family(text, "consumer_lag_seconds", help, "consumer", seconds);
}

/// A gauge with a series for each value of `label`.
fn family(text: &mut String, name: &str, help: &str, label: &str, series: Vec<(String, f64)>) {
    if series.is_empty() {
        return;
    }
    let mut write = |line: std::fmt::Arguments<'_>| text.write_fmt(line).expect("a String grows");
    write(format_args!("# HELP punchline_{name} {help}\n# TYPE punchline_{name} gauge\n"));
    for (value, figure) in series {
        let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
        write(format_args!("punchline_{name}{{{label}=\"{value}\"}} {figure}\n"));
    }
}

#[cfg(test)]
mod tests {
    use punchline_engine::id::SubscriptionId;

    use super::*;

    #[test]
    fn series_are_what_prometheus_reads() {
        let figures = |n: u128, consumer: &str, pending, oldest_pending_ms| Figures {
            id: SubscriptionId(format!("{n:032x}").parse().expect("a UUID")),
            consumer: consumer.into(),
            pending,
            dead_letters: 7,
            lag_events: pending,
            oldest_pending_ms,
        };
        let all = [figures(1, "", 0, 0), figures(2, "a\"b", 5, 1_500), figures(3, "a\"b", 3, 2_500)];
        let mut text = String::new();
        subscriptions(&mut text, &all);
        let one = "subscription=\"00000000-0000-0000-0000-000000000002\"";
        for line in [
            "# TYPE punchline_subscription_pending_events gauge".to_owned(),
            format!("punchline_subscription_pending_events{{{one}}} 5"),
            format!("punchline_subscription_dead_letters{{{one}}} 7"),
            format!("punchline_subscription_oldest_pending_seconds{{{one}}} 1.5"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        let mut text = String::new();
        consumers(&mut text, &all[1..]);
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            series,
            [
                r#"punchline_consumer_lag_events{consumer="a\"b"} 5"#,
                r#"punchline_consumer_lag_seconds{consumer="a\"b"} 2.5"#
            ]
        );
    }
}
