//! A host that runs: sources, dispatch and engine put together out of the settings, and kept up with them.

mod reload;
mod saved_settings;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin_api::{self, Access, AccessRules, Admin};
use crate::resolved_config::ResolvedConfig;
use modhost_config::{CompilerSettings, ConfigError, ConfigErrors, Scheme, Server, Settings, Source};
use modhost_core::browser_guard::BrowserGuard;
use modhost_core::clock::SystemClock;
use modhost_core::metrics;
use modhost_core::sync::lock;
use modhost_ingress::health::{self, Health};
use modhost_ingress::listener::{Listener, ListenerRules, Routes};
use modhost_ingress::sources::event_socket::EventSockets;
use modhost_ingress::sources::{self, Sources};
use modhost_platform::{SetupError, http_client};
use modhost_runtime::dispatch::{DispatchSettings, DispatchSink, Dispatcher, FailedAttempt, SWEEP_EVERY};
use modhost_runtime::engine::{Compiler, CompilerLimits, Engine, FileWatch, MAX_CONCURRENT_DRY_RUNS, Registry};
use modhost_storage::error::StorageError;
use modhost_storage::journal::{self, Journal, JournalError, Retention, Sqlite, SqliteSettings, State};
use modhost_storage::keyvalue::{self, KeyValue, KeyValueError};
use modhost_storage::sqlite::DirectoryLock;
use modhost_storage::unreadable::{Bounds, UnreadableStore};
use modhost_storage::versions::{self, Keep, Versions};
use reload::{SettingsReader, SettingsWatcher, watched_files};
use saved_settings::Memory;

/// Whose leases this host's are. The embedded journal belongs to one process, so that every life of the host may go by
/// the same name: what it finds leased in it is its own, from a life before.
const OWNER: &str = "this host";

/// Reads the settings, at the start and whenever the file has changed; or those of a text that the file held before.
pub type Load = Box<dyn Fn(Option<&str>) -> Result<Settings, ConfigErrors> + Send + Sync>;

/// How a host compiles its components.
pub struct Compiling {
    /// The program it starts to compile, which has to be `modhost`; its limits are those of the settings. None: it compiles
    /// in its own process, without limits.
    pub program: Option<PathBuf>,
    /// Whether those who wrote its components sit before it: large ones serve as soon as they are compiled quickly, and one
    /// that breaks says in which line.
    pub for_authors: bool,
    /// Where compiled components may lie besides the data directory, say of `modhost build`; nothing is written there.
    pub shared_cache: Option<PathBuf>,
}

/// A running host.
pub struct Host {
    public: SocketAddr,
    admin: SocketAddr,
    registry: Arc<Registry>,
    dispatcher: Dispatcher,
    sockets: Arc<EventSockets>,
    health: Arc<Health>,
    settings: watch::Receiver<Arc<Settings>>,
    asked_to_reload: Arc<Notify>,
    closing: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// Why a host doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings are no good.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// An address can't be listened on.
    #[error("can't listen on {address} ({error}); {flag} takes another port, 0 any that is free")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
        /// The flag that chooses another.
        flag: &'static str,
    },
    /// The engine can't be started.
    #[error("the engine can't be started: {0:#}")]
    Engine(wasmtime::Error),
    /// The journal can't be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The key-value store can't be used.
    #[error(transparent)]
    KeyValue(#[from] KeyValueError),
    /// The record of versions can't be used.
    #[error(transparent)]
    Versions(#[from] StorageError),
    /// The requests that are kept for operators can't be listed.
    #[error("cannot list the unreadable requests of the data directory: {0}")]
    Unreadable(String),
    /// The HTTP client can't be made.
    #[error("the HTTP client can't be made: {0}")]
    Client(#[from] SetupError),
}

/// What of a host is replaced when its settings change.
struct Parts {
    registry: Arc<Registry>,
    dispatcher: Dispatcher,
    sources: Arc<Sources>,
    sockets: Arc<EventSockets>,
    sink: Arc<DispatchSink>,
    public: Arc<Listener>,
    admin: Arc<Listener>,
    access: Arc<Access>,
    addresses: Addresses,
    client: reqwest::Client,
}

/// Where a host listens, whatever changed settings say: another address takes a restart.
struct Addresses {
    public: SocketAddr,
    admin: SocketAddr,
}

impl Addresses {
    /// What settings would open to other machines that are safe only on the addresses they name.
    fn exposed(&self, settings: &Settings) -> Option<ConfigError> {
        let until = |address: SocketAddr, what: &str, advice: &str| {
            let error = ConfigError::new(format!("the host still listens on {address}, where {what}"));
            Some(error.advice(format!("{advice}, or restart the host, so that it listens on the changed address")))
        };
        if settings.server.admin_token.is_none() && !self.admin.ip().is_loopback() {
            let what = "without `admin_token` everyone could use the admin API";
            return until(self.admin, what, "keep `admin_token` in [server]");
        }
        let verifies_nothing = |source: &&Source| {
            source.webhook().is_some_and(|webhook| webhook.scheme == Scheme::None { from_anywhere: false })
        };
        let open = settings.sources.iter().find(verifies_nothing).filter(|_| !self.public.ip().is_loopback())?;
        let what = format!("everyone could send events to the source \"{}\", which verifies nothing", open.name);
        until(self.public, &what, "name a scheme").map(|error| error.at(Some(open.location.clone())))
    }
}

impl Host {
    /// Starts a host and keeps it up with its settings file and its components. It listens when this returns, and its
    /// modules come up, each by itself: events for one that hasn't yet are taken, and wait.
    ///
    /// # Errors
    ///
    /// When the settings are no good, an address is taken, or the engine can't be started. A component that can't
    /// serve is no error: the log says why, and its file is watched.
    pub async fn start(load: Load, compiling: Compiling) -> Result<Self, StartError> {
        let started = Instant::now();
        metrics::start();
        let reader = SettingsReader::new(load);
        let (active, remembered) = reader.read_first().await?;
        let client = http_client()?;
        let plan = ResolvedConfig::of(&active, &client)?;
        let settings = Arc::new(active.settings().clone());
        let public = listen(settings.server.listen, "--port").await?;
        let admin = listen(settings.server.admin_listen, "--admin-port").await?;
        let server = &settings.server;
        let (public_address, admin_address) = (address(&public, server.listen), address(&admin, server.admin_listen));
        tracing::info!(public = %public_address, admin = %admin_address, "listening");
        log_ceilings(server);
        // Probes are answered from here on: opening a large journal takes its time.
        let health = Arc::<Health>::default();
        let closing = CancellationToken::new();
        let close_unless_started = closing.clone().drop_guard();
        let [public_routes, admin_routes] = [(); 2].map(|()| Routes::new(health::while_starting(health.clone())));
        let public_listener = Listener::new(plan.rules.clone());
        let admin_listener = Listener::new(for_operators(&plan.rules));
        let mut tasks = vec![
            tokio::spawn(public_listener.clone().serve(public, public_routes.clone(), closing.clone())),
            tokio::spawn(admin_listener.clone().serve(admin, admin_routes.clone(), closing.clone())),
        ];
        let engine = start_engine(server, compiling).map_err(StartError::Engine)?;
        let journal: Arc<dyn Journal> =
            Arc::new(Sqlite::open(SqliteSettings { directory: server.data_dir.clone() }).await?);
        health.set_recorder(journal.clone());
        // After the journal, whose lock makes the directory this host's.
        let keep = Keep { of_module: server.retention.versions, bytes: server.retention.versions_size };
        let versions = Versions::open(server.data_dir.clone(), keep).await?;
        let registry = Arc::new(Registry::new(engine, versions, journal.clone()));
        let keyvalue: Arc<dyn KeyValue> = Arc::new(keyvalue::Sqlite::open(server.data_dir.clone()).await?);
        let dispatch = DispatchSettings {
            concurrency: server.concurrency,
            max_deliveries: server.max_deliveries,
            retention: Retention {
                completed: server.retention.completed,
                dead: server.retention.dead,
                ids: server.retention.ids,
                max_bytes: Some(server.retention.max_size),
            },
            owner: OWNER.into(),
            sweep_every: SWEEP_EVERY,
            removal_grace: server.removal_grace,
            clock: Arc::new(SystemClock),
        };
        let (dispatcher, recovered) =
            Dispatcher::start(registry.clone(), journal.clone(), keyvalue.clone(), dispatch).await?;
        log_recovered(&*journal, recovered).await?;
        let data_dir = server.data_dir.clone();
        let unreadable = tokio::task::spawn_blocking(move || UnreadableStore::open(&data_dir, Bounds::default()));
        let unreadable = unreadable.await.map_err(|error| StartError::Unreadable(error.to_string()))?;
        let sink = DispatchSink::new(dispatcher.clone(), unreadable.clone());
        let parts = Parts {
            sink: Arc::new(sink.clone()),
            dispatcher,
            registry,
            sources: Arc::default(),
            sockets: Arc::default(),
            public: public_listener,
            admin: admin_listener,
            access: Access::new(access(&plan, admin_address)),
            addresses: Addresses { public: public_address, admin: admin_address },
            client,
        };
        let watched = Arc::new(Mutex::new(watched_files(&active)));
        let files = FileWatch::new({
            let watched = watched.clone();
            move || lock(&watched).clone()
        });
        parts.apply(plan);
        parts.dispatcher.run();

        let signature_failures = parts.public.signature_failures();
        public_routes.set(sources::router(parts.sources.clone(), signature_failures, sink, health.clone()));
        admin_routes.set(admin_api::router(Admin {
            registry: parts.registry.clone(),
            journal,
            keyvalue,
            dispatcher: parts.dispatcher.clone(),
            sources: parts.sources.clone(),
            sockets: parts.sockets.clone(),
            unreadable,
            health: health.clone(),
            access: parts.access.clone(),
        }));
        health.set_started();
        let (registry, dispatcher, sockets) = (parts.registry.clone(), parts.dispatcher.clone(), parts.sockets.clone());
        let (coming_up, is_up) = (registry.clone(), closing.clone());
        tasks.push(tokio::spawn(async move {
            is_up.run_until_cancelled(log_ready(&coming_up, started)).await;
        }));
        let gathering = closing.clone();
        tasks.push(tokio::spawn(async move {
            gathering.run_until_cancelled(gather_metrics()).await;
        }));
        let (watched_health, watching) = (health.clone(), closing.clone());
        tasks.push(tokio::spawn(async move {
            watching.run_until_cancelled(watched_health.watch()).await;
        }));
        let (settings_sender, settings) = watch::channel(settings.clone());
        let asked_to_reload = Arc::<Notify>::default();
        let keeper = SettingsWatcher {
            memory: Memory::new(active.settings().server.data_dir.clone(), remembered),
            parts,
            reader,
            active,
            settings: settings_sender,
            watched,
            refused: false,
            not_before: None,
        };
        let (keeping_up, asked) = (closing.clone(), asked_to_reload.clone());
        tasks.push(tokio::spawn(async move {
            keeping_up.run_until_cancelled(keeper.run(files, asked)).await;
        }));
        close_unless_started.disarm();
        let (public, admin) = (public_address, admin_address);
        Ok(Self { public, admin, registry, dispatcher, sockets, health, settings, asked_to_reload, closing, tasks })
    }

    /// Where events come in.
    pub fn public_address(&self) -> SocketAddr {
        self.public
    }

    /// Where operators look.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The modules and their versions.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The settings that count, whatever just disappeared from the file included; marked whenever they change.
    pub fn settings(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.clone()
    }

    /// Reads the settings and all files they name again, as if they had changed.
    pub fn reload(&self) {
        self.asked_to_reload.notify_one();
    }

    /// The attempts at deliveries that fail from now on.
    pub fn failures(&self) -> tokio::sync::broadcast::Receiver<Arc<FailedAttempt>> {
        self.dispatcher.failures()
    }

    /// Takes no more events, lets deliveries come to their end for so long, and stops.
    pub async fn shutdown(self, grace: Duration) {
        // Before anything else, so that load balancers send no more: both listeners answer until the end.
        self.health.set_draining();
        // While the dispatcher still takes what has come over them.
        self.sockets.shutdown().await;
        self.dispatcher.shutdown(grace).await;
        self.registry.note_trials().await;
        self.closing.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "host task failed");
            }
        }
    }
}

/// Gives up what is missing from the files of a data directory, so that a host starts on it. Answers with what is missing.
///
/// # Errors
///
/// When a host runs on it, or its files can't be read.
pub fn accept_data_loss(directory: &Path) -> Result<Vec<String>, StartError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let _lock = DirectoryLock::take(directory).map_err(JournalError::from)?;
    let journal = journal::accept_loss(directory)?;
    let keyvalue = keyvalue::accept_loss(directory)?;
    let versions = versions::accept_loss(directory)?;
    Ok([journal, keyvalue, versions].into_iter().flatten().collect())
}

fn start_engine(server: &Server, compiling: Compiling) -> wasmtime::Result<Engine> {
    let CompilerSettings { timeout, memory, processes } = server.compiler;
    let compiler = match compiling.program {
        Some(program) => Compiler::Apart { program, limits: CompilerLimits { timeout, memory, processes } },
        None => Compiler::Here,
    };
    // DryRuns take no delivery's place.
    let instances = server.concurrency + MAX_CONCURRENT_DRY_RUNS;
    let engine = if compiling.for_authors {
        Engine::for_authors(instances, server.stack)?.with_quick_start()?
    } else {
        Engine::with_stack(instances, server.stack)?
    };
    let engine = engine.with_compiler(compiler).with_cache(server.data_dir.join("components"));
    Ok(match compiling.shared_cache {
        Some(folder) => engine.with_shared_cache(folder),
        None => engine,
    })
}

impl Parts {
    fn apply(&self, plan: ResolvedConfig) {
        self.access.set(access(&plan, self.addresses.admin));
        self.admin.set(for_operators(&plan.rules));
        self.public.set(plan.rules);
        // First: with secrets that are not settled yet, nothing is a forgery.
        self.sources.set_unsettled(plan.unsettled);
        self.registry.set(plan.specs, || self.dispatcher.set_routes(plan.tenants, plan.routes, plan.apology));
        // After the routes: an event of a new source must not come before there is one for it.
        self.sources.set(plan.webhooks, plan.max_body);
        // Last: what comes over them doesn't come again if there is no route for it yet.
        self.sockets.set(plan.sockets, &self.sink);
    }
}

/// Says which defaults the operator's ceilings cut: whoever wrote nothing finds that nowhere in the file.
fn log_ceilings(server: &Server) {
    let cut = server.ceilings.below_defaults();
    if !cut.is_empty() {
        tracing::info!(limits = cut.join(", "), "[server.ceilings] lowers the default limits");
    }
}

/// Says what a host that didn't stop in good order has left behind.
async fn log_recovered(journal: &dyn Journal, recovered: u64) -> Result<(), JournalError> {
    let totals = journal.totals().await?;
    let waiting = totals.of(State::Waiting);
    if recovered > 0 {
        tracing::warn!(deliveries = recovered, "the host did not shut down cleanly; interrupted deliveries run again");
    }
    if waiting > recovered {
        tracing::info!(deliveries = waiting - recovered, "deliveries are waiting from before the start");
    }
    Ok(())
}

/// Says when all modules have come up, and how many of them serve.
async fn log_ready(registry: &Registry, started: Instant) {
    registry.all_have_come_up().await;
    let modules = registry.status();
    let serving = modules.iter().filter(|module| module.version.is_some()).count();
    tracing::debug!(modules = modules.len(), serving, took = ?started.elapsed(), "modules started");
}

async fn gather_metrics() -> std::convert::Infallible {
    loop {
        tokio::time::sleep(metrics::UPKEEP).await;
        metrics::upkeep();
    }
}

/// Who may use the admin API at this address.
fn access(plan: &ResolvedConfig, address: SocketAddr) -> AccessRules {
    AccessRules { token: plan.admin_token.clone(), guard: BrowserGuard::new(address.ip(), plan.admin_hosts.clone()) }
}

/// What the operators' listener goes by: the same limits, and neither proxies nor TLS.
fn for_operators(rules: &ListenerRules) -> ListenerRules {
    let limits = rules.limits.clone();
    ListenerRules { limits, ..ListenerRules::default() }
}

/// The settings that are read only once.
fn needs_restart(before: &Settings, after: &Settings) -> Vec<&'static str> {
    let (before, after) = (&before.server, &after.server);
    let changed = [
        ("listen", before.listen != after.listen),
        ("admin_listen", before.admin_listen != after.admin_listen),
        ("data_dir", before.data_dir != after.data_dir),
        ("max_deliveries", before.max_deliveries != after.max_deliveries),
        ("concurrency", before.concurrency != after.concurrency),
        ("stack", before.stack != after.stack),
        ("retention", before.retention != after.retention),
        ("compiler", before.compiler != after.compiler),
        ("tls", before.tls.is_some() != after.tls.is_some()),
    ];
    changed.into_iter().filter_map(|(name, changed)| changed.then_some(name)).collect()
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { address, error, flag })
}

fn address(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}
