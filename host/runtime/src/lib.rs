//! Runs services: WebAssembly components that lie in a folder, each in a sandbox of its own for each invocation.
//!
//! [`Runtime`] is all that the program needs: it watches the deploy folder, and [`Runtime::invoke`] calls a service by
//! name. Knows no wire protocol, no listener, no configuration file.

mod body;
mod code_cache;
mod deploy;
mod engine;
mod generation;
mod grant;
mod guest;
mod imports;
mod interfaces;
mod invocation;
mod lane;
mod output;
mod program;
mod service;
mod settings;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use body::Body;
pub use code_cache::CodeCacheError;
pub use deploy::FolderStatus;
pub use generation::ContentHash;
pub use invocation::{Failure, FailureKind, INVOCATION_ID_BYTES_MAX, InvocationId, Request, Response, Trigger};
pub use service::{FailedInvocation, RefusedVersion, ServiceState, ServiceStatus};
pub use settings::{Access, Grant, LiveSettings, RuntimeSettings, ServiceSettings};

use deploy::Deployer;
use engine::GuestEngines;
use generation::{Call, Preparation};
use guest::{CallChain, Surroundings};
use lane::{Lanes, SliceClock};
use service::Service;

/// How many services may call one another in a chain. Real chains have a handful; each link holds an instance.
const CALL_DEPTH_MAX: usize = 16;

/// Names that a caller of an unknown service is offered.
const NEAR_NAMES_MAX: usize = 3;

/// Why the runtime cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine refused its settings.
    #[error("the WebAssembly engine cannot start")]
    Engine(#[source] wasmtime::Error),
    /// The folder of compiled code is not usable.
    #[error("compiled code cannot be kept")]
    CodeCache(#[from] CodeCacheError),
    /// Threads could not be made.
    #[error("the threads for guests cannot be made")]
    Threads(#[source] std::io::Error),
}

/// The runtime. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
    deployer: Arc<JoinHandle<()>>,
}

/// What all invocations share.
pub(crate) struct Shared {
    _engines: GuestEngines,
    preparation: Arc<Preparation>,
    lanes: Lanes,
    live: ArcSwap<LiveSettings>,
    services: ArcSwap<BTreeMap<Arc<str>, Arc<Service>>>,
    folder: watch::Sender<FolderStatus>,
    settings: RuntimeSettings,
}

impl Runtime {
    /// Makes the engine and begins to watch the deploy folder. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: RuntimeSettings, live: LiveSettings) -> Result<Self, StartError> {
        let engines = GuestEngines::new(&settings).map_err(StartError::Engine)?;
        let preparation = Preparation::new(&engines, &settings.compiled_folder, settings.compilations_max)?;
        let shared = Arc::new(Shared {
            _engines: engines,
            preparation: Arc::new(preparation),
            lanes: Lanes::new().map_err(StartError::Threads)?,
            live: ArcSwap::from_pointee(live),
            services: ArcSwap::default(),
            folder: watch::Sender::new(FolderStatus::default()),
            settings,
        });
        let deployer = tokio::spawn(Deployer::new(Arc::clone(&shared)).run());
        Ok(Self { shared, deployer: Arc::new(deployer) })
    }

    /// Invokes a service by name and waits until its response begins. Dropping the future, or the response's body
    /// before its end, cancels the invocation.
    ///
    /// # Errors
    /// Why there is no response.
    pub async fn invoke(&self, service: &str, request: Request) -> Result<Response, Failure> {
        self.shared.invoke(service, request, None).await
    }

    /// Puts new settings in force for invocations that begin from now on.
    pub fn apply(&self, live: LiveSettings) {
        self.shared.live.store(Arc::new(live));
    }

    /// Whether a connection of this name is configured.
    pub fn has_connection(&self, name: &str) -> bool {
        self.shared.live.load().connections.contains_key(name)
    }

    /// What is deployed, by name.
    pub fn services(&self) -> Vec<ServiceStatus> {
        self.shared.services.load().values().map(|service| service.status()).collect()
    }

    /// How the deploy folder is.
    pub fn folder(&self) -> FolderStatus {
        self.shared.folder.borrow().clone()
    }

    /// Waits until everything that lay in the deploy folder at the start serves or is refused.
    pub async fn ready(&self) {
        let mut folder = self.shared.folder.subscribe();
        // The sender lives as long as `self`.
        let _ = folder.wait_for(FolderStatus::is_settled).await;
    }

    /// Stops deploying. Invocations go on; whoever waits for them decides for how long.
    pub fn stop_deploying(&self) {
        self.deployer.abort();
    }
}

impl Shared {
    /// Invokes a service, for a caller outside or for another service. Boxed, because services call services.
    pub(crate) fn invoke<'a>(
        self: &'a Arc<Self>,
        name: &'a str,
        request: Request,
        caller: Option<&'a Surroundings>,
    ) -> Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send + 'a>> {
        Box::pin(async move {
            let service = self.find(name)?;
            if let Some(caller) = caller {
                refuse_ring(&caller.chain, name)?;
            }
            let live = self.live.load_full();
            let settings = live.service(name);
            let mut deadline = Instant::now() + settings.timeout;
            if let Some(caller) = caller {
                deadline = deadline.min(caller.deadline);
            }
            let generation = service.current.load_full().ok_or_else(|| not_serving(&service))?;
            let mut reporter = service.begin(request.id.clone(), Some(&generation));
            match service.admit(settings, deadline).await {
                Ok(place) => reporter.place = Some(place),
                Err(failure) => {
                    use generation::{Outcome, Reporter};
                    reporter.report(Outcome::Failed(failure.clone()));
                    return Err(failure);
                }
            }
            // The version may have changed while this waited for its turn.
            let generation = service.current.load_full().unwrap_or(generation);
            let surroundings = Arc::new(Surroundings {
                shared: Arc::clone(self),
                settings: live,
                service: Arc::clone(&service.name),
                id: request.id.clone(),
                deadline,
                chain: CallChain::new(Arc::clone(&service.name), caller.map(|caller| Arc::clone(&caller.chain))),
                clock: SliceClock::start(Arc::clone(&service.pace)),
            });
            Call { generation, surroundings, request, reporter }.run(&self.lanes).await
        })
    }

    fn find(&self, name: &str) -> Result<Arc<Service>, Failure> {
        let services = self.services.load();
        if let Some(service) = services.get(name) {
            return Ok(Arc::clone(service));
        }
        let mut near: Vec<(f64, &str)> = services
            .keys()
            .map(|known| (strsim::jaro_winkler(known, name), &**known))
            .filter(|(likeness, _)| *likeness > 0.7)
            .collect();
        near.sort_by(|(left, _), (right, _)| right.total_cmp(left));
        near.truncate(NEAR_NAMES_MAX);
        let near: Vec<&str> = near.into_iter().map(|(_, name)| name).collect();
        let hint = if near.is_empty() {
            "the folder of services has no file of this name with .wasm behind it".to_owned()
        } else {
            format!("did you mean {}?", near.join(", "))
        };
        Err(Failure::new(FailureKind::UnknownService, format!("no service is named {name:?}; {hint}")))
    }
}

fn refuse_ring(chain: &CallChain, name: &str) -> Result<(), Failure> {
    if chain.contains(name) {
        let message =
            format!("{} -> {name} is a ring: a service must not call itself through others", chain.describe());
        return Err(Failure::new(FailureKind::Ring, message));
    }
    if chain.depth() >= CALL_DEPTH_MAX {
        let message = format!("{} -> {name} is a chain of more than {CALL_DEPTH_MAX} services", chain.describe());
        return Err(Failure::new(FailureKind::Ring, message));
    }
    Ok(())
}

fn not_serving(service: &Service) -> Failure {
    let status = service.status();
    match status.refused {
        Some(refused) => Failure::new(
            FailureKind::NotReady,
            format!("service {} has no version that can serve: {}", service.name, refused.reason),
        ),
        None => Failure::new(FailureKind::NotReady, format!("service {} is still being prepared", service.name))
            .with_retry_after(std::time::Duration::from_secs(1)),
    }
}
