//! The engine: every value that decides how guests are compiled, where they live, and how they are interrupted, with
//! its reason. Knows nothing of services; whoever compiles or loads code uses the engine made here, because compiled
//! code fits only the settings that it was made with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

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

/// With the kernel's report of dirty pages, so much of a memory is cleared by hand.
const MEMORY_KEEP_RESIDENT_WITH_SCAN_BYTES: usize = 2 * 1024 * 1024;

/// Core instances, memories and tables of one component. Python components link dozens of libraries.
const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 200;
const MEMORIES_PER_COMPONENT_MAX: u32 = 32;
const TABLES_PER_COMPONENT_MAX: u32 = 64;

/// Metadata of one instance. The default of 1 MiB is small for interpreters with tens of thousands of functions.
const INSTANCE_METADATA_BYTES_MAX: usize = 10 * 1024 * 1024;

/// The engine, and the thread that advances its epoch for as long as it exists.
#[derive(Clone)]
pub(crate) struct GuestEngine {
    pub(crate) engine: Engine,
    _ticker: Arc<Ticker>,
}

impl GuestEngine {
    /// Makes the engine: with the pool where the address space suffices, with a smaller pool or without one
    /// otherwise (said in the log).
    pub(crate) fn new(settings: &RuntimeSettings) -> Result<Self, wasmtime::Error> {
        let engine = Self::with_largest_pool(settings)?;
        let ticker = Arc::new(Ticker::start(&engine)?);
        Ok(Self { engine, _ticker: ticker })
    }

    fn with_largest_pool(settings: &RuntimeSettings) -> Result<Engine, wasmtime::Error> {
        let mut instances = settings.instances_max.max(1);
        loop {
            let mut config = common_config();
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances, settings.pagemap_scan)));
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
                    return Engine::new(&common_config());
                }
                Err(_) => instances /= 4,
            }
        }
    }
}

fn common_config() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.max_wasm_stack(WASM_STACK_BYTES);
    config.async_stack_size(FIBRE_STACK_BYTES);
    // Copy-on-write images: an instance maps the initial memory of its component and pays only for what it writes.
    config.memory_init_cow(true);
    config.wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable);
    config
}

fn pool(instances: u32, pagemap_scan: bool) -> PoolingAllocationConfig {
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
    if pagemap_scan {
        pool.pagemap_scan(Enabled::Auto);
        pool.linear_memory_keep_resident(MEMORY_KEEP_RESIDENT_WITH_SCAN_BYTES);
    }
    pool
}

/// The thread that advances the epoch.
struct Ticker {
    stop: Arc<AtomicBool>,
}

impl Ticker {
    fn start(engine: &Engine) -> Result<Self, wasmtime::Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, engine) = (Arc::clone(&stop), engine.weak());
        std::thread::Builder::new().name("epoch".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(EPOCH_TICK);
                match engine.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
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
