//! Wasmtime's configuration: engines, the linker, and the compilation of components.

use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Component, Linker};
use wasmtime::{
    Config, Enabled, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy, WasmBacktraceDetails,
};
use wasmtime_wasi::p2::bindings::LinkOptions;

use super::instance::StoreData;
use super::limits;
use crate::capabilities::{self, WorldPre};
use modhost_core::limits::DEFAULT_STACK;
use modhost_core::sync::lock;

/// The maximum number of core instances of a component in the pool. A component built with QuickJS has dozens.
const CORE_INSTANCES: u32 = 60;
/// The maximum number of memories of a component in the pool.
const MEMORIES: u32 = 4;
/// The maximum number of tables of a component in the pool.
const TABLES: u32 = 20;

/// The maximum number of elements of a table in the pool: as many as `limits.tables` can allow. Unused elements take no
/// memory.
const TABLE_ELEMENTS: usize = 200_000;

/// The default stack of a guest, in bytes.
const DEFAULT_STACK_BYTES: usize = DEFAULT_STACK as usize;

/// The stack for host functions, in addition to the guest's stack, in bytes.
const HOST_STACK: usize = 3 << 19;

/// The compiler and the debug information it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Tier {
    /// Cranelift: fast code.
    #[value(name = "fast")]
    Optimized,
    /// Cranelift, with source lines if the component has debug information.
    #[value(name = "lined")]
    WithLines,
    /// Winch: fast compilation, with source lines.
    #[value(name = "quick")]
    Baseline,
}

impl Tier {
    /// Returns its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Optimized => "fast",
            Self::WithLines => "lined",
            Self::Baseline => "quick",
        }
    }
}

/// A Wasmtime engine with a linker for the host's functions.
pub(super) struct WasmtimeEngine {
    pub engine: wasmtime::Engine,
    linker: Linker<StoreData>,
    /// One permit per pool slot, acquired before an instance is created; `None` without a pool.
    slots: Option<Arc<Semaphore>>,
}

/// A compiled and linked component, ready to instantiate.
pub(super) struct LinkedComponent {
    world: WorldPre<StoreData>,
    memories: usize,
    slots: Option<Arc<Semaphore>>,
}

impl WasmtimeEngine {
    /// Creates an engine with a pool of `instances`, whose guests have a stack of `stack` bytes.
    pub fn pooled(tier: Tier, instances: usize, stack: usize) -> wasmtime::Result<Self> {
        Self::new(tier, Some(instances), stack)
    }

    /// Creates an engine that allocates instances on demand, whose guests have a stack of `stack` bytes.
    pub fn on_demand(tier: Tier, stack: usize) -> wasmtime::Result<Self> {
        Self::new(tier, None, stack)
    }

    fn new(tier: Tier, instances: Option<usize>, stack: usize) -> wasmtime::Result<Self> {
        let engine = wasmtime::Engine::new(&config(tier, instances, stack))?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_with_options_async(&mut linker, &wasi_options())?;
        capabilities::link(&mut linker)?;
        Ok(Self { engine, linker, slots: instances.map(|instances| Arc::new(Semaphore::new(instances))) })
    }

    /// Links a component of this engine.
    pub fn link(&self, component: &Component) -> wasmtime::Result<LinkedComponent> {
        let world = WorldPre::new(self.linker.instantiate_pre(component)?)?;
        // Unknown only for a component that imports core modules, and such a component doesn't link.
        let memories = component.resources_required().map_or(0, |resources| resources.num_memories as usize);
        Ok(LinkedComponent { world, memories, slots: self.slots.clone() })
    }
}

/// Returns link options with all of WASI 0.2: some toolchains import functions that its WIT marks as unstable.
fn wasi_options() -> LinkOptions {
    let mut options = LinkOptions::default();
    options.network_error_code(true);
    options
}

impl LinkedComponent {
    pub fn engine(&self) -> &wasmtime::Engine {
        self.world.engine()
    }

    /// Returns the number of memories of an instance.
    pub fn memories(&self) -> usize {
        self.memories
    }

    pub fn world(&self) -> &WorldPre<StoreData> {
        &self.world
    }

    /// Waits for a pool slot; `None` without a pool. The instance must be dropped before the permit.
    pub async fn acquire_pool_slot(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        self.slots.clone()?.acquire_owned().await.ok()
    }
}

/// Compiles a component to code that can be mapped.
///
/// The engine that compiles has no pool. Code doesn't depend on the pool or the stack size, so the engines that serve
/// accept it.
///
/// # Errors
///
/// The compiler's message.
pub(super) fn compile(component: &[u8], tier: Tier) -> Result<Vec<u8>, String> {
    let engine =
        wasmtime::Engine::new(&config(tier, None, DEFAULT_STACK_BYTES)).map_err(|error| format!("{error:#}"))?;
    engine.precompile_component(component).map_err(|error| format!("{error:#}"))
}

/// Returns the Wasmtime configuration: epoch interruption, and a pool of `instances` if given.
///
/// Public for the benchmark, which runs Wasmtime without the host under the same configuration.
pub fn wasmtime_config(instances: Option<usize>) -> Config {
    config(Tier::Optimized, instances, DEFAULT_STACK_BYTES)
}

fn config(tier: Tier, instances: Option<usize>, stack: usize) -> Config {
    let mut config = Config::new();
    config.max_wasm_stack(stack);
    config.async_stack_size(stack.saturating_add(HOST_STACK));
    // A deep recursion leaves its stack pages resident in the pool slot, which is a lot of memory if the stack is
    // large. Zeroing returns them but costs one system call per delivery, so it is off for the default stack.
    config.async_stack_zeroing(stack > DEFAULT_STACK_BYTES);
    config.epoch_interruption(true);
    config.wasm_component_model(true);
    // Backtraces with source lines parse the guest's debug information in this process without a limit, and a crafted
    // megabyte can take gigabytes of memory. So they are only for trusted components.
    config.wasm_backtrace_details(match tier {
        Tier::Optimized => WasmBacktraceDetails::Disable,
        Tier::WithLines | Tier::Baseline => WasmBacktraceDetails::Enable,
    });
    if tier == Tier::Baseline {
        config.strategy(Strategy::Winch);
    }
    if let Some(instances) = instances {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
    }
    config
}

/// Returns the configuration of the instance pool. Memory that stays resident between deliveries keeps instantiation
/// cheap: without it every delivery pays for page faults and, with several threads, for contention in the kernel.
fn pool(instances: usize) -> PoolingAllocationConfig {
    let instances = u32::try_from(instances).unwrap_or(u32::MAX / CORE_INSTANCES).max(1);
    let mut pool = PoolingAllocationConfig::new();
    // The totals must be multiples of the limits per component.
    pool.total_component_instances(instances)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MEMORIES))
        .total_tables(instances.saturating_mul(TABLES))
        .total_stacks(instances)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(512 * 1024)
        .table_keep_resident(64 * 1024)
        .async_stack_keep_resident(64 * 1024)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// Advances the epochs of engines, so that running guests yield: every [`limits::TICK`], and on demand.
#[derive(Default)]
pub(super) struct EpochClock(Mutex<Vec<EngineWeak>>);

impl EpochClock {
    /// Starts a clock with a thread of its own, which ends when the clock is dropped.
    ///
    /// # Errors
    ///
    /// If the operating system refuses to start a thread.
    pub(super) fn start() -> std::io::Result<Arc<Self>> {
        let clock = Arc::<Self>::default();
        let weak = Arc::downgrade(&clock);
        let tick = move || {
            while let Some(clock) = weak.upgrade() {
                clock.advance();
                drop(clock);
                std::thread::sleep(limits::TICK);
            }
        };
        std::thread::Builder::new().name("modhost-clock".into()).spawn(tick)?;
        Ok(clock)
    }

    /// Adds an engine.
    pub(super) fn add(&self, engine: &WasmtimeEngine) {
        lock(&self.0).push(engine.engine.weak());
    }

    /// Makes all running guests yield.
    pub(super) fn advance(&self) {
        for engine in lock(&self.0).iter().filter_map(EngineWeak::upgrade) {
            engine.increment_epoch();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use super::*;

    /// Returns a hash of the settings that affect compiled code.
    fn compiler(engine: &wasmtime::Engine) -> u64 {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn pool_and_stack_size_do_not_affect_compiled_code() {
        let engine =
            |tier, instances, stack| wasmtime::Engine::new(&config(tier, instances, stack)).expect("an engine");
        let alone = engine(Tier::Optimized, None, DEFAULT_STACK_BYTES);
        assert_eq!(compiler(&alone), compiler(&engine(Tier::Optimized, Some(8), DEFAULT_STACK_BYTES)));
        assert_eq!(compiler(&alone), compiler(&engine(Tier::Optimized, Some(8), 4 * DEFAULT_STACK_BYTES)));
        for other in [Tier::WithLines, Tier::Baseline] {
            let other = engine(other, None, DEFAULT_STACK_BYTES);
            assert_ne!(compiler(&alone), compiler(&other), "they would share cache entries");
        }
    }
}
