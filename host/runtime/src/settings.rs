//! What the runtime is told: once at the start ([`RuntimeSettings`]), and again whenever the operator changes it
//! ([`LiveSettings`]). Plain values, checked by whoever read them; knows no file format.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use wharf_connectors::{Egress, Remote, RemotePath};

/// Fixed for the life of the process.
#[derive(Debug, Clone)]
pub struct RuntimeSettings {
    /// The deploy folder. It need not exist yet.
    pub services_folder: PathBuf,
    /// Where compiled code is kept. Created with mode 0700; must belong to the user who runs the host.
    pub compiled_folder: PathBuf,
    /// Larger components are refused before they are read.
    pub component_bytes_max: u64,
    /// Instances at once, over all services; what the pools of the engines reserve address space for. Components with
    /// little data, whose memory is copied, are counted apart from the others.
    pub instances_max: u32,
    /// Components compiled at once. Each takes hundreds of megabytes for an interpreter.
    pub compilations_max: usize,
    /// How often the deploy folder is scanned, whatever the operating system reports in between.
    pub scan_interval: Duration,
    /// How long an old generation may go on with the requests that it began.
    pub drain_timeout: Duration,
}

impl RuntimeSettings {
    /// Settings with the defaults of the product for these two folders.
    pub fn new(services_folder: PathBuf, compiled_folder: PathBuf) -> Self {
        Self {
            services_folder,
            compiled_folder,
            component_bytes_max: 100 * 1024 * 1024,
            instances_max: 1000,
            compilations_max: 1,
            scan_interval: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// What may change while the host runs. A new value holds for invocations that begin after it was applied.
#[derive(Debug, Clone, Default)]
pub struct LiveSettings {
    /// Open connections by name.
    pub connections: BTreeMap<String, Remote>,
    /// Settings of single services by name.
    pub services: BTreeMap<String, ServiceSettings>,
    /// For services without settings of their own.
    pub service_defaults: ServiceSettings,
    /// The outgoing policy.
    pub egress: std::sync::Arc<Egress>,
}

impl LiveSettings {
    /// The settings of a service.
    pub fn service(&self, name: &str) -> &ServiceSettings {
        self.services.get(name).unwrap_or(&self.service_defaults)
    }
}

/// What one service may do and use.
#[derive(Debug, Clone)]
pub struct ServiceSettings {
    /// The connections it may use. None by default.
    pub grants: Vec<Grant>,
    /// Memory of one instance in bytes, summed over its linear memories.
    pub memory_bytes_max: u64,
    /// Wall-clock time of one invocation, from its arrival to the end of the guest's call.
    pub timeout: Duration,
    /// Invocations at once. Further ones wait for `queue_timeout`, then are refused.
    pub concurrency: usize,
    /// How long an invocation waits for its turn.
    pub queue_timeout: Duration,
    /// How many invocations one instance serves, one after another. 1: each gets a fresh one.
    pub reuse: u32,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            grants: Vec::new(),
            memory_bytes_max: 128 * 1024 * 1024,
            timeout: Duration::from_secs(30),
            concurrency: 64,
            queue_timeout: Duration::from_secs(2),
            reuse: 1,
        }
    }
}

/// The operator's statement that a service may use a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The connection's name.
    pub connection: String,
    /// How it may be used.
    pub access: Access,
    /// The folder on the connection that it is confined to.
    pub path: RemotePath,
}

/// What a grant allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// stat, list, read; GET, HEAD and OPTIONS.
    Read,
    /// Everything, reading included.
    Write,
}

impl Access {
    /// What a request with this method needs: those that RFC 9110 section 9.2.1 calls safe only read.
    pub(crate) fn of_method(method: &http::Method) -> Self {
        match *method {
            http::Method::GET | http::Method::HEAD | http::Method::OPTIONS => Self::Read,
            _ => Self::Write,
        }
    }
}
