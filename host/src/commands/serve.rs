//! `modhost serve`: the host against the platform that modules.toml names.

use std::future::pending;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::running::RunningHost;
use super::signals::Signals;
use super::{GRACE, HostArgs, compiling_program, output};
use modhost_config::{Settings, SourceKind};
use modhost_core::sanitize;
use modhost_server::host::{Compiling, Host};

/// How long the lines that say which modules serve wait for them to come up. Those that were compiled before take no
/// second; what takes longer, the log tells.
const UNTIL_TOLD: Duration = Duration::from_secs(3);

/// What `serve` can be told.
#[derive(Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub(super) host: HostArgs,
}

/// Serves until told to stop.
pub async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = args.host.load()?;
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    args.host.accept_data_loss(&settings)?;
    let compiling = Compiling { program: Some(compiling_program()?), for_authors: false, shared_cache: None };
    let load = move |text: Option<&str>| args.host.load_from(text);
    // Until here a signal ends the process by itself.
    let mut signals = Signals::new()?;
    let host = tokio::select! {
        host = Host::start(Box::new(load), compiling) => host?,
        () = signals.stop_requested(|| {}) => return Ok(ExitCode::SUCCESS),
    };
    let running = RunningHost::this(host.public_address(), host.admin_address(), None);
    let _announcement = running.announce(&settings.server.data_dir);
    output::println!("{}", addresses(&host, &settings));
    let telling = async {
        output::print!("{}", modules(&host).await);
        pending().await
    };
    tokio::select! {
        () = signals.stop_requested(|| host.reload()) => {}
        () = telling => {}
    }
    tracing::info!("stopping: deliveries that run have {GRACE:?} to end");
    signals.unless_told_again(host.shutdown(GRACE)).await;
    Ok(ExitCode::SUCCESS)
}

/// The lines that say where what listens; the addresses are the real ones, whatever was asked for.
pub(super) fn addresses(host: &Host, settings: &Settings) -> String {
    let scheme = if settings.server.tls.is_some() { "https" } else { "http" };
    let address = host.public_address();
    let sources = settings.sources.iter().map(|source| match &source.kind {
        SourceKind::Webhook(webhook) => {
            format!("  events    {scheme}://{address}{}  (source {})", webhook.path, source.name)
        }
        SourceKind::EventSocket(_) => format!("  events    fetched from the event socket  (source {})", source.name),
    });
    let admin = format!("  admin     http://{}/health", host.admin_address());
    sources.chain([admin]).collect::<Vec<_>>().join("\n")
}

/// The lines that say which modules serve, each with its end, as soon as that is known of all, or nearly.
pub(super) async fn modules(host: &Host) -> String {
    // Those that take longer are told as what they are.
    let _ = tokio::time::timeout(UNTIL_TOLD, host.registry().all_have_come_up()).await;
    let modules = host.registry().status().into_iter().map(|module| match module.version {
        Some(version) => format!("  module    {}  version {version}\n", module.name),
        None if module.coming_up => {
            format!("  module    {}  no version serves yet: it comes up, and its events wait\n", module.name)
        }
        None => {
            let why = module.waiting.map(|waiting| waiting.reason).unwrap_or_default();
            let why = sanitize::indented(&why, "            ");
            format!("  module    {}  no version serves, its events wait: {why}\n", module.name)
        }
    });
    modules.collect()
}
