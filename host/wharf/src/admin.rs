//! The operators' listener: health, readiness, what is deployed, and what is counted. Changes nothing.

use std::sync::Arc;

use http::{Method, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::sync::watch;
use wharf_runtime::{InvocationId, Response, Runtime, ServiceState, ServiceStatus};

use crate::config::Watch;
use crate::listener::Answer;
use crate::monitoring::{self, Metrics};
use crate::problem::{Problem, json, text};

const JSON: &str = "application/json";

/// Answers operators.
pub(crate) struct Admin {
    runtime: Runtime,
    configuration: Arc<Watch>,
    metrics: Metrics,
    stopping: watch::Receiver<bool>,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    /// Files that lay in the folder at the start and neither serve nor were refused yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct Services {
    services: Vec<Service>,
    /// Why the folder of services cannot be read at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    folder_error: Option<String>,
    /// Why the configuration as it is in its file is not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration_error: Option<String>,
}

/// A service as operators see it.
#[derive(Serialize)]
struct Service {
    name: String,
    state: &'static str,
    generation: Option<String>,
    component_bytes: Option<u64>,
    export: Option<&'static str>,
    deployed_at: Option<String>,
    last_error: Option<LastError>,
    last_failure: Option<LastFailure>,
    invocations: u64,
    failures: u64,
    in_flight: u64,
}

/// The newest version, when it does not serve.
#[derive(Serialize)]
struct LastError {
    at: String,
    generation: Option<String>,
    reason: String,
}

/// The last invocation that failed by the service's fault.
#[derive(Serialize)]
struct LastFailure {
    at: String,
    request_id: String,
    message: String,
    details: Option<String>,
}

impl Admin {
    pub(crate) fn new(
        runtime: Runtime,
        configuration: Arc<Watch>,
        metrics: Metrics,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { runtime, configuration, metrics, stopping }
    }

    fn route(&self, method: &Method, path: &str) -> Result<Response, Problem> {
        let answer: fn(&Self, &str) -> Result<Response, Problem> = match path {
            "/healthz" => |_, _| Ok(json(StatusCode::OK, &Health { status: "ok" }, JSON)),
            "/readyz" => |admin, _| Ok(admin.readiness()),
            "/metrics" => |admin, _| Ok(admin.metrics()),
            "/api/v1/services" => |admin, _| Ok(admin.services()),
            _ if path.starts_with("/api/v1/services/") => Self::service,
            _ => {
                return Err(Problem::not_found(format!(
                    "nothing is at {path}; there are /healthz, /readyz, /metrics, /api/v1/services and /api/v1/services/NAME"
                )));
            }
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Problem::method_not_allowed(method, "GET, HEAD"));
        }
        answer(self, path)
    }

    fn readiness(&self) -> Response {
        let folder = self.runtime.folder();
        let reason = if *self.stopping.borrow() {
            Some("the host is stopping".to_owned())
        } else if !folder.is_settled() {
            Some("services that lay in the folder at the start are still being prepared".to_owned())
        } else {
            None
        };
        let ready = reason.is_none();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json(status, &Readiness { ready, pending: folder.pending, reason }, JSON)
    }

    fn metrics(&self) -> Response {
        let is_configured = |connection: &str| self.runtime.has_connection(connection);
        text(self.metrics.text(self.runtime.services(), is_configured), monitoring::CONTENT_TYPE)
    }

    fn services(&self) -> Response {
        let services = self.runtime.services().into_iter().map(Service::from).collect();
        let configuration_error = self.configuration.last_error().map(|error| error.to_string());
        let answer = Services { services, folder_error: self.runtime.folder().error, configuration_error };
        json(StatusCode::OK, &answer, JSON)
    }

    fn service(&self, path: &str) -> Result<Response, Problem> {
        let name = path.trim_start_matches("/api/v1/services/");
        match self.runtime.services().into_iter().find(|service| service.name == name) {
            Some(service) => Ok(json(StatusCode::OK, &Service::from(service), JSON)),
            None => Err(Problem::not_found(format!("no service is named {name:?}"))),
        }
    }
}

impl Answer for Admin {
    async fn answer(&self, request: http::Request<Incoming>, id: InvocationId) -> Response {
        self.route(request.method(), request.uri().path()).unwrap_or_else(|problem| problem.into_response(&id))
    }
}

impl From<ServiceStatus> for Service {
    fn from(status: ServiceStatus) -> Self {
        Self {
            name: status.name,
            state: match status.state {
                ServiceState::Preparing => "preparing",
                ServiceState::Serving => "serving",
                ServiceState::Failed => "failed",
            },
            generation: status.generation.map(|content| content.to_string()),
            component_bytes: status.component_bytes,
            export: status.export,
            deployed_at: status.deployed_at.map(|at| at.to_string()),
            last_error: status.refused.map(|refused| LastError {
                at: refused.at.to_string(),
                generation: refused.content.map(|content| content.to_string()),
                reason: refused.reason,
            }),
            last_failure: status.last_failure.map(|failure| LastFailure {
                at: failure.at.to_string(),
                request_id: failure.id.to_string(),
                message: failure.message,
                details: failure.details,
            }),
            invocations: status.invocations,
            failures: status.failures,
            in_flight: status.in_flight,
        }
    }
}
