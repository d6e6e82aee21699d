//! Wasmtime, set up: what compiles components, and what makes instances of them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy, WasmBacktraceDetails};
use wasmtime_wasi::p2::bindings::LinkOptions;

use super::instance::State;
use super::limits;
use crate::capabilities::{self, WorldPre};
use modhost_core::limits::DEFAULT_STACK;

/// The core instances one component may have in the pool; one made by QuickJS has dozens.
const CORE_INSTANCES: u32 = 60;
/// The memories one component may have in the pool.
const MEMORIES: u32 = 4;
/// The tables one component may have in the pool.
const TABLES: u32 = 20;

/// How many elements one of them may have: as many as the limits can allow; only what is used takes memory.
const TABLE_ELEMENTS: usize = 200_000;

/// The stack of a delivery's calls where nobody says otherwise, in bytes.
const USUAL_STACK: usize = DEFAULT_STACK as usize;

/// What the host's own functions have of a stack beyond that of the component's calls, in bytes.
const HOST_STACK: usize = 3 << 19;

/// Which of Wasmtime's compilers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Tier {
    /// Cranelift, which makes fast code.
    Fast,
    /// The same, with the lines of the source it is from, where the component has them.
    Lined,
    /// Winch, which makes code fast; with lines, too.
    Quick,
}

impl Tier {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Lined => "lined",
            Self::Quick => "quick",
        }
    }
}

/// One engine of Wasmtime, with the host's functions.
pub(super) struct WasmtimeEngine {
    pub engine: wasmtime::Engine,
    linker: Linker<State>,
    /// The places of its pool, if it has one: whoever makes an instance takes one first.
    places: Option<Arc<Semaphore>>,
}

/// A component, compiled and linked: what instances are made of.
pub(super) struct LinkedComponent {
    world: WorldPre<State>,
    memories: usize,
    places: Option<Arc<Semaphore>>,
}

impl WasmtimeEngine {
    /// Instances out of a pool of this size, whose calls have a stack of so many bytes.
    pub fn pooled(tier: Tier, instances: usize, stack: usize) -> wasmtime::Result<Self> {
        Self::new(tier, Some(instances), stack)
    }

    /// Instances made on demand, as many as are asked for, whose calls have a stack of so many bytes.
    pub fn on_demand(tier: Tier, stack: usize) -> wasmtime::Result<Self> {
        Self::new(tier, None, stack)
    }

    fn new(tier: Tier, instances: Option<usize>, stack: usize) -> wasmtime::Result<Self> {
        let engine = wasmtime::Engine::new(&config(tier, instances, stack))?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_with_options_async(&mut linker, &wasi_options())?;
        capabilities::link(&mut linker)?;
        Ok(Self { engine, linker, places: instances.map(|instances| Arc::new(Semaphore::new(instances))) })
    }

    /// Links a component of this engine.
    pub fn link(&self, component: &Component) -> wasmtime::Result<LinkedComponent> {
        let world = WorldPre::new(self.linker.instantiate_pre(component)?)?;
        // Unknown for a component that imports core modules, which no component here does: it could not be linked.
        let memories = component.resources_required().map_or(0, |resources| resources.num_memories as usize);
        Ok(LinkedComponent { world, memories, places: self.places.clone() })
    }
}

/// All of WASI 0.2 there is: what is still called unstable in its WIT some toolchains import all the same.
fn wasi_options() -> LinkOptions {
    let mut options = LinkOptions::default();
    options.network_error_code(true);
    options
}

impl LinkedComponent {
    pub fn engine(&self) -> &wasmtime::Engine {
        self.world.engine()
    }

    /// The number of memories of an instance.
    pub fn memories(&self) -> usize {
        self.memories
    }

    pub fn world(&self) -> &WorldPre<State> {
        &self.world
    }

    /// Waits for a place in the pool, for an instance that ends before the place is given back.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.places.clone()?.acquire_owned().await.ok()
    }
}

/// Compiles a component to what is mapped later; the reason why not, otherwise.
///
/// The engine for it has no pool. Pool and stack are no part of how code is compiled, so that the engine that serves
/// takes it.
pub(super) fn compile(component: &[u8], tier: Tier) -> Result<Vec<u8>, String> {
    let engine = wasmtime::Engine::new(&config(tier, None, USUAL_STACK)).map_err(|error| format!("{error:#}"))?;
    engine.precompile_component(component).map_err(|error| format!("{error:#}"))
}

/// The settings of Wasmtime: guests are interrupted by the clock, and instances come from a pool of this size if one is
/// asked for.
///
/// Public for the benchmark, which runs Wasmtime alone with the same settings.
pub fn wasmtime_config(instances: Option<usize>) -> Config {
    config(Tier::Fast, instances, USUAL_STACK)
}

fn config(tier: Tier, instances: Option<usize>, stack: usize) -> Config {
    let mut config = Config::new();
    config.max_wasm_stack(stack);
    config.async_stack_size(stack.saturating_add(HOST_STACK));
    // What a deep recursion has written to would stay with its place in the pool, and with a large stack that is much to
    // leave behind. Giving it back costs every delivery a call of the system, so that the usual stack does without.
    config.async_stack_zeroing(stack > USUAL_STACK);
    config.epoch_interruption(true);
    config.wasm_component_model(true);
    // To find the lines of a guest that breaks, its debug information is read in this process, without any limit: a
    // megabyte of it can be made to take gigabytes. So they are for those who trust what they run.
    config.wasm_backtrace_details(match tier {
        Tier::Fast => WasmBacktraceDetails::Disable,
        Tier::Lined | Tier::Quick => WasmBacktraceDetails::Enable,
    });
    if tier == Tier::Quick {
        config.strategy(Strategy::Winch);
    }
    if let Some(instances) = instances {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
    }
    config
}

/// A pool of instances. What stays resident between two deliveries is what makes instances cheap: without it every
/// delivery pays for page faults, and with more than one thread for the kernel's locks.
fn pool(instances: usize) -> PoolingAllocationConfig {
    let instances = u32::try_from(instances).unwrap_or(u32::MAX / CORE_INSTANCES).max(1);
    let mut pool = PoolingAllocationConfig::new();
    // The totals have to be multiples of what one component may have.
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

/// Ticks for as long as one of the engines lives.
pub(super) fn start_clock<'a>(machines: impl Iterator<Item = &'a Arc<WasmtimeEngine>>) -> std::io::Result<()> {
    let engines: Vec<_> = machines.map(|machine| machine.engine.weak()).collect();
    let tick = move || {
        loop {
            let alive = engines.iter().filter_map(|engine| engine.upgrade()).map(|engine| engine.increment_epoch());
            if alive.count() == 0 {
                return;
            }
            std::thread::sleep(limits::TICK);
        }
    };
    std::thread::Builder::new().name("modhost-clock".into()).spawn(tick).map(drop)
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use super::*;

    /// How an engine's code is compiled, as one number.
    fn compiler(engine: &wasmtime::Engine) -> u64 {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn what_is_compiled_without_a_pool_serves_with_one_on_a_stack_of_any_size() {
        let engine =
            |tier, instances, stack| wasmtime::Engine::new(&config(tier, instances, stack)).expect("an engine");
        let alone = engine(Tier::Fast, None, USUAL_STACK);
        assert_eq!(compiler(&alone), compiler(&engine(Tier::Fast, Some(8), USUAL_STACK)));
        assert_eq!(compiler(&alone), compiler(&engine(Tier::Fast, Some(8), 4 * USUAL_STACK)));
        for other in [Tier::Lined, Tier::Quick] {
            let other = engine(other, None, USUAL_STACK);
            assert_ne!(compiler(&alone), compiler(&other), "they would share cache entries");
        }
    }
}
