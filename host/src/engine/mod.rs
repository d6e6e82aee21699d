//! Runs components: compiles them, keeps the current version of each module, makes one instance for a delivery and
//! ends it at its limits. Knows nothing of HTTP.

mod cache;
mod instance;
mod limits;
mod registry;
mod version;
mod watch;

pub mod fit;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

pub use instance::{Ended, Failure, Retry};
pub use limits::{LimitReached, Limits};
pub use registry::{Registry, Status};
pub use version::{ContentHash, Spec, Version};
pub use watch::FileWatch;

use crate::capabilities::{self, WorldPre};
use cache::Cache;
use fit::Misfit;
use instance::State;
use version::Needs;

/// How many components are compiled at once; compiling one uses every core as it is.
const COMPILED_AT_ONCE: usize = 2;

/// The machine that runs components: one a process.
#[derive(Clone)]
pub struct Engine {
    wasmtime: wasmtime::Engine,
    linker: Arc<Linker<State>>,
    compiling: Arc<Semaphore>,
    cache: Option<Arc<Cache>>,
    /// The components that are loaded, each once however many modules are made of it.
    loaded: Arc<Mutex<HashMap<ContentHash, Arc<Place>>>>,
}

/// Where a loaded component is found for as long as some version needs it; locked while it is being loaded.
type Place = tokio::sync::Mutex<Weak<Loaded>>;

/// A component, ready to be instantiated.
pub(crate) struct Loaded {
    hash: ContentHash,
    world: WorldPre<State>,
    needs: Needs,
}

/// How large the compiled components on disk may be together, in bytes; what was used longest ago goes first.
const CACHE_BYTES: u64 = 4 << 30;

/// Why a component can't serve.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It can't be read.
    #[error("can't read {path}: {error}")]
    Unreadable {
        /// Its file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// It doesn't fit the world.
    #[error("{0}")]
    Misfit(#[from] Misfit),
    /// It needs more memory to begin with than it may have.
    #[error("it wants {wanted} bytes of memory to begin with, `limits.memory` is {limit}")]
    Memory {
        /// What it wants.
        wanted: u64,
        /// What it may have.
        limit: u64,
    },
    /// It imports the key-value store, and may have none of it.
    #[error(
        "it imports {imports}, and `limits.keyvalue` of the module is 0: it may keep no values; give it a size in \
         modules.toml (10MiB, where the line is left out), or build the module without"
    )]
    NoKeyValue {
        /// The interfaces it imports of it.
        imports: String,
    },
    /// Wasmtime refuses it for another reason.
    #[error("it can't be compiled: {0}")]
    Compile(String),
}

impl Engine {
    /// Starts an engine for so many instances at once.
    ///
    /// # Errors
    ///
    /// When this machine can't run Wasmtime.
    pub fn new(instances: usize) -> wasmtime::Result<Self> {
        let wasmtime = match wasmtime::Engine::new(&wasmtime_config(Some(instances))) {
            Ok(engine) => engine,
            Err(error) => {
                tracing::info!("instances are made on demand, since a pool of {instances} doesn't fit: {error:#}");
                wasmtime::Engine::new(&wasmtime_config(None))?
            }
        };
        start_clock(&wasmtime)?;
        let mut linker = Linker::new(&wasmtime);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        capabilities::link(&mut linker)?;
        let compiling = Arc::new(Semaphore::new(COMPILED_AT_ONCE));
        Ok(Self { wasmtime, linker: Arc::new(linker), compiling, cache: None, loaded: Arc::default() })
    }

    /// Keeps what it compiles in this folder, and maps it from there the next time. A folder that can't be used is said to
    /// be, and does no harm.
    pub fn with_cache(mut self, folder: PathBuf) -> Self {
        let shown = folder.display().to_string();
        match Cache::open(folder, &self.wasmtime, CACHE_BYTES) {
            Ok(cache) => self.cache = Some(Arc::new(cache)),
            Err(error) => tracing::warn!(folder = shown, "compiled components are not kept there: {error}"),
        }
        self
    }

    /// Makes a version of a module out of its component's bytes.
    ///
    /// # Errors
    ///
    /// When the bytes are no component, or one that doesn't fit the world or the module's limits.
    pub async fn load(&self, bytes: Vec<u8>, spec: &Spec) -> Result<Version, LoadError> {
        let place = self.place(ContentHash::of(&bytes));
        let mut known = place.lock().await;
        let loaded = match known.upgrade() {
            Some(loaded) => loaded,
            None => {
                let loaded = Arc::new(self.load_new(bytes, spec).await?);
                *known = Arc::downgrade(&loaded);
                loaded
            }
        };
        drop(known);
        loaded.needs.met_by(spec)?;
        Ok(Version::new(loaded, spec))
    }

    /// The place of a component; those of components that nobody needs any more are cleared away.
    fn place(&self, hash: ContentHash) -> Arc<Place> {
        let mut places = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, place| {
            Arc::strong_count(place) > 1 || place.try_lock().is_ok_and(|loaded| loaded.strong_count() > 0)
        });
        places.entry(hash).or_default().clone()
    }

    async fn load_new(&self, bytes: Vec<u8>, spec: &Spec) -> Result<Loaded, LoadError> {
        let turn = self.compiling.clone().acquire_owned().await;
        let (engine, spec) = (self.clone(), spec.clone());
        let loaded = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            engine.compile(&bytes, &spec)
        });
        loaded.await.unwrap_or_else(|panic| Err(LoadError::Compile(format!("the compiler broke off: {panic}"))))
    }

    fn compile(&self, bytes: &[u8], spec: &Spec) -> Result<Loaded, LoadError> {
        let anatomy = fit::examine(bytes, fit::MAX_SIZE)?;
        anatomy.fit()?;
        let needs = Needs::of(&anatomy);
        needs.met_by(spec)?;
        let hash = ContentHash::of(bytes);
        let refused = |error: wasmtime::Error| LoadError::Compile(format!("{error:#}"));
        let component = match self.cache.as_ref().and_then(|cache| cache.get(&self.wasmtime, hash)) {
            Some(component) => {
                tracing::debug!(version = %hash, "mapped: it was compiled before");
                component
            }
            None => {
                let component = Component::from_binary(&self.wasmtime, bytes).map_err(refused)?;
                tracing::debug!(version = %hash, "compiled");
                if let Some(cache) = &self.cache {
                    cache.put(hash, &component);
                }
                component
            }
        };
        let instance = self.linker.instantiate_pre(&component).map_err(refused)?;
        let world = WorldPre::new(instance).map_err(refused)?;
        Ok(Loaded { hash, world, needs })
    }
}

/// The settings of Wasmtime: guests are interrupted by the clock, and instances come from a pool of this size if one is
/// asked for.
///
/// Public for the benchmark, which runs Wasmtime alone with the same settings.
pub fn wasmtime_config(instances: Option<usize>) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.wasm_component_model(true);
    if let Some(instances) = instances {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
    }
    config
}

/// A pool of instances. What stays resident between two deliveries is what makes instances cheap: without it every
/// delivery pays for page faults, and with more than one thread for the kernel's locks.
fn pool(instances: usize) -> PoolingAllocationConfig {
    // A component made by QuickJS has dozens of core instances; the totals have to be multiples of these.
    const CORE_INSTANCES: u32 = 60;
    const MEMORIES: u32 = 4;
    const TABLES: u32 = 20;
    let instances = u32::try_from(instances).unwrap_or(u32::MAX / CORE_INSTANCES).max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MEMORIES))
        .total_tables(instances.saturating_mul(TABLES))
        .total_stacks(instances)
        .linear_memory_keep_resident(512 * 1024)
        .table_keep_resident(64 * 1024)
        .async_stack_keep_resident(64 * 1024)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// Ticks for as long as the engine lives.
fn start_clock(engine: &wasmtime::Engine) -> wasmtime::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(limits::TICK);
        }
    };
    std::thread::Builder::new().name("modhost-clock".into()).spawn(tick)?;
    Ok(())
}

/// How long something took, for people.
fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
