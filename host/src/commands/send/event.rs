//! `modhost send --source`: sends an event as its platform does, signed with a secret of the source.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use url::{Host, Url};

use super::SendArgs;
use crate::commands::diagnostics::{self, error_with_help};
use crate::commands::event_file::EventFile;
use crate::commands::output;
use crate::commands::running::{RunningHost, base_url};
use modhost_config::{Environment, Reference, Settings, Source, Webhook};
use modhost_core::sanitize;
use modhost_core::secret::Secret;
use modhost_emulator as local;
use modhost_ingress::sources::schemes::{self, Key, Outgoing, Scheme};
use modhost_server::resolved_config;

/// Timeout of the request, as on platforms.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// A secret and its origin.
struct SigningSecret {
    key: Key,
    secret: Secret,
    /// `None` for the secret of `modhost dev`.
    reference: Option<Reference>,
}

/// Sends the event, or prints the curl command that does.
///
/// The exit code is 0 if the host accepted the event, 1 if not.
///
/// # Errors
///
/// If there is no such source, its secret cannot be found, or the host does not respond.
pub(super) async fn run(args: &SendArgs, source: &str) -> anyhow::Result<ExitCode> {
    let settings = args.file.load()?;
    let (source, webhook) = find_webhook(&settings, source)?;
    let scheme = schemes::scheme(&webhook.scheme);
    // The address of the running host, else the configured one.
    let listen = RunningHost::find(&settings.server.data_dir).map_or(settings.server.listen, |running| running.listen);
    let url = target_url(args.to.as_deref(), webhook, listen)?;
    let secret = signing_secret(args, &settings, (source, webhook), &*scheme, &url)?;
    let file: EventFile = args.text.parse()?;
    let now = SystemTime::now();
    let content = file.read()?;
    let body = scheme.with_current_time(&content, now);
    let given: HeaderMap = args.headers.iter().map(|line| (line.name.clone(), line.value.clone())).collect();
    let id = format!("msg_{:016x}{:08x}", fastrand::u64(..), fastrand::u32(..));
    let outgoing = Outgoing { body: &body, headers: &given, now, id: &id };
    let mut headers = scheme
        .sign(&outgoing, secret.as_ref().map(|secret| &secret.key))
        .map_err(|reason| anyhow!("cannot sign a request of the source \"{}\": {reason}", source.name))?;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Headers of the command line replace generated ones.
    headers.extend(given);
    if args.print_curl {
        let changed = matches!(body, Cow::Owned(_)).then_some(&*body);
        output::println!("{}", curl(&url, &headers, &curl_data(&file, changed), secret.as_ref()));
        return Ok(ExitCode::SUCCESS);
    }
    post(url, headers, body.into_owned()).await
}

async fn post(url: Url, headers: HeaderMap, body: Vec<u8>) -> anyhow::Result<ExitCode> {
    let client = modhost_platform::http_client()?;
    let request = client.post(url.clone()).headers(headers).body(body).timeout(RESPONSE_TIMEOUT);
    let response = request.send().await.map_err(|error| {
        let error = anyhow::Error::new(error.without_url());
        error_with_help(
            format!("cannot reach the host at {url}: {error:#}"),
            "start the host, or name its address with --to",
        )
    })?;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.context("the connection closed during the response")?;
    if status.is_success() {
        output::eprintln!("accepted: {status}");
        output::println!("{}", sanitize::lines(&text));
        diagnostics::hint("the host processes an event id once; to process the event again, change its id");
        return Ok(ExitCode::SUCCESS);
    }
    output::eprintln!("{}: {status}", if is_temporary(status) { "temporarily rejected" } else { "rejected" });
    if let Some(after) = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()) {
        let unit = if after == "1" { "second" } else { "seconds" };
        diagnostics::hint(format_args!("try again after {after} {unit}"));
    }
    output::println!("{}", sanitize::lines(&text));
    Ok(ExitCode::FAILURE)
}

fn is_temporary(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

fn find_webhook<'s>(settings: &'s Settings, name: &str) -> anyhow::Result<(&'s Source, &'s Webhook)> {
    let found = settings.sources.iter().find(|source| source.name.as_str() == name);
    let found = found.with_context(|| settings.unknown_source(name))?;
    let webhook = found.webhook().with_context(|| {
        format!("the source \"{name}\" receives no requests: it fetches events from an event socket")
    })?;
    Ok((found, webhook))
}

/// Returns the URL of the request: the given address, with the path of the source if it has none; else the host of modules.toml
/// on this machine.
fn target_url(to: Option<&str>, webhook: &Webhook, listen: SocketAddr) -> anyhow::Result<Url> {
    let Some(to) = to else {
        if listen.port() == 0 {
            return Err(error_with_help(
                "the host is not running, and `listen` in modules.toml selects no fixed port",
                "start the host, or name its address: --to http://127.0.0.1:8080",
            ));
        }
        let mut url = base_url(listen).with_context(|| format!("invalid address {listen}"))?;
        url.set_path(&webhook.path);
        return Ok(url);
    };
    let url = Url::parse(to).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    let mut url = url.ok_or_else(|| {
        let message = format!("--to {to} is not the address of a host");
        error_with_help(message, "with --source, use an address like http://127.0.0.1:8080")
    })?;
    if url.path() == "/" {
        url.set_path(&webhook.path);
    }
    Ok(url)
}

/// Returns the secret to sign with: the one that the command line names, else the first secret of the source that is set, else
/// the secret of `modhost dev` if the host is on this machine.
fn signing_secret(
    args: &SendArgs,
    settings: &Settings,
    (source, webhook): (&Source, &Webhook),
    scheme: &dyn Scheme,
    url: &Url,
) -> anyhow::Result<Option<SigningSecret>> {
    let environment = Environment::load(settings.file.with_file_name(""))?;
    let resolve = |reference: &Reference| -> anyhow::Result<SigningSecret> {
        let secret = reference.resolve(&environment)?;
        Ok(SigningSecret {
            key: resolved_config::key(source, scheme, reference, &environment)?,
            secret,
            reference: Some(reference.clone()),
        })
    };
    if let Some(text) = &args.secret {
        return resolve(&Reference::from_flag("--secret", text)?).map(Some);
    }
    let Some(first) = webhook.secrets.first() else { return Ok(None) };
    if let Some(found) = webhook.secrets.iter().find_map(|reference| resolve(reference).ok()) {
        return Ok(Some(found));
    }
    let local = Secret::new(local::ENDPOINT_SECRET);
    match scheme.key(&local) {
        Ok(key) if is_local(url) => {
            diagnostics::warn("no secret of the source is set; the request is signed with the secret of `modhost dev`");
            Ok(Some(SigningSecret { key, secret: local, reference: None }))
        }
        _ => match resolve(first) {
            Err(error) => Err(error),
            Ok(_) => bail!("the secret changed during the command; try again"),
        },
    }
}

/// Returns whether a URL is on this machine.
fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Formats the request as a curl command. A secret that is sent unchanged is replaced by its reference.
fn curl(url: &Url, headers: &HeaderMap, data: &str, secret: Option<&SigningSecret>) -> String {
    let mut command = format!("curl -i {}", quoted(url.as_str()));
    for (name, value) in headers {
        _ = write!(command, " \\\n  -H {}", header_line(name, value, secret));
    }
    _ = write!(command, " \\\n  --data-binary {}", quoted(data));
    command
}

/// Returns the `--data-binary` argument: the file, or the body if it differs from the file.
fn curl_data(file: &EventFile, changed: Option<&[u8]>) -> String {
    match (changed, file) {
        (Some(body), _) => String::from_utf8_lossy(body).into_owned(),
        (None, EventFile::File(path)) => format!("@{}", path.display()),
        (None, EventFile::Stdin) => "@-".to_owned(),
    }
}

fn header_line(name: &HeaderName, value: &HeaderValue, secret: Option<&SigningSecret>) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    match secret.filter(|secret| text == secret.secret.expose()) {
        Some(SigningSecret { reference: Some(reference), .. }) => format!("\"{name}: {}\"", reference.in_shell()),
        _ => quoted(&format!("{name}: {text}")),
    }
}

/// Quotes a word for a shell. Invisible characters are escaped, so that the copied command sends the same bytes.
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
