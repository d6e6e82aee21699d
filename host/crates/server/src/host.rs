//! The running host: builds the sources, dispatch and the engine from the settings, and applies changed settings to
//! them.

mod identity;
mod reload;
mod sandbox;
mod saved_settings;
mod settings_log;
mod settings_reader;
mod storage;

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin_api::{self, Access, AccessRules, Admin, SandboxView, SettingsStatus};
use crate::resolved_config::ResolvedConfig;
pub use identity::uses_database;
use modhost_config::{ConfigError, ConfigErrors, Scheme, Server, Settings, Source};
use modhost_core::browser_guard::BrowserGuard;
use modhost_core::clock::SystemClock;
use modhost_core::event::Name;
use modhost_core::metrics;
use modhost_core::sync::lock;
use modhost_core::tenant_meter;
use modhost_ingress::health::{self, Health};
use modhost_ingress::listener::{Listener, ListenerRules, Routes};
use modhost_ingress::sources::event_socket::EventSockets;
use modhost_ingress::sources::{self, Sources};
use modhost_platform::TenantHttpClients;
use modhost_runtime::dispatch::{DispatchSettings, DispatchSink, Dispatcher, FailedAttempt, SWEEP_EVERY};
use modhost_runtime::engine::{CompileError, Compiler, Engine, FileWatch, MAX_CONCURRENT_DRY_RUNS, Registry};
use modhost_sandbox::InForce;
use modhost_storage::error::StorageError;
use modhost_storage::journal::{self, Journal, JournalError, Retention, State, TenantLimits};
use modhost_storage::keyvalue::{self, KeyValueError};
use modhost_storage::sqlite::DirectoryLock;
use modhost_storage::unreadable::{UnreadableLimits, UnreadableStore};
use modhost_storage::versions;
use reload::{SettingsWatcher, Watched};
use saved_settings::SettingsStore;
pub use settings_reader::examine_settings;
use settings_reader::{SettingsReader, Start};
use storage::Storage;

/// Reads modules.toml, or parses an earlier text of it.
pub type LoadTop = Box<dyn Fn(Option<&str>) -> Result<Settings, ConfigErrors> + Send + Sync>;

/// How a host loads its settings.
pub struct LoadSettings {
    /// Reads modules.toml without the files that it includes, at the start and whenever it changed. Given a text, parses
    /// that earlier text of the file instead.
    pub top: LoadTop,
    /// Changes the settings of an included file, after it was read.
    pub included: Box<dyn Fn(Settings) -> Settings + Send + Sync>,
}

/// How a host compiles components.
pub struct Compiling {
    /// The program that compiles, which must be `modhost`. It runs under the limits in the settings. `None` compiles in
    /// this process, without limits.
    pub program: Option<PathBuf>,
    /// Whether the authors of the components use this host: large components serve as soon as the quick compiler is
    /// done, and a trap reports its source line.
    pub for_authors: bool,
    /// A folder with components that were compiled elsewhere, for example by `modhost build`. It is only read.
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
    reload_requested: Arc<Notify>,
    closing: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// Reserves the data directory for this process, unless the journal does.
    _directory_lock: Option<DirectoryLock>,
}

/// The reason why a host doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings are invalid.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The host can't listen on an address.
    #[error("can't listen on {address}: {error}; choose another port with {flag}, 0 for any free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        error: std::io::Error,
        /// The flag that sets another port.
        flag: &'static str,
    },
    /// A restriction of the compile processes that the settings require is not in force.
    #[error(
        "`sandbox = \"required\"` in [server], but a process that compiles can't be restricted: {0}; see \"Sandbox\" in \
         docs/operating.md for what it needs, or set `sandbox = \"auto\"` to do without"
    )]
    Sandbox(CompileError),
    /// The engine doesn't start.
    #[error("the engine can't be started: {0:#}")]
    Engine(wasmtime::Error),
    /// The journal can't be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The key-value store can't be opened.
    #[error(transparent)]
    KeyValue(#[from] KeyValueError),
    /// The database of versions can't be opened.
    #[error(transparent)]
    Versions(#[from] StorageError),
    /// The name of this host can't be kept in its data directory.
    #[error("cannot read or write `host.id` in the data directory {directory}: {error}")]
    Identity {
        /// The data directory.
        directory: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The data directory belongs to a host with a database, and the settings name none.
    #[error(
        "the host with the data directory {directory} has kept its deliveries in a database, but modules.toml has no `url` in \
         [storage]; restore it, or, to begin without these deliveries, use another `data_dir` or remove `host.id` from this \
         one"
    )]
    DatabaseMissing {
        /// The data directory.
        directory: PathBuf,
    },
    /// A database can't be used.
    #[error("cannot use the database that {setting} in modules.toml refers to: {error}")]
    Database {
        /// The setting.
        setting: String,
        /// The error.
        error: StorageError,
    },
    /// The unreadable requests kept for operators can't be listed.
    #[error("cannot list the unreadable requests of the data directory: {0}")]
    Unreadable(String),
}

/// The parts of a host that changed settings replace.
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
    clients: Arc<TenantHttpClients>,
}

/// The addresses that the host listens on. A changed address takes effect after a restart.
#[derive(Clone)]
struct Addresses {
    public: SocketAddr,
    admin: SocketAddr,
}

impl Addresses {
    /// Returns an error if the settings are safe only on the addresses that they name and the host still listens on a
    /// public one.
    fn exposed(&self, settings: &Settings) -> Option<ConfigError> {
        let until = |address: SocketAddr, what: &str, advice: &str| {
            let error = ConfigError::new(format!("the host still listens on {address}, where {what}"));
            Some(error.advice(format!("{advice}, or restart the host, so that it listens on the changed address")))
        };
        if settings.server.admin_token.is_none() && !self.admin.ip().is_loopback() {
            let what = "without `admin_token` everyone could use the admin API";
            return until(self.admin, what, "keep `admin_token` in [server]");
        }
        let is_unverified = |source: &&Source| {
            source.webhook().is_some_and(|webhook| webhook.scheme == Scheme::None { from_anywhere: false })
        };
        let open = settings.sources.iter().find(is_unverified).filter(|_| !self.public.ip().is_loopback())?;
        let what = format!("everyone could send events to the source \"{}\", which verifies nothing", open.name);
        until(self.public, &what, "name a scheme").map(|error| error.at(Some(open.location.clone())))
    }
}

impl Host {
    /// Starts a host, which then follows changes of its settings file and its components. When this returns, the host
    /// listens and accepts events. Each module loads on its own, and its deliveries wait until it serves.
    ///
    /// # Errors
    ///
    /// Fails if the settings are invalid, an address is in use, or the engine can't be started. A component that can't
    /// serve is not an error: the host logs the reason and watches the file.
    ///
    /// `in_force` are the restrictions that the caller has put in force for this process; the host only reports them.
    pub async fn start(load: LoadSettings, compiling: Compiling, in_force: InForce) -> Result<Self, StartError> {
        let started = Instant::now();
        metrics::start();
        let clients = Arc::new(TenantHttpClients::default());
        let reader = SettingsReader::new(load, clients.clone());
        let Start { host: active, config, variables, saved, unlisted } = reader.read_at_start().await?;
        let settings = Arc::new(active.settings());
        let status = Arc::new(SettingsStatus::default());
        status.set(&active);
        let public = listen(settings.server.listen, "--port").await?;
        let admin = listen(settings.server.admin_listen, "--admin-port").await?;
        let server = &settings.server;
        let (public_address, admin_address) = (address(&public, server.listen), address(&admin, server.admin_listen));
        tracing::info!(public = %public_address, admin = %admin_address, "listening");
        log_ceilings(server);
        // From here on the host answers probes: opening a large journal takes time.
        let health = Arc::<Health>::default();
        let closing = CancellationToken::new();
        let close_unless_started = closing.clone().drop_guard();
        let [public_routes, admin_routes] = [(); 2].map(|()| Routes::new(health::startup_routes(health.clone())));
        let public_listener = Listener::new(config.rules.clone());
        let admin_listener = Listener::new(for_operators(&config.rules));
        let mut tasks = vec![
            tokio::spawn(public_listener.clone().serve(public, public_routes.clone(), closing.clone())),
            tokio::spawn(admin_listener.clone().serve(admin, admin_routes.clone(), closing.clone())),
        ];
        let opening = Storage::open(server, config.databases.as_ref(), compiling.for_authors);
        let (compiler, storage) = tokio::join!(sandbox::compiler(server, compiling.program.clone()), opening);
        let (compiler, compiler_in_force) = compiler?;
        let Storage { kind, name, journal, cluster, keyvalue, versions, directory_lock } = storage?;
        let sandbox = SandboxView { mode: server.sandbox, host: in_force, compiler: compiler_in_force };
        sandbox::log(&sandbox);
        let engine = start_engine(server, compiler, compiling).map_err(StartError::Engine)?;
        health.set_recorder(journal.clone());
        let registry = Arc::new(Registry::new(engine, versions, journal.clone()));
        let dispatch = DispatchSettings {
            concurrency: server.concurrency,
            max_deliveries: server.max_deliveries,
            guest_memory: server.guest_memory,
            retention: Retention {
                completed: server.retention.completed,
                dead: server.retention.dead,
                ids: server.retention.ids,
                max_bytes: Some(server.retention.max_size),
                // Set when the journal is purged: the limits of tenants can change.
                tenant_limits: TenantLimits::new(),
            },
            cluster: cluster.clone(),
            host: identity::host_info(name, admin_address.to_string(), &active),
            sweep_every: SWEEP_EVERY,
            removal_grace: server.removal_grace,
            clock: Arc::new(SystemClock),
        };
        let (dispatcher, recovered) =
            Dispatcher::start(registry.clone(), journal.clone(), keyvalue.clone(), dispatch).await?;
        log_recovered(&*journal, recovered).await?;
        let data_dir = server.data_dir.clone();
        let unreadable =
            tokio::task::spawn_blocking(move || UnreadableStore::open(&data_dir, UnreadableLimits::default()));
        let unreadable = unreadable.await.map_err(|error| StartError::Unreadable(error.to_string()))?;
        let sink = DispatchSink::new(dispatcher.clone(), unreadable.clone());
        let duties = dispatcher.clone();
        let sockets = EventSockets::new(move |source| duties.want_duty(&format!("event socket {source}")));
        let parts = Parts {
            sink: Arc::new(sink.clone()),
            dispatcher,
            registry,
            sources: Arc::default(),
            sockets: Arc::new(sockets),
            public: public_listener,
            admin: admin_listener,
            access: Access::new(access(&config, admin_address)),
            addresses: Addresses { public: public_address, admin: admin_address },
            clients,
        };
        let watched = Arc::new(Mutex::new(Watched::of(&active)));
        let files = FileWatch::new({
            let watched = watched.clone();
            move || {
                let watched = lock(&watched).clone();
                watched.list()
            }
        });
        parts.apply(config);
        parts.dispatcher.run();

        let signature_failures = parts.public.signature_failures();
        public_routes.set(sources::router(parts.sources.clone(), signature_failures, sink, health.clone()));
        admin_routes.set(admin_api::router(Admin {
            registry: parts.registry.clone(),
            journal,
            keyvalue,
            cluster,
            storage: kind,
            dispatcher: parts.dispatcher.clone(),
            sources: parts.sources.clone(),
            sockets: parts.sockets.clone(),
            unreadable,
            health: health.clone(),
            sandbox: Arc::new(sandbox),
            access: parts.access.clone(),
            settings: status.clone(),
        }));
        health.set_started();
        let (registry, dispatcher, sockets) = (parts.registry.clone(), parts.dispatcher.clone(), parts.sockets.clone());
        let (ready_registry, ready_cancel) = (registry.clone(), closing.clone());
        tasks.push(tokio::spawn(async move {
            ready_cancel.run_until_cancelled(log_ready(&ready_registry, started)).await;
        }));
        let (following_registry, following_cancel) = (registry.clone(), closing.clone());
        tasks.push(tokio::spawn(async move {
            following_cancel.run_until_cancelled(following_registry.follow()).await;
        }));
        let metrics_cancel = closing.clone();
        tasks.push(tokio::spawn(async move {
            metrics_cancel.run_until_cancelled(run_metrics_upkeep()).await;
        }));
        let (watched_health, health_cancel) = (health.clone(), closing.clone());
        tasks.push(tokio::spawn(async move {
            health_cancel.run_until_cancelled(watched_health.watch()).await;
        }));
        let (settings_sender, settings) = watch::channel(settings.clone());
        let reload_requested = Arc::<Notify>::default();
        let watcher = SettingsWatcher {
            settings_store: SettingsStore::new(settings.borrow().server.data_dir.clone(), saved),
            parts,
            reader,
            active,
            variables,
            status,
            missed: BTreeSet::new(),
            unlisted,
            settings: settings_sender,
            watched,
            refused: false,
            not_before: None,
        };
        let (settings_cancel, reload_requests) = (closing.clone(), reload_requested.clone());
        tasks.push(tokio::spawn(async move {
            settings_cancel.run_until_cancelled(watcher.run(files, reload_requests)).await;
        }));
        close_unless_started.disarm();
        let (public, admin) = (public_address, admin_address);
        Ok(Self {
            public,
            admin,
            registry,
            dispatcher,
            sockets,
            health,
            settings,
            reload_requested,
            closing,
            tasks,
            _directory_lock: directory_lock,
        })
    }

    /// Returns the address of the public listener, which receives events.
    pub fn public_address(&self) -> SocketAddr {
        self.public
    }

    /// Returns the address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Returns the registry of modules and their versions.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the settings in effect, including parts recently removed from the file. The receiver is notified of
    /// changes.
    pub fn settings(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.clone()
    }

    /// Reads the settings and all files that they refer to again, as if they had changed.
    pub fn reload(&self) {
        self.reload_requested.notify_one();
    }

    /// Returns a channel of the attempts that fail from now on.
    pub fn failures(&self) -> tokio::sync::broadcast::Receiver<Arc<FailedAttempt>> {
        self.dispatcher.failures()
    }

    /// Stops accepting events, lets running deliveries finish for up to `grace`, and stops.
    pub async fn shutdown(self, grace: Duration) {
        // First of all, so that load balancers send no more requests. Both listeners answer until the end.
        self.health.set_draining();
        // Before the dispatcher, which must still accept the events that the sockets have received.
        self.sockets.shutdown().await;
        self.dispatcher.shutdown(grace).await;
        self.registry.record_trials().await;
        self.closing.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "host task failed");
            }
        }
    }
}

/// Accepts the loss of data that is missing from the files of a data directory, so that a host starts on it. Returns
/// descriptions of the missing data.
///
/// # Errors
///
/// Fails if a host runs on the directory or its files can't be read.
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

fn start_engine(server: &Server, compiler: Compiler, compiling: Compiling) -> wasmtime::Result<Engine> {
    // Dry runs take no run slots from deliveries.
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
    fn apply(&self, config: ResolvedConfig) {
        self.access.set(access(&config, self.addresses.admin));
        self.admin.set(for_operators(&config.rules));
        self.public.set(config.rules);
        // Before the sources are replaced: while a source's secrets are unconfirmed, no request may count as a forgery.
        self.sources.set_unconfirmed(config.unconfirmed);
        let tenants: HashSet<Name> = config.tenants.iter().map(|tenant| tenant.name.clone()).collect();
        self.clients.retain(|tenant| tenants.contains(tenant));
        let names = config.tenants.iter().map(|tenant| tenant.name.clone());
        tenant_meter::configure(names.collect(), config.max_tenant_labels);
        self.registry.set_cpu_weights(config.tenants.iter().map(|tenant| (tenant.name.clone(), tenant.cpu_weight)));
        self.registry.set(config.specs, || self.dispatcher.set_routes(config.tenants, config.routes, config.apology));
        // After the routes: the events of a new source need them.
        self.sources.set(config.webhooks, config.max_body);
        // Last: an event that arrives over a socket before its route exists is lost, since the platform doesn't send it
        // again.
        self.sockets.set(config.sockets, &self.sink);
    }
}

/// Logs the default limits that the operator's ceilings lower, because a module's settings don't show it.
fn log_ceilings(server: &Server) {
    let cut = server.ceilings.below_defaults();
    if !cut.is_empty() {
        tracing::info!(limits = cut.join(", "), "[server.ceilings] lowers the default limits");
    }
}

/// Logs how many deliveries an unclean shutdown interrupted, and how many others wait from before the start.
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

/// Logs when all modules have loaded, and how many of them serve.
async fn log_ready(registry: &Registry, started: Instant) {
    registry.wait_until_loaded().await;
    let modules = registry.status();
    let serving = modules.iter().filter(|module| module.version.is_some()).count();
    tracing::debug!(modules = modules.len(), serving, took = ?started.elapsed(), "modules started");
}

async fn run_metrics_upkeep() -> std::convert::Infallible {
    loop {
        tokio::time::sleep(metrics::UPKEEP).await;
        metrics::upkeep();
        tenant_meter::maintain();
    }
}

/// Returns the access rules of the admin API at this address.
fn access(config: &ResolvedConfig, address: SocketAddr) -> AccessRules {
    AccessRules {
        token: config.admin_token.clone(),
        guard: BrowserGuard::new(address.ip(), config.admin_hosts.clone()),
    }
}

/// Returns the rules of the admin listener: the limits of the public one, without proxies and TLS.
fn for_operators(rules: &ListenerRules) -> ListenerRules {
    let limits = rules.limits.clone();
    ListenerRules { limits, ..ListenerRules::default() }
}

/// Notes in a data directory that the deliveries of its host are in a database, so that the host doesn't start with empty files
/// if the settings name no database.
///
/// # Errors
///
/// When the file can't be written.
pub fn note_database(data_dir: &Path) -> std::io::Result<()> {
    identity::host_name(data_dir, None).map(drop)
}

/// Returns the names of the changed settings in [server], and of [storage], that take effect only after a restart.
fn needs_restart(before: &Settings, after: &Settings) -> Vec<&'static str> {
    let (before, after) = (&before.server, &after.server);
    let changed = [
        ("listen", before.listen != after.listen),
        ("admin_listen", before.admin_listen != after.admin_listen),
        ("data_dir", before.data_dir != after.data_dir),
        ("max_deliveries", before.max_deliveries != after.max_deliveries),
        ("concurrency", before.concurrency != after.concurrency),
        ("guest_memory", before.guest_memory != after.guest_memory),
        ("stack", before.stack != after.stack),
        ("retention", before.retention != after.retention),
        ("compiler", before.compiler != after.compiler),
        ("sandbox", before.sandbox != after.sandbox),
        ("name", before.name != after.name),
        ("storage", before.storage != after.storage),
        ("tls", before.tls.is_some() != after.tls.is_some()),
    ];
    changed.into_iter().filter_map(|(name, changed)| changed.then_some(name)).collect()
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { address, error, flag })
}

fn address(listener: &TcpListener, requested: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(requested)
}
