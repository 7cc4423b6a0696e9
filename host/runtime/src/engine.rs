//! The engines: every value that decides how guests are compiled, where they live, and how they are interrupted, with
//! its reason. Knows nothing of services; whoever compiles or loads code uses the engines made here, because compiled
//! code fits only the settings that it was made with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmparser::{Parser, Payload};
use wasmtime::{
    Config, Engine, EngineWeak, Instance, InstanceAllocationStrategy, Module, PoolingAllocationConfig, Store,
};

use crate::settings::RuntimeSettings;

/// How often the epoch advances. A guest that computes is asked at this interval whether it should make room; at
/// 10 ms the checks themselves cannot be measured.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(10);

/// Stack of compiled guest code. Interpreters recurse deeply; the default of 512 KiB is small for them.
const WASM_STACK_BYTES: usize = 1024 * 1024;

/// Stack of a fibre: the guest's, and the host functions that it calls.
const FIBRE_STACK_BYTES: usize = 2 * 1024 * 1024;

/// Largest linear memory the pool reserves address space for: all of a 32-bit memory, so that bounds need no checks.
/// What a service may really use is its memory limit.
const MEMORY_BYTES_MAX: usize = 4 << 30;

/// Elements of one table. C# and JavaScript need more than the default of 20,000.
const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Part of a table that is cleared by hand instead of being returned to the kernel: most guests have small tables,
/// and a page fault costs more than clearing 8 KiB.
const TABLE_KEEP_RESIDENT_BYTES: usize = 8 * 1024;

/// Core instances, memories and tables of one component. Python components link dozens of libraries.
const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 200;
const MEMORIES_PER_COMPONENT_MAX: u32 = 32;
const TABLES_PER_COMPONENT_MAX: u32 = 64;

/// Metadata of one instance. The default of 1 MiB is small for interpreters with tens of thousands of functions.
const INSTANCE_METADATA_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Memories given back to the kernel by one call. Each call stops every processor that runs the host, to make it forget
/// the pages: with 16 instead of 1, half as many requests again are served. Less than so many wait for it on each
/// processor, as large as their instances left them; a large one does not wait.
const MEMORIES_GIVEN_BACK_AT_ONCE: usize = 16;

/// A larger memory is given back at once: what waits is less than 64 MiB for each processor.
const WAITING_MEMORY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The smallest module with a memory (WebAssembly core specification, section 5.5): its one section says that there is
/// one memory, of at least one page.
const MODULE_OF_ONE_PAGE: &[u8] = b"\0asm\x01\0\0\0\x05\x03\x01\x00\x01";

/// How the memory of an instance gets what its component puts there. Fixed when the component is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InitialMemory {
    /// Every instance maps one image and copies a page of it when it writes there: for much data of which little is
    /// written, as interpreters have it.
    Mapped,
    /// Every instance gets a copy. A page that is first read from an image and then written costs two page faults, and
    /// the second one stops every processor that runs the host; a page that is first written costs one, which stops
    /// none. For so little data copying all of it is cheaper.
    Copied,
}

/// Up to so much data is copied: with some twenty pages it is as dear as the three pages that a small guest writes.
const COPIED_DATA_BYTES_MAX: u64 = 32 * 1024;

impl InitialMemory {
    /// What suits a component. A component that is not valid gets any.
    pub(crate) fn for_component(component: &[u8]) -> Self {
        let mut data_bytes = 0;
        for payload in Parser::new(0).parse_all(component) {
            match payload {
                Ok(Payload::DataSection(section)) => data_bytes += section.range().len() as u64,
                Ok(_) => {}
                Err(_) => return Self::Mapped,
            }
        }
        if data_bytes > COPIED_DATA_BYTES_MAX { Self::Mapped } else { Self::Copied }
    }
}

/// The engines, one for each form of initial memory, and the thread that advances their epochs for as long as they
/// exist.
pub(crate) struct GuestEngines {
    pub(crate) mapped: GuestEngine,
    pub(crate) copied: GuestEngine,
    _ticker: Ticker,
}

impl GuestEngines {
    /// Makes the engines: with their pools where the address space suffices, with smaller pools or without them
    /// otherwise (said in the log).
    pub(crate) fn new(settings: &RuntimeSettings) -> Result<Self, wasmtime::Error> {
        let mapped = with_largest_pool(settings, InitialMemory::Mapped)?;
        let copied = with_largest_pool(settings, InitialMemory::Copied)?;
        let ticker = Ticker::start([mapped.weak(), copied.weak()])?;
        let one_page = Module::new(&copied, MODULE_OF_ONE_PAGE)?;
        Ok(Self {
            mapped: GuestEngine { engine: mapped, one_page: None },
            copied: GuestEngine { engine: copied, one_page: Some(one_page) },
            _ticker: ticker,
        })
    }
}

/// An engine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct GuestEngine {
    pub(crate) engine: Engine,
    /// Where memories wait to be given back: the module by which the number is reached for which they wait.
    one_page: Option<Module>,
}

impl GuestEngine {
    /// To be called on the thread that dropped an instance with memories of so many bytes, right after that: where they
    /// are large and would wait, they are given back now. The engine has no other way to ask for it.
    pub(crate) fn dropped(&self, memory_bytes: usize) {
        let Some(one_page) = &self.one_page else { return };
        if memory_bytes <= WAITING_MEMORY_BYTES_MAX {
            return;
        }
        let mut store = Store::new(&self.engine, ());
        for _ in 0..MEMORIES_GIVEN_BACK_AT_ONCE {
            // Without room for another instance the engine gives back what waits by itself.
            if Instance::new(&mut store, one_page, &[]).is_err() {
                return;
            }
        }
    }
}

fn with_largest_pool(settings: &RuntimeSettings, memory: InitialMemory) -> Result<Engine, wasmtime::Error> {
    let mut instances = settings.instances_max.max(1);
    loop {
        let mut config = common_config(memory);
        let pool = pool(instances, memory);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        match Engine::new(&config) {
            Ok(engine) => {
                if instances < settings.instances_max {
                    tracing::warn!(
                        instances,
                        wanted = settings.instances_max,
                        "the address space is limited: fewer instances at once than configured"
                    );
                }
                return Ok(engine);
            }
            Err(error) if instances <= 16 => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the address space has no room for a pool of instances: each gets memory of its own, slower"
                );
                return Engine::new(&common_config(memory));
            }
            Err(_) => instances /= 4,
        }
    }
}

fn common_config(memory: InitialMemory) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.max_wasm_stack(WASM_STACK_BYTES);
    config.async_stack_size(FIBRE_STACK_BYTES);
    config.memory_init_cow(memory == InitialMemory::Mapped);
    config.wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable);
    config
}

fn pool(instances: u32, memory: InitialMemory) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances);
    // A component in an interpreted language is several core instances, and shares one memory among them.
    pool.total_core_instances(instances.saturating_mul(4));
    pool.total_memories(instances);
    pool.total_tables(instances.saturating_mul(2));
    pool.total_stacks(instances);
    pool.total_gc_heaps(instances.min(100));
    pool.max_memory_size(MEMORY_BYTES_MAX);
    pool.table_elements(TABLE_ELEMENTS_MAX);
    pool.max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT_MAX);
    pool.max_memories_per_component(MEMORIES_PER_COMPONENT_MAX);
    pool.max_tables_per_component(TABLES_PER_COMPONENT_MAX);
    pool.max_memories_per_module(2);
    pool.max_tables_per_module(2);
    pool.max_core_instance_size(INSTANCE_METADATA_BYTES_MAX);
    pool.max_component_instance_size(INSTANCE_METADATA_BYTES_MAX);
    pool.table_keep_resident(TABLE_KEEP_RESIDENT_BYTES);
    if memory == InitialMemory::Copied {
        // Not for the others, whose instances may have touched tens of megabytes each.
        pool.decommit_batch_size(MEMORIES_GIVEN_BACK_AT_ONCE);
    }
    pool
}

/// The thread that advances the epochs.
struct Ticker {
    stop: Arc<AtomicBool>,
}

impl Ticker {
    fn start(engines: [EngineWeak; 2]) -> Result<Self, wasmtime::Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new().name("epoch".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(EPOCH_TICK);
                for engine in engines.iter().filter_map(EngineWeak::upgrade) {
                    engine.increment_epoch();
                }
            }
        })?;
        Ok(Self { stop })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
