//! `modhost dev`: everything on this machine, rebuilt and swapped as its sources change.

pub(super) mod build;
mod built_components;
mod failures;
mod localize;

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use url::Url;

use super::running::RunningHost;
use super::serve::{addresses, modules};
use super::signals::Signals;
use super::{GRACE, HostArgs, compiling_program, output, program};
use build::Builder;
use localize::Bases;
use modhost_config::{ConfigErrors, Environment, Reference, Settings};
use modhost_core::event::Event;
use modhost_core::secret::Secret;
use modhost_emulator as local;
use modhost_emulator::{Assistant, CompletionEndpoint, LocalPlatform, LocalSettings};
use modhost_server::host::{Compiling, Host};

/// Where documents may lie, seen from modules.toml: one's own, and those of the samples.
const DOCUMENTS: [&str; 2] = ["documents", "plugins/assistant/documents"];

/// What `dev` can be told.
#[derive(Args, Clone)]
pub struct DevArgs {
    #[command(flatten)]
    pub(super) host: HostArgs,
    /// Run the local platform on this port; 0 picks a free one
    #[arg(long, value_name = "PORT", default_value_t = 8092)]
    platform_port: u16,
    /// Let the local platform search the Markdown and text files in this folder [default: `documents` beside modules.toml, else those of the samples]
    #[arg(long, value_name = "DIR")]
    documents: Option<PathBuf>,
    /// Complete through this OpenAI-compatible endpoint (https://…/v1) instead of quoting documents
    #[arg(long, value_name = "URL")]
    completion_url: Option<Url>,
    /// The key of that endpoint, by reference: env:NAME or file:PATH
    #[arg(long, value_name = "REFERENCE", requires = "completion_url")]
    completion_key: Option<String>,
    /// Ask that endpoint for this model, whichever a module names
    #[arg(long, value_name = "MODEL", requires = "completion_url")]
    completion_model: Option<String>,
    /// Let the host fetch events from the local platform's event socket, instead of having them posted
    #[arg(long)]
    event_socket: bool,
    /// Use the components as they are, and don't build when sources change
    #[arg(long)]
    no_build: bool,
}

impl DevArgs {
    /// Reads the settings, with what the command line says in place of what the file says.
    fn load(&self) -> Result<Settings, ConfigErrors> {
        self.host.load().map(|settings| self.over(settings))
    }

    /// Without a time limit; of a text that the file held before, if there is one.
    fn load_from(&self, text: Option<&str>) -> Result<Settings, ConfigErrors> {
        self.host.load_from(text).map(|settings| self.over(settings))
    }

    fn over(&self, settings: Settings) -> Settings {
        if self.event_socket { localize::fetching(settings) } else { settings }
    }
}

/// Runs until told to stop.
pub async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let settings = args.load()?;
    args.host.accept_data_loss(&settings)?;
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
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
        assistants: assistants(&settings),
        ..LocalSettings::default()
    })
    .await?;
    // Until here a signal ends the process by itself.
    let mut signals = Signals::new()?;
    let host = {
        let bases = Bases {
            api: platform.api_base(),
            threads: platform.threads_base(),
            completions: platform.completions_base(),
        };
        let args = args.clone();
        let load = move |text: Option<&str>| localize::localized(args.load_from(text)?, &bases);
        let shared_cache = super::authors_cache();
        let compiling = Compiling { program: Some(compiling_program()?), for_authors: true, shared_cache };
        tokio::select! {
            host = Host::start(Box::new(load), compiling) => host?,
            () = signals.stop_requested(|| {}) => return Ok(ExitCode::SUCCESS),
        }
    };
    let running = RunningHost::this(host.public_address(), host.admin_address(), Some(platform.address()));
    let _announcement = running.announce(&settings.server.data_dir);
    if let Some(webhook) = webhook(&host, &settings)? {
        platform.set_webhook(webhook);
    }
    // It ends with the host, which is only shut down below.
    let failures = failures::show(host.failures(), &platform, host.admin_address());
    let telling = async {
        tell(&host, &settings, &platform, documents.as_deref()).await;
        pending().await
    };
    tokio::select! {
        () = signals.stop_requested(|| host.reload()) => {}
        never = keep_up(&args, &host, &platform, &builder) => match never {},
        () = failures => {}
        () = telling => {}
    }
    tracing::info!("stopping");
    let stopping = async {
        host.shutdown(GRACE).await;
        platform.shutdown().await;
    };
    signals.unless_told_again(stopping).await;
    Ok(ExitCode::SUCCESS)
}

/// One assistant a module.
fn assistants(settings: &Settings) -> Vec<Assistant> {
    let modules = settings.modules.iter();
    let assistant = |module: &modhost_config::Module| Assistant {
        id: format!("assistant_{}", module.name),
        name: module.name.to_string(),
        module: module.name.to_string(),
        configuration: serde_json::json!({}),
        // One that doesn't take these only listens.
        chooses: module.wants.events.iter().any(|pattern| pattern.matches(Event::MODULE_CHOSEN)),
    };
    modules.map(assistant).collect()
}

/// Where the local platform posts events to: the first source of Unique's, unless that fetches them itself.
fn webhook(host: &Host, settings: &Settings) -> anyhow::Result<Option<Url>> {
    let Some(source) = settings.sources.iter().find(|source| localize::is_of_unique(source)) else {
        bail!(
            "{} has no [[source]] with the scheme \"unique\" and none of the kind \"event-socket\": the local platform has \
             nowhere to deliver events to",
            settings.file.display()
        );
    };
    let Some(webhook) = source.webhook() else { return Ok(None) };
    let address = host.public_address();
    Url::parse(&format!("http://{address}{}", webhook.path)).map(Some).context("the source's path makes no URL")
}

fn documents(args: &DevArgs, settings: &Settings) -> anyhow::Result<Option<PathBuf>> {
    if let Some(folder) = &args.documents {
        if !folder.is_dir() {
            bail!("--documents {}: there is no such folder", folder.display());
        }
        return Ok(Some(folder.clone()));
    }
    let beside = settings.file.with_file_name("");
    Ok(DOCUMENTS.iter().map(|folder| beside.join(folder)).find(|folder| folder.is_dir()))
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

/// Says what runs where, and what to try.
async fn tell(host: &Host, settings: &Settings, platform: &LocalPlatform, documents: Option<&Path>) {
    let (bold, dim) = (anstyle::Style::new().bold(), anstyle::Style::new().dimmed());
    let documents = match documents {
        Some(folder) => format!("searching {}", folder.display()),
        None => "without documents: --documents DIR gives it some".to_owned(),
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
    output::println!("  then      change a module's source and save: the next answer is new\n");
}

/// Builds what changed, and tells the local platform of modules that come and go. Which modules there are, the host says: it
/// keeps one that is gone from the file for a moment only.
async fn keep_up(args: &DevArgs, host: &Host, platform: &LocalPlatform, builder: &Builder) -> std::convert::Infallible {
    let mut watch = builder.watch();
    let mut settings = host.settings();
    // The host may know of modules already that are missing in the file.
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
            watch.look();
            if let Err(error) = platform.set_assistants(assistants(&settings)) {
                tracing::error!("the local platform can't take in the changed modules: {error}");
            }
            continue;
        };
        // An endpoint the platform gave up may have been mended by what was just saved.
        if platform.revive_endpoint() {
            tracing::info!("the local platform delivers events again");
        }
        if !args.no_build {
            builder.build_changed(&changed).await;
        }
    }
}
