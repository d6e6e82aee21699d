//! Reads each table of the file into its part of the settings.
//!
//! A value that cannot be read is reported and replaced by its default, so that reading continues and finds further
//! errors. Settings with such defaults are never used.

mod event_filter;
mod event_socket;
mod http;
mod limits;
mod platform;
mod source;
mod storage;
mod swap;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;

use super::document::Document;
use super::include::Include;
use super::platform::PlatformSettings;
use super::settings::{Ceilings, CompilerSettings, Module, Retention, Server, StorageSettings, Tenant};
use super::source::Source;
use super::table::{Table, Value, to_json};
use super::{WrittenKeys, listener, reference, suggest};
use modhost_core::backoff::{Backoff, RetryPolicy};
use modhost_core::browser_guard::HostName;
use modhost_core::event::Name;
use modhost_sandbox::SandboxMode;

/// The minimum memory of a compiler process, in bytes: its own, and some for a small component.
const MIN_COMPILER_MEMORY: u64 = 64 << 20;

/// The parts of the settings before they are checked against each other.
pub(super) struct Parts {
    pub server: Server,
    pub include: Vec<Include>,
    /// Whether there is an `include`, whether or not it can be read.
    pub has_include: bool,
    pub sources: Vec<Located<Source>>,
    pub tenants: Vec<Located<Tenant>>,
    pub modules: Vec<Located<Module>>,
}

/// A part of the settings, and the spans of those of its values that are checked against other parts.
pub(super) struct Located<T> {
    pub part: T,
    /// The name.
    pub name: Range<usize>,
    /// The path of a webhook, or the company of an event socket.
    pub path: Range<usize>,
    /// The sources that a module names, in order.
    pub sources: Vec<Range<usize>>,
    /// The tenants that a source or module names, in order.
    pub tenants: Vec<Range<usize>>,
    /// The companies of a tenant, in order.
    pub companies: Vec<Range<usize>>,
}

/// Reads the whole file.
pub(super) fn read(document: &Document<'_>, root: &Spanned<DeTable<'_>>) -> Parts {
    let root = Table::new(document, "the file", root.span(), root.get_ref());
    let server = root.get("server").and_then(|value| value.table("[server]")).map(server);
    let storage = root.get("storage").and_then(|value| value.table("[storage]")).map(storage::storage);
    let tables = |key, title| root.get(key).map(|value| value.tables(title)).unwrap_or_default();
    let mut server = server.unwrap_or_else(|| default_server(document));
    if let Some((storage, written)) = storage {
        server.storage = storage;
        server.written.extend("storage", written);
    }
    let ceilings = server.ceilings.clone();
    let parts = Parts {
        server,
        include: items(root.get("include")).iter().filter_map(Include::read).collect(),
        has_include: root.get("include").is_some(),
        sources: tables("source", "[[source]]").into_iter().map(source::source).collect(),
        tenants: tables("tenant", "[[tenant]]").into_iter().map(|table| tenant(table, &ceilings)).collect(),
        modules: tables("module", "[[module]]").into_iter().map(|table| module(table, &ceilings)).collect(),
    };
    root.finish();
    parts
}

/// Reads a file that modules.toml includes. `server` has the settings of the host, `top` is the path of modules.toml.
pub(super) fn read_included(
    document: &Document<'_>,
    root: &Spanned<DeTable<'_>>,
    server: &Server,
    top: &Path,
) -> Parts {
    let root = Table::new(document, "the file", root.span(), root.get_ref());
    root.reject_key(
        "server",
        "[server] is not allowed in an included file: it is for the whole host",
        format!("move it to {}", top.display()),
    );
    root.reject_key(
        "storage",
        "[storage] is not allowed in an included file: it is for the whole host",
        format!("move it to {}", top.display()),
    );
    root.reject_key(
        "include",
        "`include` is not allowed in an included file",
        format!("name the files in {}", top.display()),
    );
    let tables = |key, title| root.get(key).map(|value| value.tables(title)).unwrap_or_default();
    let ceilings = &server.ceilings;
    let tenants = match root.get("tenant") {
        // There is only one, so single brackets are as clear.
        Some(value) if value.is_table() => value.table("[tenant]").into_iter().collect(),
        Some(value) => value.tables("[[tenant]]"),
        None => Vec::new(),
    };
    let parts = Parts {
        server: Server {
            written: WrittenKeys::default(),
            tls: None,
            admin_token: None,
            storage: StorageSettings::default(),
            ..server.clone()
        },
        include: Vec::new(),
        has_include: false,
        sources: tables("source", "[[source]]").into_iter().map(source::source).collect(),
        tenants: tenants.into_iter().map(|table| tenant(table, ceilings)).collect(),
        modules: tables("module", "[[module]]").into_iter().map(|table| module(table, ceilings)).collect(),
    };
    root.finish();
    parts
}

fn default_server(document: &Document<'_>) -> Server {
    let server = Server::default();
    Server { data_dir: resolve_path(document, &server.data_dir), ..server }
}

fn server(table: Table<'_>) -> Server {
    let default = default_server(table.document);
    let listen = table.get("listen");
    let admin_listen = table.get("admin_listen");
    let admin_token = table.get("admin_token").and_then(|value| reference::read_secret(&value));
    let server = Server {
        listen: listen.as_ref().and_then(address).unwrap_or(default.listen),
        admin_listen: admin_listen.as_ref().and_then(address).unwrap_or(default.admin_listen),
        admin_token,
        admin_hosts: items(table.get("admin_hosts")).iter().filter_map(host_name).collect(),
        data_dir: table.get("data_dir").and_then(|value| path(&value)).unwrap_or(default.data_dir),
        max_body: table.get("max_body").and_then(|value| value.size()).unwrap_or(default.max_body),
        max_deliveries: table.get("max_deliveries").and_then(|value| value.count()).unwrap_or(default.max_deliveries),
        concurrency: table.get("concurrency").and_then(|value| value.count()).unwrap_or(default.concurrency),
        guest_memory: table.get("guest_memory").and_then(|value| value.size()).unwrap_or(default.guest_memory),
        stack: table.get("stack").and_then(|value| limits::stack(&value)).unwrap_or(default.stack),
        apology: text(table.get("apology")).unwrap_or(default.apology),
        retry_notice: text(table.get("retry_notice")).unwrap_or(default.retry_notice),
        retention: table
            .get("retention")
            .and_then(|value| value.table("[server.retention]"))
            .map(retention)
            .unwrap_or(default.retention),
        compiler: table
            .get("compiler")
            .and_then(|value| value.table("[server.compiler]"))
            .map(compiler)
            .unwrap_or(default.compiler),
        sandbox: table
            .get("sandbox")
            .and_then(|value| one_of(&value, &SandboxMode::CHOICES))
            .unwrap_or(default.sandbox),
        ceilings: table
            .get("ceilings")
            .and_then(|value| value.table("[server.ceilings]"))
            .map(limits::ceilings)
            .unwrap_or_default(),
        limits: table
            .get("limits")
            .and_then(|value| value.table("[server.limits]"))
            .map(listener::limits)
            .unwrap_or(default.limits),
        proxies: listener::proxies(&table),
        tls: table.get("tls").and_then(|value| value.table("[server.tls]")).and_then(listener::tls),
        removal_grace: table
            .get("removal_grace")
            .and_then(|value| value.duration_or_zero())
            .unwrap_or(default.removal_grace),
        max_tenant_labels: table
            .get("max_tenant_labels")
            .and_then(|value| value.count())
            .unwrap_or(default.max_tenant_labels),
        name: table.get("name").and_then(|value| storage::host_name(&value)),
        storage: StorageSettings::default(),
        written: table.written(),
    };
    let is_open = server.admin_token.is_none() && !server.admin_listen.ip().is_loopback();
    if let Some(value) = admin_listen.as_ref().filter(|_| is_open) {
        value.reject(
            "`admin_listen` is reachable from other machines without authentication",
            "add admin_token = \"env:MODHOST_ADMIN_TOKEN\", or listen on 127.0.0.1",
        );
    }
    if let Some(value) =
        admin_listen.or(listen).filter(|_| server.listen == server.admin_listen && server.listen.port() != 0)
    {
        let message = format!("`listen` and `admin_listen` are both {}", server.listen);
        value.reject(message, "give one of them another port: events and the admin API use separate listeners");
    }
    table.finish();
    server
}

fn tenant(table: Table<'_>, ceilings: &Ceilings) -> Located<Tenant> {
    let name = table.require("name", "\"default\"");
    let companies = items(table.get("companies"));
    let platform_table =
        table.require("platform", "{ kind = \"unique\", … }").and_then(|value| value.table("[tenant.platform]"));
    let completion = table.get("completion").and_then(|value| value.table("[tenant.completion]"));
    let limits = table.get("limits").and_then(|value| value.table("[tenant.limits]"));
    let tenant = Located {
        name: span_of(&name, &table),
        path: table.span(),
        sources: Vec::new(),
        tenants: Vec::new(),
        companies: companies.iter().map(Value::span).collect(),
        part: Tenant {
            name: name_of(name),
            companies: companies.iter().map(|value| value.text().unwrap_or_default().to_owned()).collect(),
            platform: platform_table.map_or(PlatformSettings::None, platform::platform),
            completion: completion.map(platform::completion),
            limits: limits::tenant(limits, ceilings),
            location: table.document.location(table.span().start),
            written: table.written(),
        },
    };
    table.finish();
    tenant
}

fn retention(table: Table<'_>) -> Retention {
    let default = Retention::default();
    let time = |key, default| table.get(key).and_then(|value| value.duration()).unwrap_or(default);
    let retention = Retention {
        completed: time("completed", default.completed),
        dead: time("dead", default.dead),
        ids: time("ids", default.ids),
        max_size: table.get("max_size").and_then(|value| value.size()).unwrap_or(default.max_size),
        versions: table.get("versions").and_then(|value| value.count()).unwrap_or(default.versions),
        versions_size: table.get("versions_size").and_then(|value| value.size()).unwrap_or(default.versions_size),
    };
    table.finish();
    retention
}

fn compiler(table: Table<'_>) -> CompilerSettings {
    let default = CompilerSettings::default();
    let compiler = CompilerSettings {
        timeout: table.get("timeout").and_then(|value| value.duration()).unwrap_or(default.timeout),
        memory: table.get("memory").and_then(|value| compiler_memory(&value)).unwrap_or(default.memory),
        processes: table.get("processes").and_then(|value| value.count()).unwrap_or(default.processes),
    };
    table.finish();
    compiler
}

fn compiler_memory(value: &Value<'_>) -> Option<u64> {
    let bytes = value.size()?;
    if bytes >= MIN_COMPILER_MEMORY {
        return Some(bytes);
    }
    value.reject("a compiler needs at least 64MiB of memory", r#"use a larger size, for example "2GiB""#);
    None
}

fn retry(table: Table<'_>) -> RetryPolicy {
    let default = RetryPolicy::DELIVERY;
    let attempts = table.get("attempts").and_then(|value| value.count()).unwrap_or(default.attempts);
    let first = table.get("first").and_then(|value| value.duration()).unwrap_or(default.backoff.first);
    let max = table.get("max").and_then(|value| value.duration()).unwrap_or(default.backoff.max);
    table.finish();
    RetryPolicy { attempts, backoff: Backoff::new(first, max) }
}

fn module(table: Table<'_>, ceilings: &Ceilings) -> Located<Module> {
    let name = table.require("name", "\"DemoApp\"");
    let component = table.require("component", "\"demo_app.wasm\"");
    let folder = table.get("folder").as_ref().and_then(path);
    let build = text(table.get("build"));
    let watch = match table.get("watch") {
        Some(watch) => items(Some(watch)).iter().filter_map(path).collect(),
        None => folder.iter().cloned().collect(),
    };
    let filter = event_filter::event_filter(&table);
    let config = table.get("config").and_then(|value| value.table("[module.config]"));
    let limits = table.get("limits").and_then(|value| value.table("[module.limits]"));
    let retry_table = table.get("retry").and_then(|value| value.table("[module.retry]"));
    let swap_table = table.get("swap").and_then(|value| value.table("[module.swap]"));
    let ordering = table.get("ordering");
    let module = Located {
        name: span_of(&name, &table),
        path: table.span(),
        sources: filter.sources,
        tenants: filter.tenants,
        companies: Vec::new(),
        part: Module {
            name: name_of(name),
            owner: None,
            component: component.as_ref().and_then(path).unwrap_or_default(),
            component_location: table.document.location(span_of(&component, &table).start),
            folder,
            build,
            watch,
            wants: filter.wants,
            config: config.map(module_config).unwrap_or_default(),
            http: http::entries(table.get("http")),
            limits: limits::module(limits, ceilings),
            retry: retry_table.map_or(RetryPolicy::DELIVERY, retry),
            swap: swap_table.map(swap::swap).unwrap_or_default(),
            ordered_by_chat: ordering
                .and_then(|value| one_of(&value, &[("none", false), ("chat", true)]))
                .unwrap_or(false),
            resume: table.get("resume").and_then(|value| value.flag()).unwrap_or(true),
            apology: text(table.get("apology")),
            location: table.document.location(table.span().start),
            written: table.written(),
        },
    };
    table.finish();
    module
}

fn module_config(table: Table<'_>) -> BTreeMap<String, String> {
    let mut config = BTreeMap::new();
    for (key, value) in table.entries() {
        match to_json(value.get_ref()) {
            Ok(serde_json::Value::String(text)) => config.insert(key.to_owned(), text),
            Ok(json) => config.insert(key.to_owned(), json.to_string()),
            Err(reason) => {
                let message = format!("`{key}` cannot be passed to the module: {reason}");
                table.document.report(value.span(), message, "write it as a string, in quotes");
                None
            }
        };
    }
    config
}

/// Returns the name of a source, tenant or module. An empty name stands in for one that cannot be read.
fn name_of(value: Option<Value<'_>>) -> Name {
    let name = value.and_then(|value| {
        let name = value.text()?;
        if name.trim() != name || name.chars().any(char::is_control) {
            value.reject(
                format!("`{}` has leading or trailing spaces, or control characters", value.key),
                "remove them",
            );
            return None;
        }
        Some(name)
    });
    Name::from(name.unwrap_or_default())
}

/// Returns the items of an optional array.
fn items(value: Option<Value<'_>>) -> Vec<Value<'_>> {
    value.and_then(|value| value.list()).unwrap_or_default()
}

fn text(value: Option<Value<'_>>) -> Option<String> {
    value.and_then(|value| value.text().map(str::to_owned))
}

fn path(value: &Value<'_>) -> Option<PathBuf> {
    value.text().map(|path| resolve_path(value.document, Path::new(path)))
}

/// Resolves a path against the folder of the file.
pub(super) fn resolve_path(document: &Document<'_>, path: &Path) -> PathBuf {
    document.file().parent().unwrap_or(Path::new("")).join(path)
}

fn span_of(value: &Option<Value<'_>>, table: &Table<'_>) -> Range<usize> {
    value.as_ref().map_or_else(|| table.span(), Value::span)
}

fn address(value: &Value<'_>) -> Option<SocketAddr> {
    let advice = r#"use an IP address: "127.0.0.1:8080" for this machine only, "0.0.0.0:8080" for all interfaces"#;
    value.parse_text(|text| text.parse().ok(), "an address and a port", advice)
}

/// Reads the name or the address of a host.
fn host_name(value: &Value<'_>) -> Option<HostName> {
    let advice = r#"write names or addresses without scheme, port and path: ["admin.example.com"]"#;
    value.parse_text(|text| text.parse().ok(), "an array of host names", advice)
}

/// Reads one of several keywords.
pub(super) fn one_of<T: Clone>(value: &Value<'_>, choices: &[(&'static str, T)]) -> Option<T> {
    let text = value.text()?;
    if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
        return Some(choice.clone());
    }
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    value.reject(format!("invalid value \"{text}\" for `{}`", value.key), suggest::advice(text, &words));
    None
}
