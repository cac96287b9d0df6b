//! Typed metric handles and the macro that makes them from the table.

use std::marker::PhantomData;

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, Opts, Registry};

use crate::labels::LabelSet;

/// A number that only grows.
#[derive(Clone, Debug)]
pub struct Counter<L>(IntCounterVec, PhantomData<fn(L)>);

/// A number that goes both ways.
#[derive(Clone, Debug)]
pub struct Gauge<L>(GaugeVec, PhantomData<fn(L)>);

/// A distribution of durations in seconds.
#[derive(Clone, Debug)]
pub struct Histogram<L>(HistogramVec, PhantomData<fn(L)>);

impl<L: LabelSet> Counter<L> {
    /// Counts one.
    pub fn inc(&self, labels: L) {
        self.add(labels, 1);
    }

    /// Counts `n`.
    pub fn add(&self, labels: L, n: u64) {
        labels.with(|values| self.0.with_label_values(values).inc_by(n));
    }

    /// The count so far.
    pub fn get(&self, labels: L) -> u64 {
        labels.with(|values| self.0.with_label_values(values).get())
    }
}

impl<L: LabelSet> Gauge<L> {
    /// Replaces the value.
    pub fn set(&self, labels: L, value: f64) {
        labels.with(|values| self.0.with_label_values(values).set(value));
    }

    /// Replaces the value with a count. Above 2^53 the last digits are lost, as everywhere in Prometheus.
    pub fn set_count(&self, labels: L, count: u64) {
        self.set(labels, count as f64);
    }

    /// Adds `delta`, which may be negative.
    pub fn add(&self, labels: L, delta: f64) {
        labels.with(|values| self.0.with_label_values(values).add(delta));
    }

    /// The value.
    pub fn get(&self, labels: L) -> f64 {
        labels.with(|values| self.0.with_label_values(values).get())
    }

    /// Takes the series out of the exposition: what it measured is not known any more.
    pub fn forget(&self, labels: L) {
        // An error means that the series was never there.
        let _ = labels.with(|values| self.0.remove_label_values(values));
    }
}

impl<L: LabelSet> Histogram<L> {
    /// Notes one duration.
    pub fn observe(&self, labels: L, seconds: f64) {
        labels.with(|values| self.0.with_label_values(values).observe(seconds));
    }

    /// How many durations were noted.
    pub fn count(&self, labels: L) -> u64 {
        labels.with(|values| self.0.with_label_values(values).get_sample_count())
    }
}

/// A distribution of short durations in seconds: what a disk takes.
#[derive(Clone, Debug)]
pub struct DiskHistogram<L>(Histogram<L>);

impl<L: LabelSet> DiskHistogram<L> {
    /// Notes one duration.
    pub fn observe(&self, labels: L, seconds: f64) {
        self.0.observe(labels, seconds);
    }

    /// How many durations were noted.
    pub fn count(&self, labels: L) -> u64 {
        self.0.count(labels)
    }
}

/// What kind of metric a row makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Distribution.
    Histogram,
}

impl MetricKind {
    /// Name as in the exposition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One row of the table, for the manual.
#[derive(Clone, Debug)]
pub struct Row {
    /// Full name in the exposition.
    pub name: &'static str,
    /// Kind of metric.
    pub kind: MetricKind,
    /// Label names, each with the values it can take (none: names from the configuration).
    pub labels: Vec<(&'static str, Vec<&'static str>)>,
    /// What it tells the operator.
    pub help: &'static str,
}

/// Something that a row of the table can register.
pub(crate) trait Handle: Sized {
    const KIND: MetricKind;

    fn register(registry: &Registry, name: &str, labels: &[&str], help: &str) -> Self;
}

const UNIQUE: &str = "the table holds each name once, and names and labels are literals that a test registers";

impl<L: LabelSet> Handle for Counter<L> {
    const KIND: MetricKind = MetricKind::Counter;

    fn register(registry: &Registry, name: &str, labels: &[&str], help: &str) -> Self {
        let vec = IntCounterVec::new(Opts::new(name, help), labels).expect(UNIQUE);
        L::combinations().iter().for_each(|values| drop(vec.with_label_values(values)));
        registry.register(Box::new(vec.clone())).expect(UNIQUE);
        Self(vec, PhantomData)
    }
}

impl<L: LabelSet> Handle for Gauge<L> {
    const KIND: MetricKind = MetricKind::Gauge;

    fn register(registry: &Registry, name: &str, labels: &[&str], help: &str) -> Self {
        let vec = GaugeVec::new(Opts::new(name, help), labels).expect(UNIQUE);
        L::combinations().iter().for_each(|values| drop(vec.with_label_values(values)));
        registry.register(Box::new(vec.clone())).expect(UNIQUE);
        Self(vec, PhantomData)
    }
}

/// From a radio's best round trip to the longest wait an urgent message should see: 20 ms to 20 minutes.
const SECONDS_BUCKETS: [f64; 15] =
    [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1_200.0];

/// From a disk with a battery behind its cache to one that is dying: 0.1 ms to 5 s.
const DISK_BUCKETS: [f64; 15] =
    [0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

impl<L: LabelSet> Handle for Histogram<L> {
    const KIND: MetricKind = MetricKind::Histogram;

    fn register(registry: &Registry, name: &str, labels: &[&str], help: &str) -> Self {
        Self::with_buckets(registry, name, labels, help, &SECONDS_BUCKETS)
    }
}

impl<L: LabelSet> Handle for DiskHistogram<L> {
    const KIND: MetricKind = MetricKind::Histogram;

    fn register(registry: &Registry, name: &str, labels: &[&str], help: &str) -> Self {
        Self(Histogram::with_buckets(registry, name, labels, help, &DISK_BUCKETS))
    }
}

impl<L: LabelSet> Histogram<L> {
    fn with_buckets(registry: &Registry, name: &str, labels: &[&str], help: &str, buckets: &[f64]) -> Self {
        let opts = prometheus::HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let vec = HistogramVec::new(opts, labels).expect(UNIQUE);
        L::combinations().iter().for_each(|values| drop(vec.with_label_values(values)));
        registry.register(Box::new(vec.clone())).expect(UNIQUE);
        Self(vec, PhantomData)
    }
}

/// Turns rows `name: Kind [label: Type, ...] "help"` into the struct of handles, its registration and the manual's rows.
macro_rules! metrics {
    ($($name:ident: $kind:ident [$($label:ident: $ty:ty),*] $help:literal,)*) => {
        /// Every metric of one node, and the registry they live in.
        #[derive(Debug)]
        pub struct Metrics {
            registry: prometheus::Registry,
            $(#[doc = $help] pub $name: crate::metric::$kind<($($ty,)*)>,)*
        }

        impl Metrics {
            fn register(registry: prometheus::Registry) -> Self {
                use crate::metric::Handle as _;
                $(let $name = crate::metric::$kind::register(
                    &registry,
                    concat!("holdfast_", stringify!($name)),
                    &[$(stringify!($label)),*],
                    $help,
                );)*
                Self { registry, $($name,)* }
            }

            /// The table, in its order.
            pub fn rows() -> Vec<crate::metric::Row> {
                vec![$(crate::metric::Row {
                    name: concat!("holdfast_", stringify!($name)),
                    kind: <crate::metric::$kind<($($ty,)*)> as crate::metric::Handle>::KIND,
                    labels: vec![$((
                        stringify!($label),
                        <$ty as crate::labels::LabelValue>::values(),
                    )),*],
                    help: $help,
                },)*]
            }
        }
    };
}
pub(crate) use metrics;
