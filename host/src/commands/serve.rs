//! `modhost serve`: runs the host against the platform in modules.toml.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::diagnostics::error_with_help;
use super::help::examples;
use super::running::RunningHost;
use super::signals::Signals;
use super::{HostArgs, SHUTDOWN_GRACE, compiler_program, log_warnings, output, run_host};
use modhost_config::{Server, Settings, SourceKind};
use modhost_core::sanitize;
use modhost_sandbox::{InForce, SandboxMode};
use modhost_server::host::{Compiling, Host, LoadSettings};

/// How long the list of modules waits for modules that are coming up. Cached components take less than a second; the log
/// reports slower ones.
const STARTUP_SUMMARY_TIMEOUT: Duration = Duration::from_secs(3);

/// How many sources and modules are listed at the start.
const MAX_LISTED: usize = 50;

/// Arguments of `modhost serve`.
#[derive(Args)]
#[command(after_long_help = examples!(
    "modhost serve"
    "modhost serve --config /etc/modhost/modules.toml --data-dir /var/lib/modhost"
    "modhost serve --port 80 --log-format json"
))]
pub struct ServeArgs {
    #[command(flatten)]
    pub(super) host: HostArgs,
}

/// Restricts this process, then runs the host.
pub fn start(args: ServeArgs) -> anyhow::Result<ExitCode> {
    // Before the first thread starts, and so before the log does: a running thread can't be restricted fully.
    let restricted = args.host.load().map_err(anyhow::Error::from).and_then(|settings| {
        let in_force = restrict(&settings.server)?;
        Ok((settings, in_force))
    });
    run_host(&args.host.log.clone(), async {
        let (settings, in_force) = restricted?;
        run(args, settings, in_force).await
    })
}

/// Restricts this process to what a host needs: it writes to its data directory and temporary files, and starts only itself.
fn restrict(server: &Server) -> anyhow::Result<InForce> {
    if server.sandbox == SandboxMode::Off {
        return Ok(InForce::default());
    }
    // Only existing folders can be allowed. If this one cannot be created, opening the journal fails with the reason.
    let _ = std::fs::create_dir_all(&server.data_dir);
    // SQLite uses the latter unless TMPDIR is set.
    let temporary = [std::env::temp_dir(), PathBuf::from("/var/tmp")];
    let temporary = temporary.iter().filter(|folder| folder.is_dir()).map(PathBuf::as_path);
    let writable: Vec<&Path> = std::iter::once(server.data_dir.as_path()).chain(temporary).collect();
    modhost_sandbox::confine_host(server.sandbox, &writable, &compiler_program()?).map_err(|missing| {
        let message = format!("`sandbox = \"required\"` in [server], but the system refuses restrictions: {missing}");
        error_with_help(message, "see \"Sandbox\" in docs/operating.md, or set sandbox = \"auto\" to do without them")
    })
}

/// Runs the host until it receives a stop signal.
async fn run(args: ServeArgs, settings: Settings, in_force: InForce) -> anyhow::Result<ExitCode> {
    log_warnings(&settings);
    args.host.accept_data_loss(&settings)?;
    let compiling = Compiling { program: Some(compiler_program()?), for_authors: false, shared_cache: None };
    let load =
        LoadSettings { top: Box::new(move |text| args.host.load_from(text)), included: Box::new(|settings| settings) };
    // Until here, a signal ends the process immediately.
    let mut signals = Signals::new()?;
    let host = tokio::select! {
        host = Host::start(load, compiling, in_force) => host?,
        () = signals.stop_requested(|| {}) => return Ok(ExitCode::SUCCESS),
    };
    // Not before the start: Wasmtime opens a file of this process in /proc.
    if settings.server.sandbox != SandboxMode::Off
        && let Err(error) = modhost_sandbox::hide_from_other_processes()
    {
        tracing::warn!(%error, "other processes of this user can inspect the host");
    }
    let running = RunningHost::this(host.public_address(), host.admin_address(), None);
    let _announcement = running.announce(&settings.server.data_dir);
    output::println!("{}", addresses(&host, &settings));
    let list_modules = async {
        output::print!("{}", modules(&host).await);
        pending().await
    };
    tokio::select! {
        () = signals.stop_requested(|| host.reload()) => {}
        () = list_modules => {}
    }
    tracing::info!(grace = ?SHUTDOWN_GRACE, "stopping; waiting for running deliveries");
    signals.shut_down_or_exit(host.shutdown(SHUTDOWN_GRACE)).await;
    Ok(ExitCode::SUCCESS)
}

/// Formats the addresses on which the host listens. A port that was given as 0 is the one the system chose.
pub(super) fn addresses(host: &Host, settings: &Settings) -> String {
    let scheme = if settings.server.tls.is_some() { "https" } else { "http" };
    let address = host.public_address();
    let sources = settings.sources.iter().map(|source| match &source.kind {
        SourceKind::Webhook(webhook) => {
            format!("  events    {scheme}://{address}{}  (source {})", webhook.path, source.name)
        }
        SourceKind::EventSocket(_) => format!("  events    fetched from the event socket  (source {})", source.name),
    });
    let mut lines: Vec<String> = sources.take(MAX_LISTED).collect();
    if settings.sources.len() > MAX_LISTED {
        lines.push(format!(
            "  events    and {} more sources; see `modhost routes`",
            settings.sources.len() - MAX_LISTED
        ));
    }
    lines.push(format!("  admin     http://{}/health", host.admin_address()));
    lines.join("\n")
}

/// Formats one line per module with its version, after all modules have come up or [`STARTUP_SUMMARY_TIMEOUT`] has passed.
pub(super) async fn modules(host: &Host) -> String {
    // After the timeout, slower modules are listed as coming up.
    let _ = tokio::time::timeout(STARTUP_SUMMARY_TIMEOUT, host.registry().wait_until_loaded()).await;
    let status = host.registry().status();
    let more = status.len().saturating_sub(MAX_LISTED);
    let modules = status.into_iter().take(MAX_LISTED).map(|module| match module.version {
        Some(version) => format!("  module    {}  version {version}\n", module.name),
        None if module.coming_up => {
            format!("  module    {}  coming up; its deliveries wait\n", module.name)
        }
        None => {
            let why = module.waiting.map(|waiting| waiting.reason).unwrap_or_default();
            let why = sanitize::indented(&why, "            ");
            format!("  module    {}  no version serves, its deliveries wait: {why}\n", module.name)
        }
    });
    let mut text: String = modules.collect();
    if more > 0 {
        text.push_str(&format!("  module    and {more} more; see `modhost modules`\n"));
    }
    text
}
