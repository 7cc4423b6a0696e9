//! One invocation of a generation: from the request to the response, and on to the end of the guest's call.
//!
//! The guest is driven by whoever waits for its response, later by whoever reads the response's body: dropping either
//! cancels the guest. Every way to the end passes through the [`Outcome`] that the caller of [`Call::run`] is told.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::channel::oneshot as futures_oneshot;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tracing::Instrument;
use wasmtime::{AsContextMut, Store};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::handler::{Prepared, Proxy};
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{Error as HttpError, WasiBody, WasiHttpView};

use super::{Export, Generation, Instance, Live};
use crate::body::Body;
use crate::guest::{Guest, Surroundings};
use crate::imports::kind_of;
use crate::imports::services::{guest_request, http_response};
use crate::invocation::{Failure, FailureKind, Request, Response};
use crate::lane::{LaneChange, Lanes};
use crate::program::{ProgramAnswer, ProgramInput};

/// How an invocation ended. Told exactly once, also when nobody waits for it any more.
pub(crate) enum Outcome {
    /// With a response, delivered whole.
    Answered(http::StatusCode),
    /// Without one, or with one that broke off.
    Failed(Failure),
    /// The caller went away.
    Cancelled,
}

/// Is told the outcome; a reporter that is dropped untold reports [`Outcome::Cancelled`].
pub(crate) trait Reporter: Send + 'static {
    fn report(&mut self, outcome: Outcome);
}

/// One invocation about to run.
pub(crate) struct Call<R: Reporter> {
    pub(crate) generation: Arc<Generation>,
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) request: Request,
    pub(crate) reporter: R,
}

type Head = oneshot::Sender<Response>;
type Driven = LaneChange<Result<(), Failure>>;

impl<R: Reporter> Call<R> {
    /// Runs the guest until its response begins.
    ///
    /// # Errors
    /// The failure that was also reported.
    pub(crate) async fn run(self, lanes: &Lanes) -> Result<Response, Failure> {
        let Self { generation, surroundings, request, reporter } = self;
        let mut report = Report(Some(reporter));
        let broken = Arc::new(AtomicBool::new(false));
        let (head, mut answer) = oneshot::channel();
        let clock = Arc::clone(&surroundings.clock);
        let deadline = surroundings.deadline;
        // All that is logged while the guest runs says for whom it was done.
        let span = tracing::info_span!("call", service = %surroundings.service, invocation = %surroundings.id);
        let drive = drive(generation, surroundings, request, head, Arc::clone(&broken)).instrument(span);
        let drive = wharf_connectors::deadline::until(deadline, drive);
        let mut driven = lanes.run(clock, drive);

        let mut response = None;
        let mut is_awaited = true;
        let end = std::future::poll_fn(|context| {
            if let Poll::Ready(end) = Pin::new(&mut driven).poll(context) {
                return Poll::Ready(Some(flatten(end)));
            }
            // A guest that failed on another thread has dropped its side already when its end is still to be told.
            if is_awaited && let Poll::Ready(answered) = Pin::new(&mut answer).poll(context) {
                is_awaited = false;
                response = answered.ok();
            }
            if response.is_some() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        if is_awaited {
            response = answer.try_recv().ok();
        }
        match (end, response) {
            (Some(Err(failure)), _) => {
                report.tell(Outcome::Failed(failure.clone()));
                Err(failure)
            }
            (Some(Ok(())), Some(response)) => {
                report.tell(Outcome::Answered(response.status()));
                Ok(response)
            }
            (Some(Ok(())) | None, None) => {
                let failure = Failure::new(FailureKind::Trap, "the service ended without an answer");
                report.tell(Outcome::Failed(failure.clone()));
                Err(failure)
            }
            (None, Some(response)) => {
                let status = response.status();
                Ok(response.map(|body| {
                    let body = body.into_http();
                    let bytes_left = body.size_hint().exact();
                    let driven = Some(driven);
                    Body::Http(DrivenBody { body, bytes_left, driven, broken, report, status }.boxed_unsync())
                }))
            }
        }
    }
}

fn flatten(end: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    end.unwrap_or_else(|error| {
        Err(Failure::new(FailureKind::Internal, "the host failed while it ran the service")
            .with_details(error.to_string()))
    })
}

/// Tells the outcome once.
struct Report<R: Reporter>(Option<R>);

impl<R: Reporter> Report<R> {
    fn tell(&mut self, outcome: Outcome) {
        if let Some(mut reporter) = self.0.take() {
            reporter.report(outcome);
        }
    }
}

impl<R: Reporter> Drop for Report<R> {
    fn drop(&mut self) {
        self.tell(Outcome::Cancelled);
    }
}

/// The body of a response whose guest is still at work: reading it drives the guest, dropping it before its end cancels
/// the guest.
struct DrivenBody<R: Reporter> {
    body: WasiBody,
    /// What the reader still lacks, where the size is known. A reader that has it all need not ask for the end.
    bytes_left: Option<u64>,
    driven: Option<Driven>,
    /// Set before the guest's end of the body is dropped, when the guest failed: a body must not look complete then.
    broken: Arc<AtomicBool>,
    report: Report<R>,
    status: http::StatusCode,
}

impl<R: Reporter> DrivenBody<R> {
    /// Drives the guest. `Some` when it failed.
    fn drive(&mut self, context: &mut Context<'_>) -> Option<HttpError> {
        let driven = self.driven.as_mut()?;
        let Poll::Ready(end) = Pin::new(driven).poll(context) else { return None };
        self.driven = None;
        match flatten(end) {
            Ok(()) => {
                self.report.tell(Outcome::Answered(self.status));
                None
            }
            Err(failure) => {
                let error = HttpError::InternalError(Some(failure.message.clone()));
                self.report.tell(Outcome::Failed(failure));
                Some(error)
            }
        }
    }

    /// The answer is complete; what the guest does after it is its own affair until its deadline.
    fn let_the_guest_end(&mut self) {
        let (Some(driven), Ok(runtime)) = (self.driven.take(), tokio::runtime::Handle::try_current()) else { return };
        let mut report = Report(self.report.0.take());
        let status = self.status;
        runtime.spawn(async move {
            match flatten(driven.await) {
                Ok(()) => report.tell(Outcome::Answered(status)),
                Err(failure) => report.tell(Outcome::Failed(failure)),
            }
        });
    }
}

impl<R: Reporter> Drop for DrivenBody<R> {
    fn drop(&mut self) {
        if self.bytes_left == Some(0) {
            self.let_the_guest_end();
        }
    }
}

impl<R: Reporter> Unpin for DrivenBody<R> {}

impl<R: Reporter> HttpBody for DrivenBody<R> {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Some(error) = this.drive(context) {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(None) if this.broken.load(Ordering::Acquire) => {
                Poll::Ready(Some(Err(HttpError::HttpResponseIncomplete)))
            }
            Poll::Ready(None) => {
                this.let_the_guest_end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.bytes_left = this.bytes_left.map(|left| left.saturating_sub(bytes));
                Poll::Ready(Some(Ok(frame)))
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.driven.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs a guest from its instantiation to the end of its call, within its limits.
async fn drive(
    generation: Arc<Generation>,
    surroundings: Arc<Surroundings>,
    request: Request,
    head: Head,
    broken: Arc<AtomicBool>,
) -> Result<(), Failure> {
    let deadline = surroundings.deadline;
    let reuse = surroundings.settings.service(&surroundings.service).reuse;
    let mut drained = generation.drained.subscribe();
    if matches!(generation.export, Export::Program(_)) {
        // Boxed, because every invocation would have to carry the room for it.
        return Box::pin(drive_program(&generation, surroundings, request, head, &broken)).await;
    }
    let idle = if reuse > 1 { generation.take_idle() } else { None };
    let (mut store, existing, uses_left) = match idle {
        Some(mut live) => {
            live.store.data_mut().begin(surroundings);
            live.store.set_epoch_deadline(1);
            (live.store, Some(live.instance), live.uses_left)
        }
        None => (Guest::store(&generation.engine, surroundings, None), None, reuse),
    };
    let ended = {
        let work = std::pin::pin!(async {
            let instance = match existing {
                Some(instance) => instance,
                None => instantiate_to_serve(&generation, &mut store).await?,
            };
            match call(&mut store, &instance, request, head).await {
                // An error that the guest returned is an answer: nothing is wrong with the instance.
                Err(failure) if !matches!(failure.kind, FailureKind::Guest(_)) => Err(failure),
                answered => Ok((instance, answered)),
            }
        });
        tokio::select! {
            biased;
            ended = work => ended,
            () = tokio::time::sleep_until(deadline) => Err(deadline_passed()),
            _ = drained.wait_for(|drained| *drained) => Err(drained_away()),
        }
    };
    store.data().output.flush();
    match ended {
        Ok((instance, answered)) => {
            if uses_left > 1 {
                generation.keep_idle(Live { store, instance, uses_left: uses_left - 1 });
            }
            answered
        }
        Err(failure) => {
            broken.store(true, Ordering::Release);
            Err(with_last_words(&store, failure))
        }
    }
}

async fn drive_program(
    generation: &Generation,
    surroundings: Arc<Surroundings>,
    request: Request,
    head: Head,
    broken: &AtomicBool,
) -> Result<(), Failure> {
    let deadline = surroundings.deadline;
    let mut drained = generation.drained.subscribe();
    let input = ProgramInput::new(request.http.into_body());
    let (output, answer) = ProgramAnswer::channel();
    let mut store = Guest::store(&generation.engine, surroundings, Some((input, output)));
    let ended = {
        let work = async {
            let Instance::Program(program) = instantiate_to_serve(generation, &mut store).await? else {
                return Err(Failure::new(FailureKind::Internal, "the instance is not a program"));
            };
            match program.wasi_cli_run().call_run(&mut *store).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(())) => Err(exit(1)),
                Err(error) => match error.downcast_ref::<I32Exit>() {
                    Some(I32Exit(0)) => Ok(()),
                    Some(I32Exit(code)) => Err(exit(*code)),
                    None => Err(trapped(&error)),
                },
            }
        };
        tokio::pin!(work);
        let limits = async {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => deadline_passed(),
                _ = drained.wait_for(|drained| *drained) => drained_away(),
            }
        };
        tokio::pin!(limits);
        // The answer waits for the exit code, unless it is too large to wait for.
        let early = tokio::select! {
            biased;
            ended = &mut work => Some(ended),
            failure = &mut limits => Some(Err(failure)),
            () = answer.full() => None,
        };
        let response = http::Response::new(answer.into_body());
        match early {
            Some(Ok(())) => {
                let _ = head.send(response);
                Ok(())
            }
            Some(Err(failure)) => Err(failure),
            None => {
                let _ = head.send(response);
                tokio::select! {
                    biased;
                    ended = &mut work => ended,
                    failure = &mut limits => Err(failure),
                }
            }
        }
    };
    store.data().output.flush();
    ended.map_err(|failure| {
        broken.store(true, Ordering::Release);
        with_last_words(&store, failure)
    })
}

impl Generation {
    pub(super) async fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<Instance> {
        Ok(match &self.export {
            Export::Handler(prepared) => Instance::Handler(prepared.instantiate_async(store).await?),
            Export::HttpP2(prepared) => Instance::HttpP2(prepared.instantiate_async(store).await?),
            Export::HttpP3(prepared) => Instance::HttpP3(Proxy::P3(prepared.instantiate_async(store).await?)),
            Export::Program(prepared) => Instance::Program(prepared.instantiate_async(store).await?),
        })
    }
}

async fn instantiate_to_serve(generation: &Generation, store: &mut Store<Guest>) -> Result<Instance, Failure> {
    generation.instantiate(store).await.map_err(|error| {
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Failure::new(FailureKind::Overloaded, "the host has no room for another instance now")
                .with_retry_after(std::time::Duration::from_secs(1))
                .with_details(format!("{error:#}"));
        }
        Failure::new(FailureKind::Trap, "the service could not be instantiated").with_details(format!("{error:?}"))
    })
}

async fn call(store: &mut Store<Guest>, instance: &Instance, mut request: Request, head: Head) -> Result<(), Failure> {
    match instance {
        Instance::Handler(handler) => {
            let request = guest_request(&mut store.data_mut().table, request)?;
            let answer = handler
                .wharf_host_handler()
                .call_handle(&mut *store, &request)
                .await
                .map_err(|error| trapped(&error))?;
            match answer {
                Ok(response) => {
                    let response = http_response(&mut store.data_mut().table, response)?;
                    let _ = head.send(response);
                    Ok(())
                }
                Err(error) => Err(Failure::new(FailureKind::Guest(kind_of(error.code)), error.message)),
            }
        }
        Instance::HttpP2(proxy) => {
            name_authority(&mut request, &store.data().surroundings.service);
            let mut view = store.data_mut().http();
            let incoming = view
                .new_incoming_request(Scheme::Http, request.http.map(Body::into_http))
                .map_err(|error| invalid_request(&error))?;
            let (refused, refusal) = std::sync::mpsc::sync_channel(1);
            let outparam = view
                .new_response_outparam_from_callback(move |answer| match answer {
                    Ok(response) => {
                        let _ = head.send(response.map(Body::Http));
                    }
                    Err(code) => {
                        let _ = refused.try_send(format!("{code:?}"));
                    }
                })
                .map_err(|error| trapped(&error))?;
            proxy
                .wasi_http_incoming_handler()
                .call_handle(&mut *store, incoming, outparam)
                .await
                .map_err(|error| trapped(&error))?;
            match refusal.try_recv() {
                Ok(code) => Err(Failure::new(FailureKind::Trap, format!("the service answered with the error {code}"))),
                Err(_) => Ok(()),
            }
        }
        Instance::HttpP3(service) => {
            name_authority(&mut request, &store.data().surroundings.service);
            let request = request.http.map(Body::into_http);
            Box::pin(call_concurrent(store, service, request, head)).await
        }
        Instance::Program(_) => Err(Failure::new(FailureKind::Internal, "a program is not called like a handler")),
    }
}

/// Calls `wasi:http/handler@0.3`, and goes on until the guest has nothing left to do that the response needs.
async fn call_concurrent(
    store: &mut Store<Guest>,
    service: &Proxy,
    request: http::Request<WasiBody>,
    head: Head,
) -> Result<(), Failure> {
    let (sender, receiver) = futures_oneshot::channel();
    let ended = store
        .run_concurrent(async |accessor| {
            let prepared = accessor.with(|mut store| {
                Prepared::new(store.as_context_mut(), service, request, |guest: &mut Guest| guest.http(), sender)
            })?;
            let answer = async {
                match receiver.await {
                    Ok(Ok(response)) => {
                        let _ = head.send(response.map(Body::Http));
                        Ok(())
                    }
                    Ok(Err(error)) => Err(error),
                    // The guest trapped: the run itself says so.
                    Err(_) => Ok(()),
                }
            };
            let (run, answer) = futures::join!(prepared.run(accessor, std::future::pending()), answer);
            run?;
            answer?;
            std::future::poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
            wasmtime::error::Ok(())
        })
        .await;
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) | Err(error) => Err(trapped(&error)),
    }
}

/// `wasi:http` demands an authority. A request that comes from another service names the service that it is for.
fn name_authority(request: &mut Request, service: &str) {
    let headers = request.http.headers_mut();
    if !headers.contains_key(http::header::HOST)
        && let Ok(host) = http::HeaderValue::from_str(service)
    {
        headers.insert(http::header::HOST, host);
    }
}

fn invalid_request(error: &wasmtime::Error) -> Failure {
    Failure::new(FailureKind::Invalid, format!("the request cannot be given to a service: {error}"))
}

fn trapped(error: &wasmtime::Error) -> Failure {
    let cause = error.root_cause().to_string();
    Failure::new(FailureKind::Trap, format!("the service failed: {cause}")).with_details(format!("{error:?}"))
}

fn exit(code: i32) -> Failure {
    Failure::new(FailureKind::Trap, format!("the program ended with exit code {code}"))
}

fn deadline_passed() -> Failure {
    Failure::new(FailureKind::Deadline, "the service did not end within its timeout")
}

fn drained_away() -> Failure {
    Failure::new(FailureKind::Drained, "the version of the service that ran this was replaced; try again")
        .with_retry_after(std::time::Duration::from_secs(1))
}

/// Adds what the guest wrote last on standard error, and the limit that it ran into.
fn with_last_words(store: &Store<Guest>, mut failure: Failure) -> Failure {
    let guest = store.data();
    if failure.kind == FailureKind::Trap
        && let Some(limit) = guest.memory_limit_reached()
    {
        failure.message.push_str(&format!("; it had reached its memory limit of {} MiB", limit >> 20));
    }
    if let Some(tail) = guest.output.tail()
        && !matches!(failure.kind, FailureKind::Guest(_))
    {
        let details = failure.details.take().unwrap_or_default();
        failure.details = Some(format!("{details}\nlast lines of standard error:\n{tail}").trim_start().to_owned());
    }
    failure
}
