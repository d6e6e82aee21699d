//! Runs components: has them compiled, keeps the current version of each module, makes one instance for a delivery and
//! ends it at its limits. Knows nothing of HTTP.

mod backtrace;
mod cache;
mod compile;
mod dry_run;
mod file;
mod instance;
mod limits;
mod loaded_components;
mod registry;
mod sources;
mod version;
mod wasmtime_engine;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

pub use compile::{ChildArgs, CompileError, Compiler, CompilerLimits, Priority, run_child, this_program};
pub use dry_run::{DryRunOutcome, RecordedDelivery, dry_run};
pub use instance::{Ended, Failure, NO_REPLY, Retry};
pub use loaded_components::Compiled;
pub use registry::{
    CanaryStatus, Chosen, MAX_CONCURRENT_DRY_RUNS, MissingEvidence, OrderError, Registry, Status, Waiting,
    WaitingModule,
};
pub use version::{CanaryPolicy, ContentHash, Spec, SwapPolicy, Version};
pub use wasmtime_engine::wasmtime_config;
pub use watch::FileWatch;
pub use watch::{Stamp, stamp, stamps};

use cache::Cache;
use compile::Compilers;
use loaded_components::LoadedComponents;
use modhost_contract::compat::Incompatibility;
use modhost_core::limits::{DEFAULT_STACK, LimitReached};
use wasmtime_engine::{Tier, WasmtimeEngine};

/// The machine that runs components: one a process.
#[derive(Clone)]
pub struct Engine {
    /// What serves, if the address space has room for its pool.
    pooled: Option<Arc<WasmtimeEngine>>,
    /// What serves components that don't fit the pool, and all of them where there is none. It takes the same code.
    on_demand: Arc<WasmtimeEngine>,
    /// What serves large components until they are compiled for the others.
    quick: Option<Arc<WasmtimeEngine>>,
    /// What components are compiled by to serve.
    tier: Tier,
    compilers: Arc<Compilers>,
    cache: Arc<Mutex<Option<Arc<Cache>>>>,
    /// Where compiled components are found that aren't in the cache.
    shared_cache: Option<Arc<Cache>>,
    /// The components that are loaded, each once however many modules are made of it.
    places: Arc<Mutex<LoadedComponents>>,
    /// How many files are looked through and mapped at once: each keeps a core busy.
    readers: Arc<Semaphore>,
}

/// How large the compiled components on disk may be together, in bytes; what was used longest ago goes first.
const CACHE_BYTES: u64 = 4 << 30;

/// Why a component can't serve.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It can't be read.
    #[error("can't read {path}: {}", unreadable(error))]
    Unreadable {
        /// Its file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// It doesn't fit the world.
    #[error("{0}")]
    Incompatibility(#[from] Incompatibility),
    /// It needs more to begin with than it may have.
    #[error("it can't begin within its limits: {0}")]
    Limit(LimitReached),
    /// It imports the key-value store, and may have none of it.
    #[error(
        "it imports {imports}, and {setting} is 0: it may keep no values; give it a size in modules.toml (10MiB, where \
         the line is left out), or build the module without"
    )]
    NoKeyValue {
        /// The interfaces it imports of it.
        imports: String,
        /// The setting that leaves it no room.
        setting: String,
    },
    /// It imports what HTTP requests are sent by, and may send none.
    #[error(
        "it imports {imports}, and the module may send no HTTP requests: add http = [\"api.example.com\"], with the hosts \
         it needs, to the module in modules.toml{place}, or build it without"
    )]
    NoHttp {
        /// The interface it imports.
        imports: String,
        /// Where the module stands in the file, in brackets; empty if nobody knows.
        place: String,
    },
    /// It isn't compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl Engine {
    /// Starts an engine for so many instances at once; more of them wait their turn. It compiles in this process, until
    /// it is given another compiler.
    ///
    /// # Errors
    ///
    /// When this machine can't run Wasmtime.
    pub fn new(instances: usize) -> wasmtime::Result<Self> {
        Self::with_stack(instances, DEFAULT_STACK)
    }

    /// The same, where the calls inside a component have a stack of so many bytes.
    ///
    /// # Errors
    ///
    /// When this machine can't run Wasmtime.
    pub fn with_stack(instances: usize, stack: u64) -> wasmtime::Result<Self> {
        Self::start(instances, stack, Tier::Fast)
    }

    /// The same, for the authors of the components it runs: one that breaks says in which line, if it was built to. Whoever
    /// made a component can make that take all of the host's memory, so it has to be one that is trusted.
    ///
    /// # Errors
    ///
    /// When this machine can't run Wasmtime.
    pub fn for_authors(instances: usize, stack: u64) -> wasmtime::Result<Self> {
        Self::start(instances, stack, Tier::Lined)
    }

    fn start(instances: usize, stack: u64, tier: Tier) -> wasmtime::Result<Self> {
        let stack = usize::try_from(stack)?;
        let pooled = match WasmtimeEngine::pooled(tier, instances, stack) {
            Ok(machine) => {
                tracing::info!(instances, "instance pool ready");
                Some(Arc::new(machine))
            }
            Err(error) => {
                tracing::info!(
                    instances,
                    error = format!("{error:#}"),
                    "cannot reserve the instance pool; instances are created on demand"
                );
                None
            }
        };
        let on_demand = Arc::new(WasmtimeEngine::on_demand(tier, stack)?);
        wasmtime_engine::start_clock(pooled.iter().chain([&on_demand]))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            pooled,
            on_demand,
            quick: None,
            tier,
            compilers: Arc::new(Compilers::new(Compiler::default())),
            cache: Arc::default(),
            shared_cache: None,
            places: Arc::default(),
            readers: Arc::new(Semaphore::new(cores)),
        })
    }

    /// Leaves compiling to this compiler.
    pub fn with_compiler(mut self, compiler: Compiler) -> Self {
        self.compilers = Arc::new(Compilers::new(compiler));
        self
    }

    /// Keeps what it compiles in this folder, and maps it from there the next time. A folder that can't be used is said to
    /// be, and does no harm.
    pub fn with_cache(mut self, folder: PathBuf) -> Self {
        let shown = folder.display().to_string();
        match Cache::open(folder, &self.on_demand.engine, CACHE_BYTES) {
            Ok(cache) => self.cache = Arc::new(Mutex::new(Some(Arc::new(cache)))),
            Err(error) => {
                tracing::warn!(folder = shown, %error, "cannot use the cache; compiled components are not kept")
            }
        }
        self
    }

    /// Maps what isn't in its own cache from this folder, if it is there: what another command has compiled for this user.
    /// Without the folder there is nothing to find.
    pub fn with_shared_cache(mut self, folder: PathBuf) -> Self {
        if folder.is_dir() {
            // What can't be used is as good as empty.
            self.shared_cache = Cache::open(folder, &self.on_demand.engine, CACHE_BYTES).ok().map(Arc::new);
        }
        self
    }

    /// Lets a large component serve as soon as it is compiled quickly; the code that runs faster takes over when it is
    /// ready. For those who wait for what they have just built.
    ///
    /// # Errors
    ///
    /// When this machine can't run Wasmtime.
    pub fn with_quick_start(mut self) -> wasmtime::Result<Self> {
        let stack = self.on_demand.engine.get_max_wasm_stack();
        let quick = Arc::new(WasmtimeEngine::on_demand(Tier::Quick, stack)?);
        wasmtime_engine::start_clock([&quick].into_iter())?;
        self.quick = Some(quick);
        Ok(self)
    }
}

/// Why a file can't be read, for people.
fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file; it is taken in as soon as there is".to_owned(),
        _ => error.to_string(),
    }
}

/// How long something took, for people.
fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
