//! One deployed version of a service: prepared once, then called for each invocation.
//!
//! Preparing compiles (or loads what was compiled before), links, and instantiates once in test. A call makes a store
//! with its limits, instantiates, and drives the guest to its end. Knows nothing of files, routes or who is waiting.

mod call;
mod prepare;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use wasmtime_wasi::p2::bindings::{Command, CommandPre};
use wasmtime_wasi_http::handler::Proxy;
use wasmtime_wasi_http::{p2, p3};

use crate::engine::GuestEngine;
use crate::guest::{Guest, GuestStore};
use crate::imports::bindings::{Service as Handler, ServicePre as HandlerPre};

pub(crate) use call::{Call, Outcome, Reporter};
pub(crate) use prepare::{Preparation, PrepareError, inspect};

/// How long a reusable instance may wait for its next invocation: long enough for a service in use, short enough that
/// memory goes back soon.
const IDLE_INSTANCE_MAX: Duration = Duration::from_secs(10);

/// SHA-256 of a component, in lower-case hexadecimal: the name of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContentHash(String);

impl ContentHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(bytes);
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A deployed version of a service.
pub(crate) struct Generation {
    pub(crate) content: ContentHash,
    pub(crate) component_bytes: u64,
    engine: GuestEngine,
    export: Export,
    idle: Mutex<Vec<IdleInstance>>,
    /// Becomes true when the time for requests in flight is over.
    drained: watch::Sender<bool>,
}

/// Which of the exports that the host can call the component has.
enum Export {
    Handler(HandlerPre<Guest>),
    HttpP2(p2::bindings::ProxyPre<Guest>),
    HttpP3(p3::bindings::ServicePre<Guest>),
    Program(CommandPre<Guest>),
}

impl Export {
    fn name(&self) -> &'static str {
        match self {
            Self::Handler(_) => "wharf:host/handler",
            Self::HttpP2(_) => "wasi:http/incoming-handler@0.2",
            Self::HttpP3(_) => "wasi:http/handler@0.3",
            Self::Program(_) => "wasi:cli/run@0.2",
        }
    }
}

/// An instance, ready to be called.
enum Instance {
    Handler(Handler),
    HttpP2(p2::bindings::Proxy),
    HttpP3(Proxy),
    Program(Command),
}

/// A live instance and how many invocations it may still serve.
struct Live {
    store: GuestStore,
    instance: Instance,
    uses_left: u32,
}

struct IdleInstance {
    live: Live,
    since: Instant,
}

impl Generation {
    fn new(content: ContentHash, component_bytes: u64, engine: GuestEngine, export: Export) -> Self {
        Self { content, component_bytes, engine, export, idle: Mutex::default(), drained: watch::Sender::new(false) }
    }

    /// The interface that the component exports.
    pub(crate) fn export_name(&self) -> &'static str {
        self.export.name()
    }

    /// Ends what still runs on this generation.
    pub(crate) fn end_requests_in_flight(&self) {
        self.drained.send_replace(true);
    }

    /// Drops the instances that have been waiting for too long.
    pub(crate) fn drop_idle_instances(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let expired: Vec<IdleInstance> = idle.extract_if(.., |one| one.since.elapsed() > IDLE_INSTANCE_MAX).collect();
        drop(idle);
        // Dropping a store takes time; nobody waits for the lock meanwhile.
        drop(expired);
    }

    fn take_idle(&self) -> Option<Live> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop().map(|one| one.live)
    }

    fn keep_idle(&self, live: Live) {
        if *self.drained.borrow() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(IdleInstance { live, since: Instant::now() });
    }
}
