//! `modhost dev`: runs the host with a local platform, and rebuilds modules when their sources change.

pub(super) mod build;
mod build_outputs;
mod failures;
mod localize;

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use url::Url;

use super::diagnostics::error_with_help;
use super::help::examples;
use super::running::RunningHost;
use super::serve::{addresses, modules};
use super::signals::Signals;
use super::{HostArgs, SHUTDOWN_GRACE, compiler_program, log_warnings, output, program, shared_component_cache};
use build::Builder;
use localize::Bases;
use modhost_config::{ConfigErrors, Environment, Reference, Settings};
use modhost_core::event::Event;
use modhost_core::secret::Secret;
use modhost_emulator as local;
use modhost_emulator::{Assistant, CompletionEndpoint, LocalPlatform, LocalSettings};
use modhost_sandbox::InForce;
use modhost_server::host::{Compiling, Host, LoadSettings};

/// Default folders of documents, relative to modules.toml: the user's, and that of the samples.
const DOCUMENT_FOLDERS: [&str; 2] = ["documents", "plugins/assistant/documents"];

/// Arguments of `modhost dev`.
#[derive(Args, Clone)]
#[command(after_long_help = examples!(
    "modhost dev"
    "modhost dev --documents papers"
    "modhost dev --completion-url http://localhost:11434/v1"
    "modhost dev --port 0 --admin-port 0 --platform-port 0"
))]
pub struct DevArgs {
    #[command(flatten)]
    pub(super) host: HostArgs,
    /// Port for the local platform; 0 selects a free port
    #[arg(long, value_name = "PORT", default_value_t = 8092)]
    platform_port: u16,
    /// Folder of Markdown and text files for the local platform to search [default: `documents` beside modules.toml, else the
    /// documents of the samples]
    #[arg(long, value_name = "DIR")]
    documents: Option<PathBuf>,
    /// OpenAI-compatible endpoint (https://…/v1) for completions; without it, the local platform quotes documents
    #[arg(long, value_name = "URL")]
    completion_url: Option<Url>,
    /// Reference to the key of the endpoint: env:NAME or file:PATH
    #[arg(long, value_name = "REFERENCE", requires = "completion_url")]
    completion_key: Option<String>,
    /// Model to request from the endpoint, in place of the one that a module names
    #[arg(long, value_name = "MODEL", requires = "completion_url")]
    completion_model: Option<String>,
    /// Fetch events from the local platform's event socket, instead of receiving webhooks
    #[arg(long)]
    event_socket: bool,
    /// Use the existing components; do not build
    #[arg(long)]
    no_build: bool,
}

impl DevArgs {
    /// Loads the settings and applies the flags.
    fn load(&self) -> Result<Settings, ConfigErrors> {
        self.host.load().map(|settings| self.override_settings(settings))
    }

    /// Like [`load`](Self::load), without a time limit, from `text` if it is given: an earlier content of the file.
    fn load_from(&self, text: Option<&str>) -> Result<Settings, ConfigErrors> {
        self.host.load_from(text).map(|settings| self.override_settings(settings))
    }

    fn override_settings(&self, settings: Settings) -> Settings {
        if self.event_socket { localize::use_event_socket(settings) } else { settings }
    }
}

/// Runs the host until it receives a stop signal.
pub async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let settings = args.load()?;
    args.host.accept_data_loss(&settings)?;
    log_warnings(&settings);
    let builder = Builder::new(&settings);
    if !args.no_build {
        builder.build_all().await;
    }
    let documents = documents(&args, &settings)?;
    let platform = LocalPlatform::start(LocalSettings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.platform_port)),
        hosts: settings.server.admin_hosts.clone(),
        documents: documents.clone(),
        data_dir: Some(settings.server.data_dir.clone()),
        completion: completion(&args, &settings)?,
        webhook: None,
        assistants: assistants(&settings, None),
        ..LocalSettings::default()
    })
    .await?;
    // Until here, a signal ends the process immediately.
    let mut signals = Signals::new()?;
    let host = {
        let bases = Bases {
            api: platform.api_base(),
            threads: platform.threads_base(),
            completions: platform.completions_base(),
        };
        let args = args.clone();
        let folder = settings.file.with_file_name("");
        let of_included = bases.clone();
        let load = LoadSettings {
            top: Box::new(move |text| localize::use_local_platform(args.load_from(text)?, &bases)),
            included: Box::new(move |settings| {
                localize::use_local_platform_in_included(settings, &of_included, &folder)
            }),
        };
        let shared_cache = shared_component_cache();
        let compiling = Compiling { program: Some(compiler_program()?), for_authors: true, shared_cache };
        tokio::select! {
            // The host itself is unrestricted: it runs the build commands of the modules.
            host = Host::start(load, compiling, InForce::default()) => host?,
            () = signals.stop_requested(|| {}) => return Ok(ExitCode::SUCCESS),
        }
    };
    let running = RunningHost::this(host.public_address(), host.admin_address(), Some(platform.address()));
    let _announcement = running.announce(&settings.server.data_dir);
    if let Some(webhook) = webhook(&host, &settings)? {
        platform.set_webhook(webhook);
    }
    platform.set_assistants(assistants(&settings, base(&host).as_ref()))?;
    // Ends when the host shuts down, below.
    let failures = failures::show(host.failures(), &platform, host.admin_address());
    let summary = async {
        print_summary(&host, &settings, &platform, documents.as_deref()).await;
        pending().await
    };
    tokio::select! {
        () = signals.stop_requested(|| host.reload()) => {}
        never = rebuild_on_change(&args, &host, &platform, &builder) => match never {},
        () = failures => {}
        () = summary => {}
    }
    tracing::info!("stopping");
    let shutdown = async {
        host.shutdown(SHUTDOWN_GRACE).await;
        platform.shutdown().await;
    };
    signals.shut_down_or_exit(shutdown).await;
    Ok(ExitCode::SUCCESS)
}

/// Returns the address of the host for the local platform.
fn base(host: &Host) -> Option<Url> {
    Url::parse(&format!("http://{}", host.public_address())).ok()
}

/// Returns one assistant per module. `base` is the address of the host, once it is known.
fn assistants(settings: &Settings, base: Option<&Url>) -> Vec<Assistant> {
    let modules = settings.modules.iter();
    let assistant = |module: &modhost_config::Module| Assistant {
        id: format!("assistant_{}", module.name),
        name: module.name.to_string(),
        module: module.platform_name().to_owned(),
        tenant: module.owner.as_ref().map(|owner| localize::assistant_tenant(settings, owner, base)),
        configuration: serde_json::json!({}),
        // Other modules only listen.
        chooses: module.wants.events.iter().any(|pattern| pattern.matches(Event::MODULE_CHOSEN)),
    };
    modules.map(assistant).collect()
}

/// Returns the URL to which the local platform posts events: that of the first source of Unique AI. `None` if the source
/// fetches events itself.
fn webhook(host: &Host, settings: &Settings) -> anyhow::Result<Option<Url>> {
    let Some(source) = settings.sources.iter().find(|source| localize::is_from_unique(source)) else {
        let message =
            format!("the local platform cannot deliver events: {} has no source for them", settings.file.display());
        let help = "add a [[source]] with the scheme \"unique\" or the kind \"event-socket\"";
        return Err(error_with_help(message, help));
    };
    let Some(webhook) = source.webhook() else { return Ok(None) };
    let address = host.public_address();
    Url::parse(&format!("http://{address}{}", webhook.path))
        .map(Some)
        .with_context(|| format!("the path of the source is not valid in a URL: {}", webhook.path))
}

fn documents(args: &DevArgs, settings: &Settings) -> anyhow::Result<Option<PathBuf>> {
    if let Some(folder) = &args.documents {
        if !folder.is_dir() {
            bail!("--documents {}: there is no such folder", folder.display());
        }
        return Ok(Some(folder.clone()));
    }
    let parent = settings.file.with_file_name("");
    Ok(DOCUMENT_FOLDERS.iter().map(|folder| parent.join(folder)).find(|folder| folder.is_dir()))
}

fn completion(args: &DevArgs, settings: &Settings) -> anyhow::Result<Option<CompletionEndpoint>> {
    let Some(url) = args.completion_url.clone() else { return Ok(None) };
    let key = args.completion_key.as_deref().map(|key| completion_key(key, settings)).transpose()?;
    Ok(Some(CompletionEndpoint { url, key, model: args.completion_model.clone() }))
}

fn completion_key(reference: &str, settings: &Settings) -> anyhow::Result<Secret> {
    let environment = Environment::load(settings.file.with_file_name(""))?;
    Reference::from_flag("--completion-key", reference)
        .and_then(|reference| reference.resolve(&environment))
        .map_err(anyhow::Error::new)
}

/// Prints the addresses, the modules and commands to try.
async fn print_summary(host: &Host, settings: &Settings, platform: &LocalPlatform, documents: Option<&Path>) {
    let (bold, dim) = (anstyle::Style::new().bold(), anstyle::Style::new().dimmed());
    let documents = match documents {
        Some(folder) => format!("searching {}", folder.display()),
        None => "without documents; add some with --documents DIR".to_owned(),
    };
    let modules = modules(host).await;
    output::print!("\n{bold}modhost dev{bold:#}\n\n{}\n{modules}", addresses(host, settings));
    output::println!("  platform  http://{}  (local, {documents})", platform.address());
    output::println!(
        "\n  {dim}API key {} · app id {} · endpoint secret {} · company {} · user {}{dim:#}",
        local::API_KEY,
        local::APP_ID,
        local::ENDPOINT_SECRET,
        local::COMPANY_ID,
        local::USER_ID,
    );
    let port = match platform.address().port() {
        8092 => String::new(),
        port => format!("--platform-port {port} "),
    };
    output::println!("\n  try       {} send {port}\"What is our travel policy?\"", program());
    output::println!("  then      change a module's source: the next answer comes from the new version\n");
}

/// Builds modules whose sources changed, and updates the local platform when modules are added or removed. The host decides
/// which modules exist: it tolerates that the file is invalid for a moment.
async fn rebuild_on_change(
    args: &DevArgs,
    host: &Host,
    platform: &LocalPlatform,
    builder: &Builder,
) -> std::convert::Infallible {
    let mut watch = builder.watch();
    let mut settings = host.settings();
    // The host may have loaded other settings since they were read here.
    settings.mark_changed();
    loop {
        let changed = tokio::select! {
            changed = watch.changed() => Some(changed),
            Ok(()) = settings.changed() => None,
        };
        let Some(changed) = changed else {
            let settings = settings.borrow_and_update().clone();
            builder.set(&settings);
            platform.set_hosts(settings.server.admin_hosts.clone());
            watch.scan_now();
            if let Err(error) = platform.set_assistants(assistants(&settings, base(host).as_ref())) {
                tracing::error!(%error, "cannot update the modules of the local platform");
            }
            continue;
        };
        // The change may have repaired an endpoint to which the platform stopped delivering.
        if platform.revive_endpoint() {
            tracing::info!("local platform resumes delivering events");
        }
        if !args.no_build {
            builder.build_changed(&changed).await;
        }
    }
}
