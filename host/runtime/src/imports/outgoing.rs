//! Outgoing `wasi:http`: what a guest sends with its language's own client. Denied, unless a connection of type `http`
//! that the service was granted covers the URL; then that connection sends it, with its credentials. They take the
//! place of what the guest wrote: many clients insist on writing some, and a guest has none that would be better.
//! Redirects are answers, because the guest's client follows them itself.

use std::error::Error as StdError;
use std::sync::Arc;

use http_body_util::BodyExt;
use tracing::Instrument;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks};
use wharf_connectors::http::is_within;
use wharf_connectors::{Error, ErrorKind, Step, chain};

use crate::body::Body;
use crate::grant;
use crate::guest::Surroundings;
use crate::settings::{Access, LiveSettings};

/// The hooks of one instance.
pub(crate) struct OutgoingHttp {
    surroundings: Arc<Surroundings>,
}

impl OutgoingHttp {
    pub(crate) fn new(surroundings: Arc<Surroundings>) -> Self {
        Self { surroundings }
    }
}

/// What a finished transfer still has to say: nothing, errors are in the bodies.
type Epilogue = Box<dyn Future<Output = Result<(), HttpError>> + Send>;

impl WasiHttpHooks for OutgoingHttp {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Epilogue,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Epilogue), HttpError>> + Send> {
        let surroundings = Arc::clone(&self.surroundings);
        let sending = async move {
            let first_byte = options.and_then(|options| options.first_byte_timeout);
            let sent = send(&surroundings, request);
            let response = match first_byte {
                Some(limit) => {
                    tokio::time::timeout(limit, sent).await.map_err(|_| HttpError::ConnectionReadTimeout)??
                }
                None => sent.await?,
            };
            let nothing: Epilogue = Box::new(async { Ok(()) });
            Ok((response, nothing))
        };
        Box::new(sending.in_current_span())
    }
}

async fn send(
    surroundings: &Surroundings,
    request: http::Request<WasiBody>,
) -> Result<http::Response<WasiBody>, HttpError> {
    let service = &*surroundings.service;
    let needed = Access::of_method(request.method());
    let settings = &surroundings.settings;
    let origin = settings.service(service).grants.iter().filter(|grant| grant.access >= needed).find_map(|grant| {
        let origin = settings.connections.get(&grant.connection)?.http()?;
        is_within(&origin.path_of(request.uri())?, &grant.path).then_some(origin)
    });
    let Some(origin) = origin else {
        tracing::warn!(
            service,
            invocation = %surroundings.id,
            method = %request.method(),
            // Without path and query, which may hold secrets.
            origin = origin_of(request.uri()),
            why = why_denied(settings, service, &request),
            "an outgoing request is denied"
        );
        return Err(HttpError::HttpRequestDenied);
    };
    match origin.forward(request.map(|body| Body::from_http(body).into_content())).await {
        Ok(response) => Ok(response.map(|body| {
            BodyExt::map_err(body, |error| HttpError::InternalError(Some(chain(&error as &dyn StdError))))
                .boxed_unsync()
        })),
        Err(error) => {
            tracing::warn!(service, invocation = %surroundings.id, error = chain(&error), "an outgoing request failed");
            Err(told(&error))
        }
    }
}

/// Which connection would have covered a request, and why the service may not use it for that.
fn why_denied(settings: &LiveSettings, service: &str, request: &http::Request<WasiBody>) -> String {
    let granted = settings.service(service).grants.iter().map(|grant| &grant.connection);
    let refusal = granted.chain(settings.connections.keys()).find_map(|connection| {
        let path = settings.connections.get(connection)?.http()?.path_of(request.uri())?;
        let granted = grant::open(settings, service, connection);
        granted.and_then(|granted| granted.allow_request(request.method(), &path)).err()
    });
    refusal.map_or_else(
        || {
            "no connection of type http covers it; to allow it, configure [connections.NAME] type = \"http\" with this \
             origin as url, and grant NAME to the service"
                .to_owned()
        },
        |refusal| refusal.to_string(),
    )
}

fn origin_of(uri: &http::Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    // What stands before an @ could be a password.
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{}://{host}", uri.scheme_str().unwrap_or("http"))
}

fn told(error: &Error) -> HttpError {
    match error.kind() {
        ErrorKind::Denied => match error.step() {
            Some(Step::Tls) => HttpError::TlsCertificateError,
            Some(Step::Login) => HttpError::HttpRequestDenied,
            _ => HttpError::DestinationIpProhibited,
        },
        ErrorKind::Timeout => HttpError::ConnectionTimeout,
        ErrorKind::Unavailable => HttpError::DestinationUnavailable,
        ErrorKind::Interrupted => HttpError::ConnectionTerminated,
        ErrorKind::Invalid => HttpError::HttpRequestUriInvalid,
        _ => HttpError::InternalError(Some(chain(error))),
    }
}
