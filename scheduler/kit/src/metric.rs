//! Prometheus metrics of the API: requests by service, method and status class, and their time.
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    service: String,
    method: String,
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    service: String,
}

/// The one registry of the process; other parts add their own collectors to it.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Labels, Counter>,
    seconds: Family<ServiceLabel, Histogram>,
    pub(crate) in_flight: Gauge,
    /// Events that no sink took.
    pub(crate) events_lost: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pilvi");
        let requests = Family::<Labels, Counter>::default();
        let seconds = Family::<ServiceLabel, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        let (in_flight, events_lost) = (Gauge::default(), Gauge::default());
        registry.register("api_requests", "API requests answered", requests.clone());
        registry.register("api_seconds", "Time to answer, in seconds", seconds.clone());
        registry.register("api_in_flight", "API requests under way", in_flight.clone());
        registry.register("events_lost", "Notifications and audit events that a sink lost", events_lost.clone());
        Metrics { registry: Mutex::new(registry), requests, seconds, in_flight, events_lost }
    }
}

impl Metrics {
    /// For other parts to register theirs.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock());
    }

    pub(crate) fn answered(&self, service: &str, method: &http::Method, status: u16, took: Duration) {
        // A client may invent methods: only the usual ones become labels.
        let method = match *method {
            http::Method::GET
            | http::Method::POST
            | http::Method::PUT
            | http::Method::PATCH
            | http::Method::DELETE
            | http::Method::HEAD => method.as_str(),
            _ => "other",
        };
        let labels = Labels { service: service.into(), method: method.into(), status: u32::from(status) };
        self.requests.get_or_create(&labels).inc();
        self.seconds.get_or_create(&ServiceLabel { service: service.into() }).observe(took.as_secs_f64());
    }

    /// The text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry.lock())?;
        Ok(out)
    }
}
