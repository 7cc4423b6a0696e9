//! What the host keeps for one instance of a guest: its resources, its limits, its view of WASI, and the invocation
//! that it serves at the moment. Knows no particular interface of ours; those are in [`crate::imports`].

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::Shared;
use crate::engine::GuestEngine;
use crate::imports::outgoing::OutgoingHttp;
use crate::invocation::InvocationId;
use crate::lane::SliceClock;
use crate::output::{Channel, GuestOutput};
use crate::program::{ProgramInput, ProgramOutput};
use crate::settings::LiveSettings;

/// Resources that a guest may hold at once: bodies, streams, pollables, connections. A guest that needs more leaks.
const RESOURCES_MAX: usize = 10_000;

/// Elements of all tables of an instance together; what the pool reserves for the tables of one component.
const TABLE_ELEMENTS_MAX: usize = 1_000_000;

/// Bytes that one call between guest and host may carry in lists and strings; larger content is a body.
const CALL_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What an invocation is surrounded by, for as long as it runs.
pub(crate) struct Surroundings {
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: Arc<LiveSettings>,
    pub(crate) service: Arc<str>,
    pub(crate) id: InvocationId,
    pub(crate) deadline: Instant,
    pub(crate) chain: Arc<CallChain>,
    pub(crate) clock: Arc<SliceClock>,
}

/// The services that called each other until this one was reached.
pub(crate) struct CallChain {
    service: Arc<str>,
    depth: usize,
    caller: Option<Arc<Self>>,
}

impl CallChain {
    pub(crate) fn new(service: Arc<str>, caller: Option<Arc<Self>>) -> Arc<Self> {
        let depth = caller.as_ref().map_or(1, |caller| caller.depth + 1);
        Arc::new(Self { service, depth, caller })
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn contains(&self, service: &str) -> bool {
        &*self.service == service || self.caller.as_ref().is_some_and(|caller| caller.contains(service))
    }

    /// `first -> second -> this`.
    pub(crate) fn describe(&self) -> String {
        match &self.caller {
            Some(caller) => format!("{} -> {}", caller.describe(), self.service),
            None => self.service.to_string(),
        }
    }
}

/// The data of a store.
pub(crate) struct Guest {
    pub(crate) table: ResourceTable,
    pub(crate) output: GuestOutput,
    pub(crate) surroundings: Arc<Surroundings>,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: OutgoingHttp,
    limits: InstanceLimits,
}

impl Guest {
    /// A store for one instance. `program` is the input and output of a guest that is a plain program; for others
    /// input is empty and output goes to the log.
    pub(crate) fn store(
        engine: &GuestEngine,
        surroundings: Arc<Surroundings>,
        program: Option<(ProgramInput, ProgramOutput)>,
    ) -> GuestStore {
        let memory_bytes_max = surroundings.settings.service(&surroundings.service).memory_bytes_max;
        let output = GuestOutput::new(Arc::clone(&surroundings.service), surroundings.id.clone());
        // Clocks and random numbers are what this context gives; no file system, no environment, no sockets.
        let mut wasi = WasiCtx::builder();
        wasi.stderr(output.stream(Channel::Error));
        match program {
            Some((input, answer)) => {
                wasi.stdin(input);
                wasi.stdout(answer);
            }
            None => {
                wasi.stdout(output.stream(Channel::Output));
            }
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let guest = Self {
            table,
            output,
            outgoing: OutgoingHttp::new(Arc::clone(&surroundings)),
            surroundings,
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            limits: InstanceLimits { memory_bytes: 0, memory_bytes_max, table_elements: 0, refused: false },
        };
        let mut store = Store::new(&engine.engine, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(CALL_BYTES_MAX);
        // At each tick of the epoch a computing guest comes here. One that has had its slice makes room.
        store.epoch_deadline_callback(|context| {
            Ok(if context.data().surroundings.clock.slice_is_over() {
                UpdateDeadline::Yield(1)
            } else {
                UpdateDeadline::Continue(1)
            })
        });
        store.set_epoch_deadline(1);
        GuestStore { store, after: AfterStore { engine: engine.clone(), memory_bytes: 0 } }
    }

    /// Prepares a reused instance for its next invocation.
    pub(crate) fn begin(&mut self, surroundings: Arc<Surroundings>) {
        self.output.begin(surroundings.id.clone());
        self.outgoing = OutgoingHttp::new(Arc::clone(&surroundings));
        self.surroundings = surroundings;
    }

    /// The memory that the instance may use, in bytes.
    pub(crate) fn memory_bytes_max(&self) -> u64 {
        self.limits.memory_bytes_max
    }

    /// The memory limit, when the instance was refused more.
    pub(crate) fn memory_limit_reached(&self) -> Option<u64> {
        self.limits.refused.then_some(self.limits.memory_bytes_max)
    }
}

/// A store, and what follows when it is dropped, be it in the middle of a call.
pub(crate) struct GuestStore {
    // Dropped in this order.
    store: Store<Guest>,
    after: AfterStore,
}

/// Tells the engine that the store is gone.
struct AfterStore {
    engine: GuestEngine,
    memory_bytes: usize,
}

impl Deref for GuestStore {
    type Target = Store<Guest>;

    fn deref(&self) -> &Store<Guest> {
        &self.store
    }
}

impl DerefMut for GuestStore {
    fn deref_mut(&mut self) -> &mut Store<Guest> {
        &mut self.store
    }
}

impl Drop for GuestStore {
    fn drop(&mut self) {
        self.after.memory_bytes = self.store.data().limits.memory_bytes;
    }
}

impl Drop for AfterStore {
    fn drop(&mut self) {
        self.engine.dropped(self.memory_bytes);
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}

/// Memory and tables of one instance, summed over all that its component has.
struct InstanceLimits {
    memory_bytes: usize,
    memory_bytes_max: u64,
    table_elements: usize,
    refused: bool,
}

impl ResourceLimiter for InstanceLimits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if total as u64 > self.memory_bytes_max {
            // A guest is told by `memory.grow` and may cope; most abort, and their record says why.
            self.refused = true;
            return Ok(false);
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current));
        if total > TABLE_ELEMENTS_MAX {
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }
}
