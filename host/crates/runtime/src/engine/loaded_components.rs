//! Loads components: examines the bytes, finds or compiles the code, maps it, and links it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tempfile::NamedTempFile;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::cache::{Cache, CachedCode};
use super::compile::{CompileError, Job, Priority};
use super::executor::Executor;
use super::file::ComponentFile;
use super::version::{ContentHash, Needs, Spec, Version};
use super::wasmtime_engine::{LinkedComponent, Tier, WasmtimeEngine};
use super::{Engine, LoadError, sources};
use modhost_contract::compat;
use modhost_core::sync::lock;

/// The minimum size of a component that is compiled with Winch first, in bytes. Smaller ones compile fast enough with
/// Cranelift.
const QUICK_START_MIN_BYTES: usize = 1 << 20;

/// A loaded component.
pub(super) struct Loaded {
    needs: Needs,
    code: ArcSwap<LinkedComponent>,
    executor: Arc<Executor>,
    /// Canceled when the component is dropped, which ends its recompilation.
    dropped: CancellationToken,
    _cancel_on_drop: DropGuard,
}

impl Loaded {
    fn new(needs: Needs, code: LinkedComponent, executor: Arc<Executor>) -> Self {
        let dropped = CancellationToken::new();
        let cancel_on_drop = dropped.clone().drop_guard();
        Self { needs, code: ArcSwap::from_pointee(code), executor, dropped, _cancel_on_drop: cancel_on_drop }
    }

    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// Returns the executor of its instances.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Returns the code for the next instance.
    pub fn code(&self) -> Arc<LinkedComponent> {
        self.code.load_full()
    }
}

/// The result of compiling a component.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The duration of the compilation.
    pub took: Duration,
    /// The size of the compiled code, in bytes.
    pub size: u64,
    /// Why its instances don't fit the pool and are allocated on demand; `None` if they fit.
    pub unpooled: Option<String>,
}

/// The loaded components by hash. A component stays loaded as long as a version uses it.
#[derive(Default)]
pub(super) struct LoadedComponents {
    cells: HashMap<ContentHash, Arc<LoadCell>>,
    /// The number of cells at which unused ones are removed: twice as many as remained the last time, so that the cost
    /// per load stays constant.
    clear_at: usize,
}

/// The cell of one component, locked while the component is being loaded.
type LoadCell = tokio::sync::Mutex<Weak<Loaded>>;

impl LoadedComponents {
    fn cell(&mut self, hash: ContentHash) -> Arc<LoadCell> {
        if self.cells.len() >= self.clear_at {
            self.cells.retain(|_, cell| {
                Arc::strong_count(cell) > 1 || cell.try_lock().is_ok_and(|loaded| loaded.strong_count() > 0)
            });
            self.clear_at = (2 * self.cells.len()).max(16);
        }
        self.cells.entry(hash).or_default().clone()
    }

    /// Returns the loaded components, including those that are being loaded.
    fn loaded(&self) -> HashSet<ContentHash> {
        let is_loaded = |cell: &LoadCell| cell.try_lock().map_or(true, |loaded| loaded.strong_count() > 0);
        self.cells.iter().filter(|(_, cell)| is_loaded(cell)).map(|(hash, _)| *hash).collect()
    }
}

/// The result of examining a component's bytes.
struct Lookup {
    needs: Needs,
    /// The code from a cache, if any.
    code: Option<LinkedComponent>,
}

/// A file with compiled code.
struct CachedFile {
    /// The cache the file belongs to.
    cache: Arc<Cache>,
    file: NamedTempFile,
    took: Duration,
}

impl Engine {
    /// Loads a component as a version of a module, with the highest priority.
    ///
    /// # Errors
    ///
    /// If the bytes aren't a component, or the component doesn't fit the world or the module's limits, or can't be
    /// compiled.
    pub async fn load(&self, bytes: Vec<u8>, spec: &Spec) -> Result<Version, LoadError> {
        let file = off_thread(move || Ok(ComponentFile::new(bytes))).await?;
        self.load_file(file, spec, Priority::Initial).await
    }

    /// Loads a component that was hashed as a version of a module, with a priority in the compile queue. A component whose
    /// code is cached doesn't queue.
    ///
    /// # Errors
    ///
    /// See [`Engine::load`].
    pub(super) async fn load_file(
        &self,
        file: ComponentFile,
        spec: &Spec,
        priority: Priority,
    ) -> Result<Version, LoadError> {
        let version = file.hash;
        // The hash that identifies the code excludes the sources, which don't change the code.
        let (ComponentFile { hash, bytes }, sources) = off_thread(move || {
            Ok(match sources::split_off(&file.bytes) {
                Some((code, sources)) => (ComponentFile::new(code.to_vec()), Some(sources)),
                None => (file, None),
            })
        })
        .await?;
        if sources.is_some() && self.tier == Tier::Optimized {
            tracing::warn!(module = %spec.name, %version, "component is a development build; build it with `modhost build` for production");
        }
        let cell = lock(&self.components).cell(hash);
        let mut entry = cell.lock().await;
        let loaded = match entry.upgrade() {
            Some(loaded) => loaded,
            None => {
                let loaded = self.load_new(hash, bytes, spec, priority).await?;
                *entry = Arc::downgrade(&loaded);
                loaded
            }
        };
        drop(entry);
        loaded.needs.check(spec)?;
        Ok(Version::new(loaded, version, sources, spec))
    }

    /// Compiles and links a component that fits the world, and reports the result. It compiles even if the cache has
    /// the code, and stores the new code in the cache.
    ///
    /// # Errors
    ///
    /// If the component can't be compiled.
    pub async fn try_compile(&self, mut bytes: Vec<u8>) -> Result<Compiled, LoadError> {
        let code = sources::split_off(&bytes).map_or(bytes.len(), |(code, _)| code.len());
        bytes.truncate(code);
        let job = Job { tenants: Vec::new(), priority: Priority::Initial, bytes: bytes.len(), takes_long: false };
        let bytes = Arc::new(bytes);
        let CachedFile { cache, file, took } = self.write(&bytes, self.tier, job).await?;
        let engine = self.clone();
        off_thread(move || {
            let size = file.as_file().metadata().map_err(cannot_write)?.len();
            let hash = ContentHash::of(&bytes);
            let cached = cache.keep(hash, file, lock(&engine.components).loaded()).map_err(cannot_write)?;
            let (code, unpooled) = engine.map(&cached).map_err(|reason| {
                cache.forget(hash);
                invalid_output(reason)
            })?;
            code?;
            Ok(Compiled { took, size, unpooled: unpooled.map(|reason| format!("{reason:#}")) })
        })
        .await
    }

    async fn load_new(
        &self,
        hash: ContentHash,
        bytes: Arc<Vec<u8>>,
        spec: &Spec,
        priority: Priority,
    ) -> Result<Arc<Loaded>, LoadError> {
        let lookup = self.examine(hash, bytes.clone(), spec.clone()).await?;
        let loaded = |code| Arc::new(Loaded::new(lookup.needs, code, self.executor.clone()));
        if let Some(code) = lookup.code {
            return Ok(loaded(code));
        }
        let job = Job { tenants: spec.tenants.clone(), priority, bytes: bytes.len(), takes_long: false };
        if let Some(baseline) = self.baseline.clone().filter(|_| bytes.len() >= QUICK_START_MIN_BYTES)
            && let Some(code) = self.compile_baseline(hash, &bytes, job.clone(), baseline).await?
        {
            let loaded = loaded(code);
            let dropped = loaded.dropped.clone();
            let job = Job { priority: Priority::Optimize, ..job };
            let optimize = self.clone().recompile_optimized(hash, Arc::downgrade(&loaded), bytes, job);
            tokio::spawn(async move { dropped.run_until_cancelled(optimize).await });
            return Ok(loaded);
        }
        Ok(loaded(self.compile(hash, &bytes, job).await?))
    }

    /// Checks that a component fits the world and its settings, and looks for its code in the caches. Doesn't compile.
    async fn examine(&self, hash: ContentHash, bytes: Arc<Vec<u8>>, spec: Spec) -> Result<Lookup, LoadError> {
        // The semaphore is never closed.
        let _permit = self.readers.acquire().await;
        let engine = self.clone();
        off_thread(move || {
            let component_info = compat::examine(&bytes, compat::MAX_SIZE)?;
            component_info.check_compatibility()?;
            let needs = Needs::of(&component_info);
            needs.check(&spec)?;
            Ok(Lookup { needs, code: engine.find_cached(hash)? })
        })
        .await
    }

    /// Returns the code of a component from a cache, if any.
    fn find_cached(&self, hash: ContentHash) -> Result<Option<LinkedComponent>, LoadError> {
        let caches = [lock(&self.cache).clone(), self.shared_cache.clone()];
        let found = caches.into_iter().flatten().find_map(|cache| Some((cache.get(hash)?, cache)));
        let Some((cached, cache)) = found else { return Ok(None) };
        match self.map_to_serve(hash, &cached) {
            Ok(code) => {
                tracing::debug!(version = %hash, "compiled component loaded from the cache");
                Ok(Some(code?))
            }
            Err(reason) => {
                cache.evict_unusable(hash, &format!("{reason:#}"));
                Ok(None)
            }
        }
    }

    /// Compiles a component, stores the code in the cache, and maps it.
    #[tracing::instrument(level = "debug", skip_all, name = "compile", fields(version = %hash, tier = ?self.tier))]
    async fn compile(&self, hash: ContentHash, bytes: &Arc<Vec<u8>>, job: Job) -> Result<LinkedComponent, LoadError> {
        let CachedFile { cache, file, took } = self.write(bytes, self.tier, job).await?;
        tracing::debug!(version = %hash, ?took, "component compiled");
        let engine = self.clone();
        off_thread(move || {
            let cached = cache.keep(hash, file, lock(&engine.components).loaded()).map_err(cannot_write)?;
            engine.map_to_serve(hash, &cached).map_err(|reason| {
                cache.forget(hash);
                invalid_output(reason)
            })?
        })
        .await
    }

    /// Compiles a component with Winch; `None` if Winch can't compile it.
    #[tracing::instrument(level = "debug", skip_all, name = "compile", fields(version = %hash, tier = ?Tier::Baseline))]
    async fn compile_baseline(
        &self,
        hash: ContentHash,
        bytes: &Arc<Vec<u8>>,
        job: Job,
        baseline: Arc<WasmtimeEngine>,
    ) -> Result<Option<LinkedComponent>, LoadError> {
        let CachedFile { file, took, .. } = match self.write(bytes, Tier::Baseline, job).await {
            Ok(written) => written,
            // Winch supports fewer instructions than Cranelift.
            Err(LoadError::Compile(reason @ (CompileError::Refused(_) | CompileError::Crashed { .. }))) => {
                tracing::debug!(version = %hash, %reason, "the baseline compiler cannot compile the component");
                return Ok(None);
            }
            Err(reason) => return Err(reason),
        };
        tracing::debug!(version = %hash, ?took, "baseline code compiled");
        off_thread(move || {
            let component = CachedCode::temporary(file).map(&baseline.engine).map_err(invalid_output)?;
            Ok(Some(baseline.link(&component).map_err(link_error)?))
        })
        .await
    }

    /// Compiles a loaded component with Cranelift and replaces its code.
    async fn recompile_optimized(self, hash: ContentHash, loaded: Weak<Loaded>, bytes: Arc<Vec<u8>>, job: Job) {
        match self.compile(hash, &bytes, job).await {
            Ok(code) => {
                if let Some(loaded) = loaded.upgrade() {
                    loaded.code.store(Arc::new(code));
                    tracing::debug!(version = %hash, "optimized code in use");
                }
            }
            Err(reason) => {
                tracing::warn!(version = %hash, %reason, "cannot optimize the component; baseline code stays in use")
            }
        }
    }

    /// Waits for a compile permit and compiles a component into a file. The file is opened only then, so that waiting
    /// jobs hold no file descriptors.
    async fn write(&self, bytes: &Arc<Vec<u8>>, tier: Tier, mut job: Job) -> Result<CachedFile, LoadError> {
        loop {
            let permit = self.compilers.acquire(job.clone()).await;
            let (cache, file) = self.create_file()?;
            let into = file.as_file().try_clone().map_err(cannot_write)?;
            if let Some(took) = self.compilers.compile(permit, bytes, tier, into).await? {
                return Ok(CachedFile { cache, file, took });
            }
            job.takes_long = true;
        }
    }

    /// Maps a compiled component and links it: for the pool if it fits, otherwise for the on-demand engine, with the
    /// reason why it doesn't fit. The outer error means that the file can't be mapped, the inner one that linking
    /// failed.
    fn map(
        &self,
        cached: &CachedCode,
    ) -> wasmtime::Result<(Result<LinkedComponent, LoadError>, Option<wasmtime::Error>)> {
        let unpooled = match self.pooled.as_ref().map(|pooled| (pooled, cached.map(&pooled.engine))) {
            Some((pooled, Ok(component))) => return Ok((pooled.link(&component).map_err(link_error), None)),
            Some((_, Err(reason))) => Some(reason),
            None => None,
        };
        let component = cached.map(&self.on_demand.engine)?;
        Ok((self.on_demand.link(&component).map_err(link_error), unpooled))
    }

    /// Maps and links a compiled component, and logs if it doesn't fit the pool.
    fn map_to_serve(
        &self,
        hash: ContentHash,
        cached: &CachedCode,
    ) -> wasmtime::Result<Result<LinkedComponent, LoadError>> {
        let (code, unpooled) = self.map(cached)?;
        if let Some(reason) = unpooled {
            tracing::info!(
                version = %hash, reason = format!("{reason:#}"),
                "component does not fit the instance pool; its instances are created on demand"
            );
        }
        Ok(code)
    }

    /// Returns a new file to compile into, and its cache. If the cache can't be written to, a temporary one replaces
    /// it.
    fn create_file(&self) -> Result<(Arc<Cache>, NamedTempFile), LoadError> {
        let mut cache = lock(&self.cache);
        if let Some(usable) = cache.as_ref() {
            match usable.create_file() {
                Ok(file) => return Ok((usable.clone(), file)),
                Err(error) => {
                    tracing::warn!(folder = usable.display_folder(), %error, "cannot use the cache; compiled components are not kept");
                }
            }
        }
        let temporary = Arc::new(Cache::temporary(&self.on_demand.engine).map_err(cannot_write)?);
        let file = temporary.create_file().map_err(cannot_write)?;
        *cache = Some(temporary.clone());
        Ok((temporary, file))
    }
}

fn cannot_write(error: std::io::Error) -> LoadError {
    CompileError::ProcessFailed(format!("it can't write its output: {error}")).into()
}

fn invalid_output(error: wasmtime::Error) -> LoadError {
    CompileError::ProcessFailed(format!("its output is not a compiled component: {error:#}")).into()
}

fn link_error(error: wasmtime::Error) -> LoadError {
    CompileError::Refused(format!("{error:#}")).into()
}

/// Runs blocking work on the blocking thread pool. A panic becomes [`CompileError::Crashed`].
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(CompileError::Crashed { how: panic.to_string(), stderr: String::new() }.into()))
}
