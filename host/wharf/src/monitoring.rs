//! What is counted and measured, in the form that Prometheus reads (text exposition format 0.0.4).
//!
//! Connections record by the `metrics` facade; what the runtime counts of services is taken over when somebody asks.
//! What is no longer deployed or configured is no longer told.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use wharf_runtime::ServiceStatus;

/// Of the answer.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds in seconds: from an operation on a local folder to an upload of gigabytes.
const SECONDS: [f64; 12] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];

/// How often what was recorded is summed up when nobody asks; until then each value is kept.
const SUM_UP_EVERY: Duration = Duration::from_secs(5);

/// All that was recorded in this process.
pub(crate) struct Metrics {
    recorded: PrometheusHandle,
}

impl Metrics {
    /// Begins to record. Must be called within a tokio runtime, once in a process.
    ///
    /// # Errors
    /// When something else records already.
    pub(crate) fn start() -> Result<Self, BuildError> {
        let recorded = PrometheusBuilder::new().set_buckets(&SECONDS)?.install_recorder()?;
        describe();
        let summed_up = recorded.clone();
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(SUM_UP_EVERY);
            loop {
                interval.tick().await;
                summed_up.run_upkeep();
            }
        });
        Ok(Self { recorded })
    }

    /// The text for Prometheus, with what concerns these services and the configured connections.
    pub(crate) fn text(&self, services: Vec<ServiceStatus>, is_configured: impl Fn(&str) -> bool) -> String {
        let recorded = self.recorded.render();
        let lines = recorded.split_inclusive('\n');
        let mut text: String = lines.filter(|line| connection_of(line).is_none_or(&is_configured)).collect();
        text.push_str(&told_of(services));
        text
    }
}

/// The connection that a line is about. No name has a character that would be escaped.
fn connection_of(line: &str) -> Option<&str> {
    let (name, _) = line.split_once("connection=\"")?.1.split_once('"')?;
    Some(name)
}

/// Recorded for this once: the runtime keeps the numbers, as long as there is the service.
fn told_of(services: Vec<ServiceStatus>) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        metrics::describe_counter!("wharf_service_invocations_total", "Invocations begun.");
        metrics::describe_counter!("wharf_service_failures_total", "Invocations that failed, by whomever's fault.");
        metrics::describe_gauge!("wharf_service_in_flight", "Invocations running or waiting.");
        for service in services {
            let labels = [("service", service.name)];
            metrics::counter!("wharf_service_invocations_total", &labels).absolute(service.invocations);
            metrics::counter!("wharf_service_failures_total", &labels).absolute(service.failures);
            metrics::gauge!("wharf_service_in_flight", &labels).set(service.in_flight as f64);
        }
    });
    recorder.handle().render()
}

fn describe() {
    metrics::describe_histogram!("wharf_connection_operation_seconds", "How long operations on connections took.");
    metrics::describe_counter!("wharf_connection_operations_total", "Operations on connections, by their outcome.");
    metrics::describe_counter!("wharf_connection_bytes_total", "Bytes of content read and written.");
}
