//! From the bytes of a component to a generation that serves, or to the reason why not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::{p2, p3};

use super::{ContentHash, Export, Generation};
use crate::StartError;
use crate::code_cache::CodeCache;
use crate::engine::{GuestEngine, GuestEngines, InitialMemory};
use crate::guest::{Guest, Surroundings};
use crate::imports;
use crate::imports::bindings::ServicePre as HandlerPre;
use crate::interfaces::why_not_offered;
use crate::lane::lower_priority_of_this_thread;

/// Niceness of the threads that compile: they take what serving leaves over.
const COMPILER_NICENESS: i32 = 19;

/// Components loaded from the cache at once: enough to keep the cores busy while one waits for the disk.
const LOADS_MAX: usize = 4;

/// How long the instantiation in test may take. An instance that serves starts within its service's timeout.
const TEST_INSTANTIATION_MAX: Duration = Duration::from_secs(10);

/// Why a component does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error("the file is empty")]
    Empty,
    #[error("it is not WebAssembly: it begins with {0}, a component begins with 00 61 73 6d (\"\\0asm\")")]
    NotWasm(String),
    #[error(
        "it is a core module, not a component: build it for the target wasm32-wasip2, or make a component of it with \
         `wasm-tools component new FILE --adapt wasi_snapshot_preview1.wasm -o SERVICE.wasm`"
    )]
    CoreModule,
    #[error("it is WebAssembly of an unknown version ({0})")]
    UnknownVersion(String),
    #[error("it is cut off: the file ends in the middle of a section; copy it again, whole")]
    Truncated(#[source] wasmtime::Error),
    #[error("it does not compile")]
    Compile(#[source] wasmtime::Error),
    #[error("{}", .0.join("; "))]
    UnknownImports(Vec<String>),
    #[error("its imports do not fit what this host offers: it was built against another version of an interface")]
    Link(#[source] wasmtime::Error),
    #[error(
        "it exports nothing that this host can call ({0}); a service exports wharf:host/handler@0.1, \
         wasi:http/incoming-handler@0.2, wasi:http/handler@0.3 or wasi:cli/run@0.2"
    )]
    NoKnownExport(String),
    #[error("it cannot be instantiated; its memory or tables may exceed what this service or the host allows")]
    Instantiate(#[source] wasmtime::Error),
    #[error("it does not finish its own start within {} s", TEST_INSTANTIATION_MAX.as_secs())]
    NeverStarts,
    #[error("the host is stopping")]
    Stopping,
}

/// What components with one form of initial memory are prepared with.
struct Kit {
    engine: GuestEngine,
    linker: Linker<Guest>,
    cache: CodeCache,
}

impl Kit {
    fn new(engine: &GuestEngine, compiled_folder: &Path) -> Result<Arc<Self>, StartError> {
        let linker = imports::linker(&engine.engine).map_err(StartError::Engine)?;
        let cache = CodeCache::open(compiled_folder, &engine.engine)?;
        Ok(Arc::new(Self { engine: engine.clone(), linker, cache }))
    }
}

/// Everything that preparing needs, made once.
pub(crate) struct Preparation {
    mapped: Arc<Kit>,
    copied: Arc<Kit>,
    compiler_threads: rayon::ThreadPool,
    compilations: Semaphore,
    loads: Semaphore,
}

impl Preparation {
    pub(crate) fn new(
        engines: &GuestEngines,
        compiled_folder: &Path,
        compilations_max: usize,
    ) -> Result<Self, StartError> {
        // One processor is left to those who serve, for the reason that the slow lane has: a compiler that loses its
        // processor inside the kernel's lock on the memory map makes every instance wait.
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let compiler_threads = rayon::ThreadPoolBuilder::new()
            .num_threads(processors.saturating_sub(1).max(1))
            .thread_name(|index| format!("compiler-{index}"))
            .start_handler(|_| lower_priority_of_this_thread(COMPILER_NICENESS))
            .build()
            .map_err(|error| StartError::Threads(std::io::Error::other(error)))?;
        Ok(Self {
            mapped: Kit::new(&engines.mapped, compiled_folder)?,
            copied: Kit::new(&engines.copied, compiled_folder)?,
            compiler_threads,
            compilations: Semaphore::new(compilations_max.max(1)),
            loads: Semaphore::new(LOADS_MAX),
        })
    }

    /// Makes a generation of a component.
    ///
    /// # Errors
    /// What is wrong with the component; nothing is left behind then.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        content: ContentHash,
        bytes: Vec<u8>,
        test_surroundings: Arc<Surroundings>,
    ) -> Result<Generation, PrepareError> {
        let component_bytes = bytes.len() as u64;
        let (kit, component) = self.component(&content, bytes).await?;
        let unknown: Vec<String> = component
            .component_type()
            .imports(&kit.engine.engine)
            .filter_map(|(name, _)| why_not_offered(name))
            .collect();
        if !unknown.is_empty() {
            return Err(PrepareError::UnknownImports(unknown));
        }
        let linked = kit.linker.instantiate_pre(&component).map_err(PrepareError::Link)?;
        let export = choose_export(&kit.engine.engine, &component, linked)?;
        component.initialize_copy_on_write_image().map_err(PrepareError::Instantiate)?;
        let generation = Generation::new(content, component_bytes, kit.engine.clone(), export);
        let tested = generation.instantiate_in_test(test_surroundings);
        match tokio::time::timeout(TEST_INSTANTIATION_MAX, tested).await {
            Ok(tested) => tested.map_err(PrepareError::Instantiate)?,
            Err(_) => return Err(PrepareError::NeverStarts),
        }
        Ok(generation)
    }

    async fn component(
        self: &Arc<Self>,
        content: &ContentHash,
        bytes: Vec<u8>,
    ) -> Result<(Arc<Kit>, Component), PrepareError> {
        let loading = self.loads.acquire().await.map_err(|_| PrepareError::Stopping)?;
        let (this, name) = (Arc::clone(self), content.clone());
        let load = move || {
            let kit = match InitialMemory::for_component(&bytes) {
                InitialMemory::Mapped => Arc::clone(&this.mapped),
                InitialMemory::Copied => Arc::clone(&this.copied),
            };
            let loaded = kit.cache.load(&kit.engine.engine, &name);
            (kit, loaded, bytes)
        };
        let (kit, loaded, bytes) = tokio::task::spawn_blocking(load).await.map_err(|_| PrepareError::Stopping)?;
        drop(loading);
        if let Some(component) = loaded {
            return Ok((kit, component));
        }
        let _compiling = self.compilations.acquire().await.map_err(|_| PrepareError::Stopping)?;
        let (this, name) = (Arc::clone(self), content.clone());
        let compile = move || {
            let compiled = this.compiler_threads.install(|| kit.cache.compile(&kit.engine.engine, &name, &bytes));
            compiled.map(|component| (kit, component))
        };
        let compiled = tokio::task::spawn_blocking(compile).await.map_err(|_| PrepareError::Stopping)?;
        compiled.map_err(not_compiled)
    }
}

/// Tells a file that ends too early from one that is wrong: the validator finds the end of the file in a section, or a
/// section larger than what is left.
fn not_compiled(error: wasmtime::Error) -> PrepareError {
    let text = format!("{error:#}");
    if text.contains("unexpected end") || text.contains("section range") && text.contains("is out of bounds") {
        PrepareError::Truncated(error)
    } else {
        PrepareError::Compile(error)
    }
}

/// Tells from the first bytes whether this can be a component at all (component model, binary format, preamble).
///
/// # Errors
/// What it is instead.
pub(crate) fn inspect(bytes: &[u8]) -> Result<(), PrepareError> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    if bytes.is_empty() {
        return Err(PrepareError::Empty);
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(PrepareError::NotWasm(hex(&bytes[..bytes.len().min(4)])));
    }
    match bytes.get(4..8) {
        None => Err(PrepareError::Truncated(wasmtime::Error::msg("the file ends within its first eight bytes"))),
        Some([0x0d, 0, 1, 0]) => Ok(()),
        Some([_, _, 0, 0]) => Err(PrepareError::CoreModule),
        Some(version) => Err(PrepareError::UnknownVersion(hex(version))),
    }
}

/// Chooses what to call: our own form first, then the newest standard one.
fn choose_export(engine: &Engine, component: &Component, linked: InstancePre<Guest>) -> Result<Export, PrepareError> {
    let component_type = component.component_type();
    let names: Vec<&str> = component_type.exports(engine).map(|(name, _)| name).collect();
    let exports = |interface: &str| names.iter().any(|name| name.starts_with(interface));
    let export = if exports("wharf:host/handler@0.1") {
        HandlerPre::new(linked).map(Export::Handler)
    } else if exports("wasi:http/handler@0.3") {
        p3::bindings::ServicePre::new(linked).map(Export::HttpP3)
    } else if exports("wasi:http/incoming-handler@0.2") {
        p2::bindings::ProxyPre::new(linked).map(Export::HttpP2)
    } else if exports("wasi:cli/run@0.2") {
        CommandPre::new(linked).map(Export::Program)
    } else {
        let found = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        return Err(PrepareError::NoKnownExport(format!("it has {found}")));
    };
    export.map_err(PrepareError::Link)
}

impl Generation {
    async fn instantiate_in_test(&self, surroundings: Arc<Surroundings>) -> wasmtime::Result<()> {
        let mut store = Guest::store(&self.engine, surroundings, None);
        self.instantiate(&mut store).await.map(drop)
    }
}
