//! Prometheus' text format, version 0.0.4: what a scrape is answered with.
//!
//! Source: "Exposition formats" of the Prometheus documentation.

use std::fmt::Write;

use longshore_core::histogram::Histogram;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds in microseconds and as labels say them in seconds: from a cold cache to Lambda's longest invocation.
const BOUNDS: [(u64, &str); 20] = [
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
    (60_000_000, "60"),
    (120_000_000, "120"),
    (300_000_000, "300"),
    (900_000_000, "900"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric, and what it tells.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// The document, metric by metric.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a metric; its samples follow, and no other's between them.
    pub fn metric(&mut self, metric: &'static Metric) -> Samples<'_> {
        let Metric { name, kind, help } = metric;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
        Samples { text: self, metric }
    }

    pub fn finish(self) -> String {
        self.0
    }

    fn sample(
        &mut self,
        (name, suffix): (&str, &str),
        labels: Labels<'_>,
        bound: Option<&str>,
        value: impl std::fmt::Display,
    ) {
        let _ = write!(self.0, "{name}{suffix}");
        let bound = bound.map(|bound| ("le", bound));
        for (place, (label, value)) in labels.iter().copied().chain(bound).enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{value}\"", if place == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() || bound.is_some() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

/// The samples of one metric.
pub struct Samples<'a> {
    text: &'a mut Text,
    metric: &'static Metric,
}

impl Samples<'_> {
    pub fn count(self, labels: Labels<'_>, value: u64) -> Self {
        debug_assert_ne!(self.metric.kind, Kind::Histogram);
        self.text.sample((self.metric.name, ""), labels, None, value);
        self
    }

    /// A number that is not a count: seconds, mostly.
    pub fn number(self, labels: Labels<'_>, value: f64) -> Self {
        debug_assert_ne!(self.metric.kind, Kind::Histogram);
        self.text.sample((self.metric.name, ""), labels, None, value);
        self
    }

    /// Times in seconds. Next to a bound one may be counted on its other side, if it is within three in a hundred of it.
    pub fn times(self, labels: Labels<'_>, times: &Histogram) -> Self {
        let counts = BOUNDS.map(|(micros, _)| times.at_most(micros));
        let bounds = BOUNDS.map(|(_, bound)| bound);
        self.histogram(labels, bounds.into_iter().zip(counts), times.count(), times.sum_us())
    }

    /// Counts up to each bound, of all, and the sum in microseconds.
    pub fn histogram<B: AsRef<str>>(
        self,
        labels: Labels<'_>,
        at_most: impl IntoIterator<Item = (B, u64)>,
        count: u64,
        sum_us: u64,
    ) -> Self {
        debug_assert_eq!(self.metric.kind, Kind::Histogram);
        let name = self.metric.name;
        for (bound, counted) in at_most {
            self.text.sample((name, "_bucket"), labels, Some(bound.as_ref()), counted);
        }
        self.text.sample((name, "_bucket"), labels, Some("+Inf"), count);
        self.text.sample((name, "_sum"), labels, None, seconds(sum_us));
        self.text.sample((name, "_count"), labels, None, count);
        self
    }
}

pub fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_and_help_are_escaped_and_a_histogram_counts_up() {
        static ONE: Metric = Metric { name: "a_total", kind: Kind::Counter, help: "one\\two\nthree" };
        static TIMES: Metric = Metric { name: "t_seconds", kind: Kind::Histogram, help: "Times." };
        let mut text = Text::default();
        text.metric(&ONE).count(&[], 3).count(&[("l", "a\"b\\c\nd"), ("m", "")], 4);
        text.metric(&TIMES).histogram(&[("s", "x")], [("0.1", 1), ("2.5", 2)], 3, 12_345_678);
        let wanted = "# HELP a_total one\\\\two\\nthree\n# TYPE a_total counter\na_total 3\n\
                      a_total{l=\"a\\\"b\\\\c\\nd\",m=\"\"} 4\n\
                      # HELP t_seconds Times.\n# TYPE t_seconds histogram\n\
                      t_seconds_bucket{s=\"x\",le=\"0.1\"} 1\nt_seconds_bucket{s=\"x\",le=\"2.5\"} 2\n\
                      t_seconds_bucket{s=\"x\",le=\"+Inf\"} 3\nt_seconds_sum{s=\"x\"} 12.345678\nt_seconds_count{s=\"x\"} 3\n";
        assert_eq!(text.finish(), wanted);
    }

    #[test]
    fn bounds_are_what_their_labels_say() {
        for (micros, label) in BOUNDS {
            assert_eq!(label.parse::<f64>().unwrap(), seconds(micros));
        }
        assert!(BOUNDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
