//! `modhost send --source`: sends an event as its platform would, signed with the source's own secret.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use url::{Host, Url};

use super::SendArgs;
use crate::commands::event_file::EventFile;
use crate::commands::output;
use crate::commands::running::{RunningHost, base_url};
use modhost_config::{Environment, Reference, Settings, Source, Webhook};
use modhost_core::sanitize;
use modhost_core::secret::Secret;
use modhost_emulator as local;
use modhost_ingress::sources::schemes::{self, Key, Outgoing, Scheme};
use modhost_server::resolved_config;

/// How long a host may take to answer: a platform waits no longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A secret, and where it was found.
struct Found {
    key: Key,
    secret: Secret,
    /// None for the secret that `modhost dev` gives out.
    reference: Option<Reference>,
}

/// Sends the event, or prints how curl would.
///
/// The exit code is 0 if it was taken, 1 if it was not.
///
/// # Errors
///
/// When there is no such source, its secret can't be found, or nobody answers.
pub(super) async fn run(args: &SendArgs, source: &str) -> anyhow::Result<ExitCode> {
    let settings = args.file.load()?;
    let (source, webhook) = find(&settings, source)?;
    let scheme = schemes::scheme(&webhook.scheme);
    // Where it runs, whatever its port; else where it would.
    let listen = RunningHost::find(&settings.server.data_dir).map_or(settings.server.listen, |running| running.listen);
    let url = target(args.to.as_deref(), webhook, listen)?;
    let found = secret(args, &settings, (source, webhook), &*scheme, &url)?;
    let file: EventFile = args.text.parse()?;
    let now = SystemTime::now();
    let read = file.read()?;
    let body = scheme.dated(&read, now);
    let given: HeaderMap = args.headers.iter().map(|line| (line.name.clone(), line.value.clone())).collect();
    let id = format!("msg_{:016x}{:08x}", fastrand::u64(..), fastrand::u32(..));
    let outgoing = Outgoing { body: &body, headers: &given, now, id: &id };
    let mut headers = scheme
        .sign(&outgoing, found.as_ref().map(|found| &found.key))
        .map_err(|reason| anyhow!("no request of the source \"{}\" can be signed: {reason}", source.name))?;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // What is given by hand stands in the place of what would be made.
    headers.extend(given);
    if args.print_curl {
        let changed = matches!(body, Cow::Owned(_)).then_some(&*body);
        output::println!("{}", curl(&url, &headers, &data(&file, changed), found.as_ref()));
        return Ok(ExitCode::SUCCESS);
    }
    post(url, headers, body.into_owned()).await
}

async fn post(url: Url, headers: HeaderMap, body: Vec<u8>) -> anyhow::Result<ExitCode> {
    let client = modhost_platform::http_client()?;
    let request = client.post(url.clone()).headers(headers).body(body).timeout(ANSWER_WITHIN);
    let answer = request.send().await.with_context(|| format!("{url} can't be reached; is the host running?"))?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let text = answer.text().await.context("the answer broke off")?;
    if status.is_success() {
        output::eprintln!("taken: {status}");
        output::println!("{}", sanitize::lines(&text));
        output::eprintln!("An event is done once: send it again with another id to have it done again.");
        return Ok(ExitCode::SUCCESS);
    }
    output::eprintln!("{}: {status}", if is_for_now(status) { "refused for now" } else { "refused" });
    if let Some(after) = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()) {
        let unit = if after == "1" { "second" } else { "seconds" };
        output::eprintln!("try again after {after} {unit}");
    }
    output::println!("{}", sanitize::lines(&text));
    Ok(ExitCode::FAILURE)
}

fn is_for_now(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

fn find<'s>(settings: &'s Settings, name: &str) -> anyhow::Result<(&'s Source, &'s Webhook)> {
    let found = settings.sources.iter().find(|source| source.name.as_str() == name);
    let found = found.with_context(|| settings.no_source(name))?;
    let webhook = found.webhook().with_context(|| {
        format!("the source \"{name}\" fetches its events from an event socket: nothing can be sent to it")
    })?;
    Ok((found, webhook))
}

/// Where the request goes: an address given with or without a path, else the host of modules.toml on this machine.
fn target(to: Option<&str>, webhook: &Webhook, listen: SocketAddr) -> anyhow::Result<Url> {
    let Some(to) = to else {
        if listen.port() == 0 {
            bail!(
                "no host is running here, and `listen` in modules.toml names no port: start it, or say where: --to http://…"
            );
        }
        let mut url = base_url(listen).with_context(|| format!("{listen} is no address; name one: --to http://…"))?;
        url.set_path(&webhook.path);
        return Ok(url);
    };
    let url = Url::parse(to).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    let mut url = url.with_context(|| format!("--to {to}: with --source this is an address: http://127.0.0.1:8080"))?;
    if url.path() == "/" {
        url.set_path(&webhook.path);
    }
    Ok(url)
}

/// The secret to sign with: the one that is named, else the first of the source's that is there. A host on this machine
/// may be `modhost dev`, which has a secret of its own for sources whose secret is not set.
fn secret(
    args: &SendArgs,
    settings: &Settings,
    (source, webhook): (&Source, &Webhook),
    scheme: &dyn Scheme,
    url: &Url,
) -> anyhow::Result<Option<Found>> {
    let environment = Environment::load(settings.file.with_file_name(""))?;
    let found = |reference: &Reference| -> anyhow::Result<Found> {
        let secret = reference.resolve(&environment)?;
        Ok(Found {
            key: resolved_config::key(source, scheme, reference, &environment)?,
            secret,
            reference: Some(reference.clone()),
        })
    };
    if let Some(text) = &args.secret {
        return found(&Reference::from_flag("--secret", text)?).map(Some);
    }
    let Some(first) = webhook.secrets.first() else { return Ok(None) };
    if let Some(found) = webhook.secrets.iter().find_map(|reference| found(reference).ok()) {
        return Ok(Some(found));
    }
    let local = Secret::new(local::ENDPOINT_SECRET);
    match scheme.key(&local) {
        Ok(key) if is_here(url) => {
            output::eprintln!("signed with the secret of `modhost dev`: that of modules.toml is not set");
            Ok(Some(Found { key, secret: local, reference: None }))
        }
        _ => match found(first) {
            Err(error) => Err(error),
            Ok(_) => bail!("the secret has come and gone; try again"),
        },
    }
}

/// Whether an address is on this machine.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The request as a command for a shell. A secret that is sent as it stands is named and not shown.
fn curl(url: &Url, headers: &HeaderMap, data: &str, found: Option<&Found>) -> String {
    let mut command = format!("curl -i {}", quoted(url.as_str()));
    for (name, value) in headers {
        _ = write!(command, " \\\n  -H {}", header_line(name, value, found));
    }
    _ = write!(command, " \\\n  --data-binary {}", quoted(data));
    command
}

/// What curl is to send: the file, or a body that is no longer as the file has it.
fn data(file: &EventFile, changed: Option<&[u8]>) -> String {
    match (changed, file) {
        (Some(body), _) => String::from_utf8_lossy(body).into_owned(),
        (None, EventFile::File(path)) => format!("@{}", path.display()),
        (None, EventFile::Stdin) => "@-".to_owned(),
    }
}

fn header_line(name: &HeaderName, value: &HeaderValue, found: Option<&Found>) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    match found.filter(|found| text == found.secret.expose()) {
        Some(Found { reference: Some(reference), .. }) => format!("\"{name}: {}\"", reference.in_shell()),
        _ => quoted(&format!("{name}: {text}")),
    }
}

/// A word as a shell takes it for one. What doesn't show itself stands there as an escape, so that what is copied is what is
/// sent.
fn quoted(text: &str) -> String {
    if !text.chars().any(|c| sanitize::is_unsafe(c) && c != '\n') {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut word = "$'".to_owned();
    for c in text.chars() {
        match c {
            '\'' | '\\' => word.extend(['\\', c]),
            c if sanitize::is_unsafe(c) => {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| _ = write!(word, "\\x{byte:02x}"));
            }
            c => word.push(c),
        }
    }
    word + "'"
}
