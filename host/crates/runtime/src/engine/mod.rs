//! Compiles components, keeps the serving version of each module, and runs each delivery in a new instance within its
//! limits. This module doesn't depend on HTTP.

mod backtrace;
mod cache;
mod compile;
mod cpu_time;
mod dry_run;
mod executor;
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

use tokio::sync::Semaphore;

pub use compile::{
    ChildArgs, CompileError, Compiler, CompilerLimits, CompilerProgram, Priority, run_child, this_program,
};
pub use dry_run::{DryRunOutcome, RecordedDelivery, dry_run};
pub use instance::{Failure, GuestOutcome, NO_REPLY, Retry};
pub use loaded_components::Compiled;
pub use registry::{
    AdminError, CanaryStatus, Chosen, MAX_CONCURRENT_DRY_RUNS, MissingEvidence, Registry, Status, WaitState,
    WaitingModule,
};
pub use version::{CanaryPolicy, ContentHash, Spec, SwapPolicy, Version};
pub use wasmtime_engine::wasmtime_config;
pub use watch::FileWatch;
pub use watch::{Stamp, stamp, stamps};

use cache::Cache;
use compile::Compilers;
use executor::Executor;
use loaded_components::LoadedComponents;
use modhost_contract::compat::Incompatibility;
use modhost_core::event::Name;
use modhost_core::limits::{DEFAULT_STACK, LimitReached};
use wasmtime_engine::{EpochClock, Tier, WasmtimeEngine};

/// The engine that compiles and runs components. A process has one.
#[derive(Clone)]
pub struct Engine {
    /// Runs the instances; `None` if the address space is too small for its pool.
    pooled: Option<Arc<WasmtimeEngine>>,
    /// Runs components that don't fit the pool, and all components if there is no pool. It maps the same compiled code.
    on_demand: Arc<WasmtimeEngine>,
    /// Runs large components on Winch's code until Cranelift's is ready.
    baseline: Option<Arc<WasmtimeEngine>>,
    /// The compiler for versions that serve.
    tier: Tier,
    compilers: Arc<Compilers>,
    /// Runs the instances of all engines.
    executor: Arc<Executor>,
    epochs: Arc<EpochClock>,
    cache: Arc<Mutex<Option<Arc<Cache>>>>,
    /// A second cache, searched for components that aren't in `cache`.
    shared_cache: Option<Arc<Cache>>,
    /// The loaded components. Modules with the same component share one entry.
    components: Arc<Mutex<LoadedComponents>>,
    /// Bounds how many components are examined and mapped at once: each keeps a core busy.
    readers: Arc<Semaphore>,
}

/// The maximum total size of the compiled components on disk, in bytes. The least recently used are removed first.
const CACHE_BYTES: u64 = 4 << 30;

/// The reason why a component can't serve.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be read.
    #[error("can't read {path}: {}", unreadable(error))]
    Unreadable {
        /// The component's file.
        path: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// The component doesn't fit the world.
    #[error("{0}")]
    Incompatibility(#[from] Incompatibility),
    /// The component needs more at its start than its limits allow.
    #[error("it can't start within its limits: {0}")]
    Limit(LimitReached),
    /// The component imports the key-value store, and its limit is 0.
    #[error(
        "it imports {imports}, but {setting} is 0, so it can't store values; set a size in modules.toml (the default is \
         10MiB), or build the module without the import"
    )]
    NoKeyValue {
        /// The imported interfaces of the key-value store.
        imports: String,
        /// The name of the setting that is 0.
        setting: String,
    },
    /// The component imports `wasi:http/outgoing-handler`, and the module may not send HTTP requests.
    #[error(
        "it imports {imports}, and the module may send no HTTP requests: add http = [\"api.example.com\"], with the hosts \
         it needs, to the module in modules.toml{location}, or build the module without the import"
    )]
    NoHttp {
        /// The imported interfaces.
        imports: String,
        /// The module's file and line in modules.toml, in parentheses; empty if unknown.
        location: String,
    },
    /// The component can't be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl Engine {
    /// Creates an engine with a pool of `instances`; further instances wait for a pool slot. It compiles in this
    /// process unless [`with_compiler`](Self::with_compiler) sets another compiler.
    ///
    /// # Errors
    ///
    /// If this machine can't run Wasmtime.
    pub fn new(instances: usize) -> wasmtime::Result<Self> {
        Self::with_stack(instances, DEFAULT_STACK)
    }

    /// Creates an engine whose guests have a stack of `stack` bytes.
    ///
    /// # Errors
    ///
    /// If this machine can't run Wasmtime.
    pub fn with_stack(instances: usize, stack: u64) -> wasmtime::Result<Self> {
        Self::start(instances, stack, Tier::Optimized)
    }

    /// Creates an engine for module authors: a trap reports source lines, if the component has debug information. Use
    /// it only with trusted components, because crafted debug information can exhaust the host's memory.
    ///
    /// # Errors
    ///
    /// If this machine can't run Wasmtime.
    pub fn for_authors(instances: usize, stack: u64) -> wasmtime::Result<Self> {
        Self::start(instances, stack, Tier::WithLines)
    }

    fn start(instances: usize, stack: u64, tier: Tier) -> wasmtime::Result<Self> {
        let stack = usize::try_from(stack)?;
        let pooled = match WasmtimeEngine::pooled(tier, instances, stack) {
            Ok(engine) => {
                tracing::info!(instances, "instance pool ready");
                Some(Arc::new(engine))
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
        let epochs = EpochClock::start()?;
        pooled.iter().chain([&on_demand]).for_each(|engine| epochs.add(engine));
        let interrupt = epochs.clone();
        let executor = Arc::new(Executor::start(move || interrupt.advance())?);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            pooled,
            on_demand,
            baseline: None,
            tier,
            compilers: Arc::new(Compilers::new(Compiler::default())),
            executor,
            epochs,
            cache: Arc::default(),
            shared_cache: None,
            components: Arc::default(),
            readers: Arc::new(Semaphore::new(cores)),
        })
    }

    /// Sets the weights of the tenants' shares of the CPU time. All other tenants have the default weight.
    fn set_cpu_weights(&self, weights: impl IntoIterator<Item = (Name, u32)>) {
        self.executor.set_weights(weights);
    }

    /// Sets the compiler.
    pub fn with_compiler(mut self, compiler: Compiler) -> Self {
        self.compilers = Arc::new(Compilers::new(compiler));
        self
    }

    /// Stores compiled components in this folder and maps them from there the next time. If the folder can't be used,
    /// the engine logs a warning and continues without it.
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

    /// Also searches this folder for components that aren't in the engine's own cache: other commands of the same user
    /// compile into it. A missing folder is ignored.
    pub fn with_shared_cache(mut self, folder: PathBuf) -> Self {
        if folder.is_dir() {
            // An unusable folder is treated as empty.
            self.shared_cache = Cache::open(folder, &self.on_demand.engine, CACHE_BYTES).ok().map(Arc::new);
        }
        self
    }

    /// Compiles large components with Winch first, and switches to Cranelift's faster code when that is ready. This
    /// shortens the wait for an author who has just built a component.
    ///
    /// # Errors
    ///
    /// If this machine can't run Wasmtime.
    pub fn with_quick_start(mut self) -> wasmtime::Result<Self> {
        let stack = self.on_demand.engine.get_max_wasm_stack();
        let baseline = Arc::new(WasmtimeEngine::on_demand(Tier::Baseline, stack)?);
        self.epochs.add(&baseline);
        self.baseline = Some(baseline);
        Ok(self)
    }
}

/// Formats the reason why a file can't be read.
fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file; the host loads it as soon as it exists".to_owned(),
        _ => error.to_string(),
    }
}
