//! `modhost deliveries replay`: runs a recorded delivery against another component, with the recorded results.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use super::format::value;
use super::records::Records;
use crate::commands::output;
use modhost_config::Settings;
use modhost_core::event::{Event, Header, Name};
use modhost_core::import::{Import, RecordedImport};
use modhost_core::limits::DEFAULT_STACK;
use modhost_core::sanitize::{indented, line};
use modhost_runtime::call_log::{CallRequest, Lookup, as_recorded};
use modhost_runtime::capabilities::{Grants, HttpGrants};
use modhost_runtime::engine::{self, GuestOutcome, RecordedDelivery, Spec, SwapPolicy};
use modhost_server::admin_api::DetailsView;
use modhost_server::resolved_config;
use modhost_storage::journal::Call;

/// The call that writes the reply.
const REPLY: Import = Import::MessagesReply;

/// Arguments of `modhost deliveries replay`.
#[derive(Args)]
pub(super) struct ReplayArgs {
    /// Delivery id
    #[arg(value_name = "ID")]
    id: String,
    /// Component to run
    #[arg(long, value_name = "FILE")]
    component: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The result of a dry run.
struct DryRunOutcome {
    ended: GuestOutcome,
    calls: Vec<CallRequest>,
    missing: Vec<(RecordedImport, Value)>,
    reply_then: Option<Value>,
    reply_now: Option<Value>,
}

pub(super) async fn run(records: &Records, args: &ReplayArgs, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let details = records.show(&args.id).await?;
    let (spec, stack) = spec(args, &details, config)?;
    let dry_run = dry_run(&details, &spec, stack, records.salt()).await?;
    let differs = dry_run.differs();
    if args.json {
        output::print!("{}", output::json_lines(&[dry_run.json()])?);
    } else {
        output::print!("{}", dry_run.text());
    }
    Ok(if differs { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Returns the component with the settings of the delivery's module, and the stack size of its host in bytes.
fn spec(args: &ReplayArgs, details: &DetailsView, config: Option<&Path>) -> anyhow::Result<(Spec, u64)> {
    let file = config.unwrap_or(Path::new("modules.toml"));
    let settings = if config.is_some() || file.is_file() { Some(Settings::load(file)?) } else { None };
    let name = Name::from(details.delivery.module.as_str());
    let module = settings.iter().flat_map(|settings| &settings.modules).find(|module| module.name == name);
    let limits = module.map(|module| module.limits.clone()).unwrap_or_default();
    let config = module.map(|module| module.config.clone()).unwrap_or_default();
    // Without secrets, because nothing is sent.
    let allowed = module.iter().flat_map(|module| &module.http);
    let allowed = allowed.map(|entry| resolved_config::http_grant(entry, Vec::new())).collect();
    let location = module.map(|module| module.location.clone());
    let http = HttpGrants { allowed, location };
    let spec = Spec {
        name,
        tenants: Vec::new(),
        component: args.component.clone(),
        limits: limits.delivery,
        grants: Grants { config: Arc::new(config), http },
        swap: SwapPolicy::default(),
    };
    Ok((spec, settings.map_or(DEFAULT_STACK, |settings| settings.server.stack)))
}

async fn dry_run(details: &DetailsView, spec: &Spec, stack: u64, salt: [u8; 32]) -> anyhow::Result<DryRunOutcome> {
    let bytes = super::super::check::read(&spec.component)?;
    let version = super::super::engine(1, stack)?
        .load(bytes, spec)
        .await
        .with_context(|| format!("cannot run {}", spec.component.display()))?;
    let recorded = RecordedDelivery {
        id: modhost_core::event::DeliveryId::from_text(&details.delivery.id),
        event: Arc::new(event(details)?),
        module: spec.name.clone(),
        calls: details.calls.iter().map(call).collect::<Result<Vec<Call>, _>>()?,
        salt,
    };
    let engine::DryRunOutcome { ended, calls, missing, .. } = engine::dry_run(&version, recorded).await;
    let reply_now = calls.iter().rev().find(|call| call.import == REPLY).map(|call| as_recorded(&call.arguments));
    let reply_then = details.calls.iter().rev().find(|call| call.import == REPLY).map(|call| call.arguments.clone());
    Ok(DryRunOutcome { ended, calls, missing, reply_then, reply_now })
}

fn event(details: &DetailsView) -> anyhow::Result<Event> {
    let event = &details.event;
    let header = Header {
        id: event.id.clone(),
        source: event.source.as_str().into(),
        name: event.name.clone(),
        tenant: event.tenant.as_str().into(),
        user_id: event.user_id.clone(),
        company_id: event.company_id.clone(),
        created_at: event.created_at,
    };
    let payload = event.payload.get().to_owned();
    if payload.is_empty() {
        bail!("the event of delivery {} is no longer stored", details.delivery.id);
    }
    let whole = 0..payload.len();
    Ok(Event::new(header, payload.into(), whole))
}

fn call(call: &modhost_server::admin_api::CallView) -> Result<Call, serde_json::Error> {
    Ok(Call {
        number: call.number,
        import: call.import.clone(),
        arguments: serde_json::to_vec(&call.arguments)?,
        answer: call.answer.as_ref().map(serde_json::to_vec).transpose()?,
        at: std::time::SystemTime::UNIX_EPOCH,
    })
}

impl DryRunOutcome {
    fn differs(&self) -> bool {
        let same = self.calls.iter().all(|call| call.known == Lookup::Same);
        !same || !self.missing.is_empty() || self.ended != GuestOutcome::Answered
    }

    fn ended(&self) -> String {
        match &self.ended {
            GuestOutcome::Answered => "answered".into(),
            GuestOutcome::Failed(failure) => format!("failed: {}", failure.reason),
            GuestOutcome::Trapped { reason } => format!("trap: {reason}"),
            GuestOutcome::LimitReached(limit) => format!("limit reached: {limit}"),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("outcome: {}", indented(&self.ended(), "    "))];
        for call in &self.calls {
            match &call.known {
                Lookup::Same => lines.push(format!("  same     {}", call.import)),
                Lookup::Changed(then) => {
                    lines.push(format!("~ changed  {}", call.import));
                    lines.push(format!("    before {}", value(then)));
                    lines.push(format!("    now    {}", value(&call.arguments)));
                }
                Lookup::Added => lines.push(format!("+ added    {}  {}", call.import, value(&call.arguments))),
            }
        }
        lines.extend(
            self.missing
                .iter()
                .map(|(import, arguments)| format!("- removed  {}  {}", line(import.as_str()), value(arguments))),
        );
        match (&self.reply_then, &self.reply_now) {
            (Some(then), Some(now)) if then == now => lines.push("the reply is the same".into()),
            (then, now) => {
                let text = |reply: &Option<Value>| reply.as_ref().map_or_else(|| "none".to_owned(), value);
                lines.push(format!("reply before  {}", text(then)));
                lines.push(format!("reply now     {}", text(now)));
            }
        }
        lines.join("\n") + "\n"
    }

    fn json(&self) -> Value {
        let calls = self.calls.iter().map(|call| match &call.known {
            Lookup::Same => json!({ "import": call.import, "is": "same" }),
            Lookup::Changed(then) => {
                json!({ "import": call.import, "is": "changed", "then": then, "now": call.arguments })
            }
            Lookup::Added => json!({ "import": call.import, "is": "added", "now": call.arguments }),
        });
        let missing = self.missing.iter().map(|(import, then)| json!({ "import": import, "is": "gone", "then": then }));
        json!({
            "ended": self.ended(),
            "differs": self.differs(),
            "calls": calls.chain(missing).collect::<Vec<_>>(),
            "reply": { "then": self.reply_then, "now": self.reply_now },
        })
    }
}
