//! The public listener: `ANY /invoke/{service}[/more/path]`. Turns a request of HTTP into an invocation and its outcome
//! into an answer. Knows no WebAssembly and no connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, Sleep, sleep};
use wharf_runtime::{Body, InvocationId, Request, Response, Runtime, Trigger};

use crate::listener::Answer;
use crate::problem::Problem;

const INVOKE: &str = "/invoke/";

/// Limits of request bodies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Bytes; unlimited when absent.
    pub(crate) bytes_max: Option<u64>,
    /// How long a client may send nothing while the service waits for more.
    pub(crate) stall_max: Duration,
}

/// Answers requests by invoking services.
pub(crate) struct Door {
    runtime: Runtime,
    limits: BodyLimits,
}

impl Door {
    pub(crate) fn new(runtime: Runtime, limits: BodyLimits) -> Self {
        Self { runtime, limits }
    }

    async fn invoke(&self, request: http::Request<Incoming>, id: &InvocationId) -> Result<Response, Problem> {
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Problem::method_not_allowed(request.method(), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        let (service, target) = route(request.uri())?;
        if let (Some(limit), Some(announced)) = (self.limits.bytes_max, request.body().size_hint().exact())
            && announced > limit
        {
            return Err(too_large(limit));
        }
        let exceeded = Arc::new(AtomicBool::new(false));
        let (mut head, body) = request.into_parts();
        head.uri = target;
        let body = if body.is_end_stream() {
            Body::empty()
        } else {
            Body::from_http(LimitedBody::new(body, self.limits, Arc::clone(&exceeded)))
        };
        let request = Request { id: id.clone(), trigger: Trigger::Http, http: http::Request::from_parts(head, body) };
        let answer = self.runtime.invoke(&service, request).await;
        if let (Some(limit), true) = (self.limits.bytes_max, exceeded.load(Ordering::Relaxed)) {
            return Err(too_large(limit));
        }
        answer.map_err(|failure| Problem::of_failure(&failure))
    }
}

impl Answer for Door {
    async fn answer(&self, request: http::Request<Incoming>, id: InvocationId) -> Response {
        match self.invoke(request, &id).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(&id),
        }
    }
}

/// The service that a URI names, and what is behind its name: path and query as they came.
fn route(uri: &Uri) -> Result<(String, Uri), Problem> {
    let Some(rest) = uri.path().strip_prefix(INVOKE) else {
        return Err(Problem::not_found(format!(
            "nothing is at {}; a service is invoked by /invoke/NAME, with more path and a query behind it as it likes",
            uri.path()
        )));
    };
    let (name, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, detail);
    let name = percent_decode_str(name)
        .decode_utf8()
        .map_err(|_| bad("the name of the service is not UTF-8 after percent-decoding"))?;
    if name.is_empty() {
        return Err(bad("the name of a service is missing behind /invoke/"));
    }
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    // A part of a valid URI is one.
    let target: PathAndQuery = target.parse().map_err(|_| bad("the path is malformed"))?;
    Ok((name.into_owned(), Uri::from(target)))
}

fn too_large(limit: u64) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is larger than {limit} bytes, the limit of this host (body-max under [http])"),
    )
}

/// What becomes of a body that breaks a limit.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("the body is larger than the limit of {0} bytes")]
    TooLarge(u64),
    #[error("the client sent nothing for {} s", .0.as_secs_f32())]
    Stalled(Duration),
    #[error("the client broke off")]
    Broken(#[source] hyper::Error),
}

/// A request's body that is held to its limits while it is read.
struct LimitedBody {
    body: Incoming,
    limits: BodyLimits,
    seen: u64,
    exceeded: Arc<AtomicBool>,
    /// Runs while the service waits for more. Made at the first wait: most bodies are there at once.
    stall: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl LimitedBody {
    fn new(body: Incoming, limits: BodyLimits, exceeded: Arc<AtomicBool>) -> Self {
        Self { body, limits, seen: 0, exceeded, stall: None, waiting: false }
    }

    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let patience = self.limits.stall_max;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(patience)));
        if !self.waiting {
            stall.as_mut().reset(Instant::now() + patience);
            self.waiting = true;
        }
        stall.as_mut().poll(context)
    }
}

impl HttpBody for LimitedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            ready!(this.poll_stalled(context));
            return Poll::Ready(Some(Err(BodyError::Stalled(this.limits.stall_max))));
        };
        this.waiting = false;
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = frame.map_err(BodyError::Broken);
        if let (Ok(frame), Some(limit)) = (&frame, this.limits.bytes_max) {
            this.seen += frame.data_ref().map_or(0, Bytes::len) as u64;
            if this.seen > limit {
                this.exceeded.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(BodyError::TooLarge(limit))));
            }
        }
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(uri: &str) -> Result<(String, String), StatusCode> {
        route(&uri.parse().unwrap())
            .map(|(name, target)| (name, target.to_string()))
            .map_err(|problem| problem.into_response(&InvocationId::generate()).status())
    }

    #[test]
    fn what_is_behind_the_name_reaches_the_service_as_it_came() {
        assert_eq!(routed("/invoke/a.b"), Ok(("a.b".into(), "/".into())));
        assert_eq!(routed("/invoke/a.b?x=%20y"), Ok(("a.b".into(), "/?x=%20y".into())));
        assert_eq!(routed("/invoke/a.b/c%2Fd/?x"), Ok(("a.b".into(), "/c%2Fd/?x".into())));
        assert_eq!(routed("http://host/invoke/a%2Eb/c"), Ok(("a.b".into(), "/c".into())));
    }

    #[test]
    fn a_path_without_a_service_says_where_services_are() {
        assert_eq!(routed("/"), Err(StatusCode::NOT_FOUND));
        assert_eq!(routed("/invoke"), Err(StatusCode::NOT_FOUND));
        assert_eq!(routed("/invoke/"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(routed("/invoke/%ff"), Err(StatusCode::BAD_REQUEST));
    }
}
