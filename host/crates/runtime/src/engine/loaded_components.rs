//! From a component's bytes to code that serves: looked through, found compiled or compiled, mapped, linked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tempfile::NamedTempFile;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::cache::{Cache, Kept};
use super::compile::{CompileError, Job, Priority};
use super::version::{ContentHash, Needs, Spec, Version};
use super::wasmtime_engine::{LinkedComponent, Tier, WasmtimeEngine};
use super::{Engine, LoadError, milliseconds, sources};
use modhost_contract::compat;
use modhost_core::sync::lock;

/// From what size on a component is compiled quickly first, in bytes. With smaller ones nobody notices the difference.
const WORTH_A_QUICK_START: usize = 1 << 20;

/// A component that serves.
pub(super) struct Loaded {
    needs: Needs,
    code: ArcSwap<LinkedComponent>,
    /// Ends with it: what is compiled for nobody is given up.
    needed: CancellationToken,
    _until: DropGuard,
}

impl Loaded {
    fn new(needs: Needs, code: LinkedComponent) -> Self {
        let needed = CancellationToken::new();
        let until = needed.clone().drop_guard();
        Self { needs, code: ArcSwap::from_pointee(code), needed, _until: until }
    }

    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// What the next instance is made of.
    pub fn code(&self) -> Arc<LinkedComponent> {
        self.code.load_full()
    }
}

/// What compiling a component has come to.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// How long it took.
    pub took: Duration,
    /// How large the result is, in bytes.
    pub size: u64,
    /// Why its instances are made on demand and don't come from a pool, if so.
    pub unpooled: Option<String>,
}

/// Where loaded components are found for as long as some version needs them.
#[derive(Default)]
pub(super) struct LoadedComponents {
    places: HashMap<ContentHash, Arc<LoadCell>>,
    /// At how many places those that nobody needs any more are cleared away: at twice of what was left the last time, so
    /// that a thousand modules don't look at each other's places a million times.
    clear_at: usize,
}

/// One such place, locked while its component is being loaded.
type LoadCell = tokio::sync::Mutex<Weak<Loaded>>;

impl LoadedComponents {
    fn of(&mut self, hash: ContentHash) -> Arc<LoadCell> {
        if self.places.len() >= self.clear_at {
            self.places.retain(|_, place| {
                Arc::strong_count(place) > 1 || place.try_lock().is_ok_and(|loaded| loaded.strong_count() > 0)
            });
            self.clear_at = (2 * self.places.len()).max(16);
        }
        self.places.entry(hash).or_default().clone()
    }

    /// The components that are loaded. One that is just being loaded counts as such.
    fn loaded(&self) -> HashSet<ContentHash> {
        let is_loaded = |place: &LoadCell| place.try_lock().map_or(true, |loaded| loaded.strong_count() > 0);
        self.places.iter().filter(|(_, place)| is_loaded(place)).map(|(hash, _)| *hash).collect()
    }
}

/// What looking through a component's bytes has come to.
struct Lookup {
    needs: Needs,
    /// Its code, if it was compiled before.
    code: Option<LinkedComponent>,
}

/// A component that was compiled into a file.
struct CachedFile {
    /// The cache the file belongs to.
    cache: Arc<Cache>,
    blank: NamedTempFile,
    took: Duration,
}

impl Engine {
    /// Makes a version of a module out of its component's bytes. Someone waits for it.
    ///
    /// # Errors
    ///
    /// When the bytes are no component, or one that doesn't fit the world or the module's limits, or one that can't be
    /// compiled.
    pub async fn load(&self, bytes: Vec<u8>, spec: &Spec) -> Result<Version, LoadError> {
        self.load_as(bytes, spec, Priority::First).await
    }

    /// The same, for someone who waits no more than this. What was compiled before doesn't wait at all.
    ///
    /// # Errors
    ///
    /// As with [`Engine::load`].
    pub async fn load_as(&self, bytes: Vec<u8>, spec: &Spec, priority: Priority) -> Result<Version, LoadError> {
        let (file, hash, bytes, sources) = off_thread(move || {
            let file = ContentHash::of(&bytes);
            let mut bytes = bytes;
            let sources = sources::split_off(&mut bytes);
            // What it is known by to the compiler: other sources are no other code.
            let hash = if sources.is_some() { ContentHash::of(&bytes) } else { file };
            Ok((file, hash, Arc::new(bytes), sources))
        })
        .await?;
        if sources.is_some() && self.tier == Tier::Fast {
            tracing::warn!(module = %spec.name, version = %file, "component is a development build; build it with `modhost build` for production");
        }
        let place = lock(&self.places).of(hash);
        let mut known = place.lock().await;
        let loaded = match known.upgrade() {
            Some(loaded) => loaded,
            None => {
                let loaded = self.load_new(hash, bytes, spec, priority).await?;
                *known = Arc::downgrade(&loaded);
                loaded
            }
        };
        drop(known);
        loaded.needs.met_by(spec)?;
        Ok(Version::new(loaded, file, sources, spec))
    }

    /// Compiles a component that fits, and links it, to tell what comes of it. It is compiled even if it was before; what
    /// comes of it is kept where this engine keeps such.
    ///
    /// # Errors
    ///
    /// When it can't be compiled.
    pub async fn try_compile(&self, mut bytes: Vec<u8>) -> Result<Compiled, LoadError> {
        sources::split_off(&mut bytes);
        let job = Job { tenants: Vec::new(), priority: Priority::First, bytes: bytes.len(), takes_long: false };
        let bytes = Arc::new(bytes);
        let CachedFile { cache, blank, took } = self.write(&bytes, self.tier, job).await?;
        let engine = self.clone();
        off_thread(move || {
            let size = blank.as_file().metadata().map_err(unable)?.len();
            let hash = ContentHash::of(&bytes);
            let kept = cache.keep(hash, blank, lock(&engine.places).loaded()).map_err(unable)?;
            let (code, unpooled) = engine.map(&kept).map_err(|reason| {
                cache.forget(hash);
                useless(reason)
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
        let looked = self.look_through(hash, bytes.clone(), spec.clone()).await?;
        let loaded = |code| Arc::new(Loaded::new(looked.needs, code));
        if let Some(code) = looked.code {
            return Ok(loaded(code));
        }
        let job = Job { tenants: spec.tenants.clone(), priority, bytes: bytes.len(), takes_long: false };
        if let Some(quick) = self.quick.clone().filter(|_| bytes.len() >= WORTH_A_QUICK_START)
            && let Some(code) = self.start_quickly(hash, &bytes, job.clone(), quick).await?
        {
            let loaded = loaded(code);
            let needed = loaded.needed.clone();
            let job = Job { priority: Priority::Faster, ..job };
            let faster = self.clone().make_faster(hash, Arc::downgrade(&loaded), bytes, job);
            tokio::spawn(async move { needed.run_until_cancelled(faster).await });
            return Ok(loaded);
        }
        Ok(loaded(self.compile(hash, &bytes, job).await?))
    }

    /// Finds out whether a component fits, and whether it was compiled before. Never waits for a compilation.
    async fn look_through(&self, hash: ContentHash, bytes: Arc<Vec<u8>>, spec: Spec) -> Result<Lookup, LoadError> {
        // It is never closed.
        let _turn = self.readers.acquire().await;
        let engine = self.clone();
        off_thread(move || {
            let component_info = compat::examine(&bytes, compat::MAX_SIZE)?;
            component_info.check_compatibility()?;
            let needs = Needs::of(&component_info);
            needs.met_by(&spec)?;
            Ok(Lookup { needs, code: engine.compiled_before(hash)? })
        })
        .await
    }

    /// The code of a component that was compiled before.
    fn compiled_before(&self, hash: ContentHash) -> Result<Option<LinkedComponent>, LoadError> {
        let caches = [lock(&self.cache).clone(), self.shared_cache.clone()];
        let found = caches.into_iter().flatten().find_map(|cache| Some((cache.get(hash)?, cache)));
        let Some((kept, cache)) = found else { return Ok(None) };
        match self.map_to_serve(hash, &kept) {
            Ok(code) => {
                tracing::debug!(version = %hash, "compiled component loaded from the cache");
                Ok(Some(code?))
            }
            Err(reason) => {
                cache.refuse(hash, &format!("{reason:#}"));
                Ok(None)
            }
        }
    }

    /// Compiles a component, keeps the result, and maps it.
    #[tracing::instrument(level = "debug", skip_all, name = "compile", fields(version = %hash, tier = ?self.tier))]
    async fn compile(&self, hash: ContentHash, bytes: &Arc<Vec<u8>>, job: Job) -> Result<LinkedComponent, LoadError> {
        let CachedFile { cache, blank, took } = self.write(bytes, self.tier, job).await?;
        tracing::debug!(version = %hash, took = %milliseconds(took), "component compiled");
        let engine = self.clone();
        off_thread(move || {
            let kept = cache.keep(hash, blank, lock(&engine.places).loaded()).map_err(unable)?;
            engine.map_to_serve(hash, &kept).map_err(|reason| {
                cache.forget(hash);
                useless(reason)
            })?
        })
        .await
    }

    /// Compiles a component so that it serves soon; none if that compiler can't do it.
    #[tracing::instrument(level = "debug", skip_all, name = "compile", fields(version = %hash, tier = ?Tier::Quick))]
    async fn start_quickly(
        &self,
        hash: ContentHash,
        bytes: &Arc<Vec<u8>>,
        job: Job,
        quick: Arc<WasmtimeEngine>,
    ) -> Result<Option<LinkedComponent>, LoadError> {
        let CachedFile { blank, took, .. } = match self.write(bytes, Tier::Quick, job).await {
            Ok(written) => written,
            // It knows fewer instructions than the other.
            Err(LoadError::Compile(reason @ (CompileError::Refused(_) | CompileError::Crashed { .. }))) => {
                tracing::debug!(version = %hash, %reason, "the baseline compiler cannot compile the component");
                return Ok(None);
            }
            Err(reason) => return Err(reason),
        };
        tracing::debug!(version = %hash, took = %milliseconds(took), "baseline code compiled");
        off_thread(move || {
            let component = Kept::fleeting(blank).map(&quick.engine).map_err(useless)?;
            Ok(Some(quick.link(&component).map_err(refused)?))
        })
        .await
    }

    /// Compiles for speed what serves already, and puts that in its place.
    async fn make_faster(self, hash: ContentHash, loaded: Weak<Loaded>, bytes: Arc<Vec<u8>>, job: Job) {
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

    /// Compiles a component into a file, when it is its turn. Only then is the file opened: many may wait.
    async fn write(&self, bytes: &Arc<Vec<u8>>, tier: Tier, mut job: Job) -> Result<CachedFile, LoadError> {
        loop {
            let turn = self.compilers.turn(job.clone()).await;
            let (cache, blank) = self.blank()?;
            let into = blank.as_file().try_clone().map_err(unable)?;
            if let Some(took) = self.compilers.compile(turn, bytes, tier, into).await? {
                return Ok(CachedFile { cache, blank, took });
            }
            job.takes_long = true;
        }
    }

    /// Maps a compiled component and links it, for the pool if it fits in; and says why not, if it doesn't. The outer error
    /// is that of mapping: the file is no use.
    fn map(&self, kept: &Kept) -> wasmtime::Result<(Result<LinkedComponent, LoadError>, Option<wasmtime::Error>)> {
        let unpooled = match self.pooled.as_ref().map(|pooled| (pooled, kept.map(&pooled.engine))) {
            Some((pooled, Ok(component))) => return Ok((pooled.link(&component).map_err(refused), None)),
            Some((_, Err(reason))) => Some(reason),
            None => None,
        };
        let component = kept.map(&self.on_demand.engine)?;
        Ok((self.on_demand.link(&component).map_err(refused), unpooled))
    }

    /// The same, for a version that is to serve.
    fn map_to_serve(&self, hash: ContentHash, kept: &Kept) -> wasmtime::Result<Result<LinkedComponent, LoadError>> {
        let (code, unpooled) = self.map(kept)?;
        if let Some(reason) = unpooled {
            tracing::info!(
                version = %hash, reason = format!("{reason:#}"),
                "component does not fit the instance pool; its instances are created on demand"
            );
        }
        Ok(code)
    }

    /// A file to compile into, and the cache it belongs to: one that keeps nothing, if there is no better.
    fn blank(&self) -> Result<(Arc<Cache>, NamedTempFile), LoadError> {
        let mut cache = lock(&self.cache);
        if let Some(usable) = cache.as_ref() {
            match usable.blank() {
                Ok(blank) => return Ok((usable.clone(), blank)),
                Err(error) => {
                    tracing::warn!(folder = usable.shown(), %error, "cannot use the cache; compiled components are not kept");
                }
            }
        }
        let fleeting = Arc::new(Cache::fleeting(&self.on_demand.engine).map_err(unable)?);
        let blank = fleeting.blank().map_err(unable)?;
        *cache = Some(fleeting.clone());
        Ok((fleeting, blank))
    }
}

fn unable(error: std::io::Error) -> LoadError {
    CompileError::Unable(format!("it has nowhere to write: {error}")).into()
}

fn useless(error: wasmtime::Error) -> LoadError {
    CompileError::Unable(format!("what it wrote is no compiled component: {error:#}")).into()
}

fn refused(error: wasmtime::Error) -> LoadError {
    CompileError::Refused(format!("{error:#}")).into()
}

/// Does something that takes long, where it keeps nobody waiting.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(CompileError::Crashed { how: panic.to_string(), said: String::new() }.into()))
}
