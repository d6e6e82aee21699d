//! `modhost serve`: the host against the platform that modules.toml names.

use std::process::ExitCode;

use clap::Args;

use super::{GRACE, HostArgs, compiling_program, told_to_stop};
use crate::config::{Settings, SourceKind};
use crate::host::{Compiling, Host};

/// What `serve` can be told.
#[derive(Args)]
pub struct ServeArgs {
    #[command(flatten)]
    host: HostArgs,
}

/// Serves until told to stop.
pub async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = args.host.load()?;
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    let compiling = Compiling { program: Some(compiling_program()?), for_authors: false };
    let host = Host::start(Box::new(move || args.host.load()), compiling).await?;
    anstream::println!("{}", listening(&host, &settings));
    told_to_stop().await?;
    tracing::info!("stopping: deliveries that run have {GRACE:?} to end");
    host.shutdown(GRACE).await;
    Ok(ExitCode::SUCCESS)
}

/// The lines that say where what listens; the addresses are the real ones, whatever was asked for.
pub(super) fn listening(host: &Host, settings: &Settings) -> String {
    let scheme = if settings.server.tls.is_some() { "https" } else { "http" };
    let address = host.public_address();
    let sources = settings.sources.iter().map(|source| match &source.kind {
        SourceKind::Webhook(webhook) => {
            format!("  events    {scheme}://{address}{}  (source {})", webhook.path, source.name)
        }
        SourceKind::EventSocket(_) => format!("  events    fetched from the event socket  (source {})", source.name),
    });
    let admin = format!("  admin     http://{}/health", host.admin_address());
    let modules = host.registry().status().into_iter().map(|module| match module.version {
        Some(version) => format!("  module    {}  version {version}", module.name),
        None => format!("  module    {}  no version serves: {}", module.name, module.refused.unwrap_or_default()),
    });
    sources.chain([admin]).chain(modules).collect::<Vec<_>>().join("\n")
}
