//! Tests of reading modules.toml and of its error texts.
//!
//! Each `NAME.toml` next to this file has errors, and `NAME.txt` is the exact error text. `UPDATE_EXPECTED=1 cargo
//! test --release --test config` rewrites the texts. Read them before you commit them.

mod included;

use std::fs;
use std::path::Path;
use std::time::Duration;

use modhost_config::source::Window;
use modhost_config::{Environment, PlatformSettings, Scheme, Settings, UniquePlatform};
use modhost_core::event::event_filter::NamePattern;
use modhost_core::limits::{Limit, LimitSource, Resource};

#[test]
fn reports_expected_error_texts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        count += 1;
        let name = path.file_name().unwrap();
        let Err(errors) = Settings::parse(&fs::read_to_string(&path).unwrap(), name) else {
            panic!("{} has no errors", path.display());
        };
        let actual = format!("{errors}\n");
        assert!(!actual.contains("sesame"), "the errors of {} contain a secret:\n{actual}", path.display());
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &actual).unwrap();
        }
        let expected_text = fs::read_to_string(&expected).unwrap_or_default();
        assert!(
            actual == expected_text,
            "unexpected errors of {}:\n{actual}\nexpected:\n{expected_text}",
            path.display()
        );
    }
    assert!(count > 0, "no files in {}", folder.display());
}

/// Settings with the minimum that is valid, plus one line at the end of the module.
fn minimal(line: &str) -> Settings {
    let text = format!(
        r#"
        [[source]]
        name = "unique"
        path = "/webhook"
        scheme = "unique"
        secrets = ["env:S"]

        [[tenant]]
        name = "default"
        platform = {{ kind = "unique", api_base = "https://example.com", app_id = "app_1", api_key = "env:K" }}

        [[module]]
        name = "DemoApp"
        component = "demo.wasm"
        {line}
        "#
    );
    Settings::parse(&text, "some/where/modules.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

/// Returns the platform of the first tenant.
fn unique(settings: &Settings) -> &UniquePlatform {
    match &settings.tenants[0].platform {
        PlatformSettings::Unique(unique) => unique,
        other => panic!("{other:?}"),
    }
}

fn warnings(settings: &Settings) -> Vec<String> {
    settings.warnings().iter().map(ToString::to_string).collect()
}

#[test]
fn accepts_shipped_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../modules.toml");
    let settings = Settings::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    let modules: Vec<_> = settings.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(modules, ["Assistant", "DemoApp", "ChatLog"]);
    assert_eq!(settings.modules[1].config["greeting"], "Hello");
    assert_eq!(settings.modules[2].wants.events, [NamePattern::Exact("unique.chat.user-message.created".into())]);
    assert_eq!(unique(&settings).model.as_deref(), Some("AZURE_GPT_4o_2024_1120"));
    assert!(settings.modules.iter().all(|module| module.build.is_some()));
    assert_eq!(warnings(&settings), [""; 0]);
}

#[test]
fn accepts_commented_entries_of_shipped_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../modules.toml");
    let text = fs::read_to_string(&path).unwrap();
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(entry) if !entry.starts_with([' ', '#']) => entry.to_owned(),
        _ => line.to_owned(),
    };
    let text: Vec<_> = text.lines().map(uncommented).collect();
    let settings = Settings::parse(&text.join("\n"), &path).unwrap_or_else(|errors| panic!("{errors}"));
    let modules: Vec<_> = settings.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(modules, ["Assistant", "DemoApp", "ChatLog", "NexusRelay", "DocumentNotes"]);
    assert!(settings.modules.iter().all(|module| module.build.is_some()));
    assert_eq!(warnings(&settings), [""; 0]);
}

/// The commented lines of the file show the defaults, and must be right.
#[test]
fn shows_defaults_in_shipped_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../modules.toml");
    let text = fs::read_to_string(&path).unwrap();
    let is_setting =
        |line: &str| line.starts_with("# [") || line.split_once(" = ").is_some_and(|(key, _)| !key[2..].contains(' '));
    let skipped = [
        "# include",
        "# name = \"host-1\"",
        "# [storage",
        "# url",
        "# tenants = [\"acme\"]",
        "# companies",
        "# folder",
        "# tenant",
        "# sources",
        "# assistants",
        "# match",
        "# swap",
        "# events_per_second",
        "# [tenant.completion]",
        "# api_base",
        "# api_key",
        "# model",
        "# guest_memory",
        "# total_memory",
        "# total_journal",
        "# log_rate",
        "# memory = \"64MiB\"",
        "# memory = \"1GiB\"",
        "# timeout = \"10m\"",
        "# apology = \"…\"",
        "# trusted_proxies",
        "# proxy_header",
        "# max_connections_per_address",
        "# [server.tls]",
        "# certificate",
        "# key",
    ];
    let shown: Vec<_> = text
        .lines()
        .map(|line| {
            match line.starts_with("# ") && is_setting(line) && !skipped.iter().any(|it| line.starts_with(it)) {
                true => &line[2..],
                false => line,
            }
        })
        .collect();
    assert_ne!(shown.join("\n"), text.trim_end(), "no default is shown");
    let with_defaults = Settings::parse(&shown.join("\n"), &path).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(with_defaults, Settings::parse(&text, &path).unwrap());
}

#[test]
fn reads_tenant_completion() {
    let completion = |lines: &str| {
        let text = format!(
            r#"
            [[tenant]]
            name = "default"
            platform = {{ kind = "none" }}
            [tenant.completion]
            api_base = "http://localhost:11434/v1"
            model = "llama"
            {lines}
            "#
        );
        let settings = Settings::parse(&text, "modules.toml").unwrap_or_else(|errors| panic!("{errors}"));
        let references = settings.references().count();
        (settings.tenants.into_iter().next().unwrap().completion.unwrap(), references)
    };
    let (minimal, references) = completion("");
    assert_eq!((minimal.model.as_str(), minimal.api_key, references), ("llama", None, 1));
    assert_eq!(minimal.timeout, Duration::from_secs(600));
    assert_eq!(minimal.idempotency_header.unwrap(), "idempotency-key");
    let (full, references) = completion("api_key = 'env:K'\ntimeout = '5s'\nidempotency_header = 'none'");
    assert_eq!((full.timeout, full.idempotency_header, references), (Duration::from_secs(5), None, 2));
    assert!(full.api_key.is_some());
}

#[test]
fn fills_in_defaults() {
    let settings = minimal("");
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.server.admin_listen.to_string(), "127.0.0.1:8081");
    assert_eq!(settings.server.data_dir, Path::new("some/where/.modhost"));
    assert_eq!(settings.sources[0].webhook().unwrap().scheme, Scheme::Unique(Window::default()));
    assert_eq!(unique(&settings).timeout, Duration::from_secs(600));
    let module = &settings.modules[0];
    assert_eq!(module.component, Path::new("some/where/demo.wasm"));
    assert_eq!(module.wants.events, [NamePattern::Exact("unique.chat.external-module.chosen".into())]);
    let limits = module.limits.delivery;
    assert_eq!(limits.amount(Resource::Memory), 128 << 20);
    assert_eq!(limits.time(Resource::Cpu), Duration::from_secs(10));
    assert_eq!((module.location.line, module.location.column), (12, 9));
}

#[test]
fn reads_kinds_of_platforms() {
    let source = "[[source]]\nname = 'a'\npath = '/a'\nscheme = 'unique'\nsecrets = ['env:S']\n";
    let platform = |platform: &str| {
        let text = format!("{source}[[tenant]]\nname = 'b'\nplatform = {{ {platform} }}");
        let settings = Settings::parse(&text, "modules.toml").unwrap_or_else(|errors| panic!("{errors}"));
        settings.tenants.into_iter().next().unwrap().platform
    };
    assert_eq!(platform("kind = 'none'"), PlatformSettings::None);

    let environment: Environment = [("K", "nexus_1"), ("B", "http://127.0.0.1:1")].into_iter().collect();
    let PlatformSettings::Nexus(nexus) = platform("kind = 'nexus', api_key = 'env:K'") else { panic!() };
    let base = nexus.api_base.resolve_url(&environment, "").unwrap();
    assert_eq!(base.as_str(), "https://api.nexusgpt.io/");
    assert_eq!((nexus.timeout, nexus.idempotency_header), (Duration::from_secs(30), None));
    assert_eq!(nexus.api_key.resolve(&environment).unwrap().expose(), "nexus_1");

    let other = "kind = 'nexus', api_key = 'env:K', api_base = 'env:B', timeout = '5s', idempotency_header = 'X-Key'";
    let PlatformSettings::Nexus(nexus) = platform(other) else { panic!() };
    assert_eq!(nexus.api_base.resolve_url(&environment, "").unwrap().port(), Some(1));
    assert_eq!(nexus.timeout, Duration::from_secs(5));
    assert_eq!(nexus.idempotency_header.unwrap().as_str(), "x-key");
}

#[test]
fn converts_module_config_to_text() {
    let settings =
        minimal("config = { text = 'a \"b\"', number = 0x10, list = [1, 'x'], when = 2026-01-02, deep.er = true }");
    let config = &settings.modules[0].config;
    assert_eq!(config["text"], "a \"b\"");
    assert_eq!(config["number"], "16");
    assert_eq!(config["list"], r#"[1,"x"]"#);
    assert_eq!(config["when"], "2026-01-02");
    assert_eq!(config["deep"], r#"{"er":true}"#);
}

#[test]
fn disables_age_check_with_zero_tolerance() {
    let text = "[[source]]\nname = 'a'\npath = '/a'\nscheme = 'unique'\nsecrets = ['env:S']\ntolerance = '0s'\n";
    let tenant = "[[tenant]]\nname = 'b'\nplatform = { kind = 'unique', api_base = 'env:B', app_id = 'env:A', api_key = 'env:K' }";
    let settings = Settings::parse(&format!("{text}{tenant}"), "modules.toml").unwrap();
    assert_eq!(
        settings.sources[0].webhook().unwrap().scheme,
        Scheme::Unique(Window { past: None, ..Window::default() })
    );
}

#[test]
fn accepts_zero_keyvalue_limit() {
    let keyvalue = |line: &str| minimal(line).modules[0].limits.delivery.amount(Resource::KeyValue);
    assert_eq!(keyvalue(""), 10 << 20);
    assert_eq!(keyvalue("limits = { keyvalue = 0 }"), 0);
    assert_eq!(keyvalue("limits = { keyvalue = '64KiB' }"), 64 << 10);
}

#[test]
fn applies_ceilings_to_default_limits() {
    let text = "[server.ceilings]\nmemory = '64MiB'\ntables = 500_000\n\
        [[tenant]]\nname = 'b'\nplatform = { kind = 'none' }\nlimits = { memory = '1MiB', total_memory = '1GiB', total_journal = '2GiB' }\n\
        [[module]]\nname = 'Silent'\ncomponent = 'm.wasm'\n\
        [[module]]\nname = 'Modest'\ncomponent = 'm.wasm'\nlimits = { memory = '32MiB' }\n";
    let settings = Settings::parse(text, "modules.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let limits = |module: usize| settings.modules[module].limits.delivery;
    assert_eq!(limits(0).get(Resource::Memory), Limit { amount: 64 << 20, set_by: LimitSource::Server });
    assert_eq!(limits(0).get(Resource::Tables), Limit { amount: 200_000, set_by: LimitSource::Module });
    assert_eq!(limits(1).get(Resource::Memory), Limit { amount: 32 << 20, set_by: LimitSource::Module });
    let tenant = &settings.tenants[0].limits;
    assert_eq!((tenant.delivery.get(Resource::Memory), tenant.total_memory), (Some(1 << 20), Some(1 << 30)));
    assert_eq!(tenant.total_journal, Some(2 << 30));
}

#[test]
fn applies_ceilings_to_keyvalue_http_and_concurrency() {
    let text = "[server.ceilings]\nconcurrency = 8\nkeyvalue = '1MiB'\nhttp = { request = 0, answer = '2MiB', timeout = '5s' }\n\
        [[tenant]]\nname = 'silent'\nplatform = { kind = 'none' }\n\
        [[tenant]]\nname = 'modest'\nplatform = { kind = 'none' }\n\
        limits = { concurrency = 4, keyvalue = 0, http = { answer = '1KiB' } }\n\
        [[module]]\nname = 'Silent'\ncomponent = 'm.wasm'\n\
        [[module]]\nname = 'Modest'\ncomponent = 'm.wasm'\n\
        limits = { concurrency = 2, keyvalue = '64KiB', http = { timeout = '1s' } }\n";
    let settings = Settings::parse(text, "modules.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let limits = |module: usize| settings.modules[module].limits.delivery;
    let by = |amount, set_by| Limit { amount, set_by };
    assert_eq!(limits(0).get(Resource::KeyValue), by(1 << 20, LimitSource::Server));
    assert_eq!(limits(1).get(Resource::KeyValue), by(64 << 10, LimitSource::Module));
    assert_eq!(limits(0).get(Resource::HttpRequest), by(0, LimitSource::Server));
    assert_eq!(limits(0).get(Resource::HttpTimeout), by(5_000_000_000, LimitSource::Server));
    assert_eq!(limits(1).get(Resource::HttpTimeout), by(1_000_000_000, LimitSource::Module));
    assert_eq!(limits(1).get(Resource::HttpAnswer), by(2 << 20, LimitSource::Server));
    let modest = limits(1).for_tenant(&settings.tenants[1].limits.delivery);
    assert_eq!(modest.get(Resource::KeyValue), by(0, LimitSource::Tenant));
    assert_eq!(modest.get(Resource::HttpAnswer), by(1 << 10, LimitSource::Tenant));
    let concurrency = |module: usize, tenant: usize| {
        (settings.modules[module].limits.concurrency, settings.tenants[tenant].limits.concurrency)
    };
    assert_eq!((concurrency(0, 0), concurrency(1, 1)), ((8, 8), (2, 4)));
    assert_eq!(
        settings.server.ceilings.below_defaults(),
        [
            "`keyvalue` is 1.0 MiB instead of 10.0 MiB",
            "`http.request` is 0 B instead of 1.0 MiB",
            "`http.answer` is 2.0 MiB instead of 4.0 MiB",
            "`http.timeout` is 5s instead of 30s",
            "`concurrency` of a module is 8 instead of 16",
            "`concurrency` of a tenant is 8 instead of 32",
        ]
    );
}

#[test]
fn reads_stack_size() {
    let stack = |lines: &str| {
        let tenant = "[[tenant]]\nname = 'b'\nplatform = { kind = 'none' }\n";
        let text = format!("[server]\n{lines}\n{tenant}");
        Settings::parse(&text, "modules.toml").unwrap_or_else(|errors| panic!("{errors}")).server.stack
    };
    assert_eq!((stack(""), stack("stack = '2MiB'"), stack("stack = '128KiB'")), (512 << 10, 2 << 20, 128 << 10));
}

#[test]
fn compares_settings_regardless_of_lines() {
    assert_eq!(minimal(""), minimal("\n# a comment\n"));
    assert_ne!(minimal(""), minimal("limits = { memory = '1MiB' }"));
    assert_ne!(minimal(""), minimal("config = { challenge = 'Hello' }"));
}

#[test]
fn resolves_literal_to_itself() {
    let settings = minimal("");
    let platform = unique(&settings);
    let environment: Environment = [("K", "ukey_1")].into_iter().collect();
    assert_eq!(platform.app_id.resolve(&environment).unwrap().expose(), "app_1");
    assert_eq!(platform.api_key.resolve(&environment).unwrap().expose(), "ukey_1");
    let unset = settings.sources[0].webhook().unwrap().secrets[0].resolve(&environment).unwrap_err().to_string();
    assert!(unset.starts_with("some/where/modules.toml:6:20: the environment variable S is not set"), "{unset}");
}

#[test]
fn warns_without_modules_and_sources() {
    let tenant = "[[tenant]]\nname = 'b'\nplatform = { kind = 'unique', api_base = 'env:B', app_id = 'env:A', api_key = 'env:K' }";
    let settings = Settings::parse(tenant, "modules.toml").unwrap();
    let warnings = warnings(&settings);
    assert!(warnings[0].starts_with("modules.toml has no [[module]]"), "{warnings:?}");
    assert!(warnings[1].starts_with("modules.toml has no [[source]]"), "{warnings:?}");
}

/// Settings with an event socket of a tenant with one company, with further lines, and with modules that handle these
/// events.
fn socket(lines: &str, modules: &[&str]) -> Settings {
    let mut text = format!(
        "[[source]]\nname = 'unique'\nkind = 'event-socket'\n{lines}\n[[tenant]]\nname = 'acme'\ncompanies = ['company_1']\n\
         platform = {{ kind = 'unique', api_base = 'env:B', app_id = 'env:A', api_key = 'env:K' }}\n"
    );
    for (location, wants) in modules.iter().enumerate() {
        text += &format!("[[module]]\nname = 'M{location}'\ncomponent = 'm.wasm'\n{wants}\n");
    }
    Settings::parse(&text, "modules.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn subscribes_to_events_of_modules() {
    let subscriptions =
        |settings: &Settings| settings.sources[0].subscriptions(&settings.tenants[0], &settings.modules);
    let chosen = "unique.chat.external-module.chosen";
    let expected_text =
        socket("", &["events = ['b.c', 'unique.z', 'unique.a', 'document.*']", "", "sources = ['unique']"]);
    assert_eq!(subscriptions(&expected_text), ["unique.a", chosen, "unique.z"]);
    assert_eq!(warnings(&expected_text), [""; 0]);
    let defaults = expected_text.sources[0].event_socket().unwrap();
    assert_eq!((defaults.reconnect_after, defaults.silence), (Duration::from_secs(540), Duration::from_secs(120)));

    let named = socket("subscriptions = ['unique.b']\nreconnect_after = '1m'", &["events = ['unique.*']"]);
    assert_eq!(subscriptions(&named), ["unique.b"]);
    assert_eq!(named.sources[0].event_socket().unwrap().reconnect_after, Duration::from_secs(60));

    let nothing = socket("", &["events = ['document.processed']"]);
    assert_eq!(
        warnings(&nothing),
        ["modules.toml:1:1: the source \"unique\" has no subscriptions, so the host does not connect it\n  \
          = help: no module of the tenant \"acme\" handles an event of Unique AI"]
    );
    let twice = socket("\n[[source]]\nname = 'hook'\npath = '/a'\nscheme = 'unique'\nsecrets = ['env:S']", &[""]);
    assert_eq!(
        warnings(&twice),
        ["modules.toml:1:1: the sources \"hook\" and \"unique\" may deliver the same events\n  \
          = help: an event that arrives through both is answered twice: use only one of them per tenant"]
    );
}

#[test]
fn warns_about_module_without_source() {
    let platform = "platform = { kind = 'unique', api_base = 'env:B', app_id = 'env:A', api_key = 'env:K' }";
    let text = format!(
        "[[source]]\nname = 'a'\npath = '/a'\nscheme = 'unique'\nsecrets = ['env:S']\ntenant = 'acme'\n\
         [[tenant]]\nname = 'acme'\n{platform}\n[[tenant]]\nname = 'globex'\n{platform}\n\
         [[module]]\nname = 'M'\ncomponent = 'm.wasm'\ntenants = ['globex']\n"
    );
    let settings = Settings::parse(&text, "modules.toml").unwrap();
    assert_eq!(
        warnings(&settings),
        [
            "modules.toml:10:1: no source delivers events of the tenant \"globex\"\n  = help: add a [[source]] with this tenant",
            "modules.toml:13:1: no source delivers events to the module \"M\"\n  \
             = help: none of its tenants has a [[source]]: add one, or change its `tenants`",
        ]
    );
}

#[test]
fn warns_about_unsigned_company() {
    let warned = |lines: &str| {
        let text = format!(
            "[[source]]\nname = 'in'\npath = '/in'\nsecrets = ['env:S']\n{lines}\n[[tenant]]\nname = 'b'\n\
             platform = {{ kind = 'unique', api_base = 'env:B', app_id = 'env:A', api_key = 'env:K' }}\n\
             [[module]]\nname = 'M'\ncomponent = 'm.wasm'"
        );
        warnings(&Settings::parse(&text, "modules.toml").unwrap_or_else(|errors| panic!("{errors}")))
    };
    assert_eq!(
        warned("scheme = 'shopify'\nevent = { company = 'header:X-Shopify-Shop-Domain' }"),
        [
            "modules.toml:1:1: the source \"in\" reads the company from the header x-shopify-shop-domain, which is not signed\n  \
          = help: anyone who captures a signed request can replay it for another company: read the company from the body if possible"
        ]
    );
    let hmac = "scheme = 'hmac'\nheader = 'X-Signature'\nevent = { company = 'header:X-Org' }";
    assert_eq!(warned(hmac).len(), 1);
    assert_eq!(warned(&format!("{hmac}\nsigned = '{{header:X-Org}}.{{body}}'")), [""; 0]);
    assert_eq!(warned("scheme = 'shopify'\nevent = { company = 'body:shop' }"), [""; 0]);
}

#[test]
fn reads_storage() {
    let storage = |lines: &str| {
        let text = format!("{lines}\n[[tenant]]\nname = 'acme'\nplatform = {{ kind = 'none' }}\n");
        Settings::parse(&text, "modules.toml").unwrap_or_else(|errors| panic!("{errors}"))
    };
    let none = storage("");
    assert_eq!((none.server.storage.url, none.server.storage.shards.len()), (None, 0));
    let environment: Environment =
        [("DATABASE_URL", "postgresql://u:p@db/main"), ("EU_URL", "postgresql://u:p@eu/main")].into_iter().collect();
    let settings = storage(
        "[server]\nname = 'host-1'\n[storage]\nurl = 'env:DATABASE_URL'\n\
         [storage.shards.eu]\nurl = 'env:EU_URL'\ntenants = ['acme', 'globex']",
    );
    let of = |reference: &modhost_config::Reference| reference.resolve(&environment).unwrap().expose().to_owned();
    assert_eq!(settings.server.name.as_deref(), Some("host-1"));
    assert_eq!(settings.server.storage.url.as_ref().map(of).unwrap(), "postgresql://u:p@db/main");
    let [eu] = settings.server.storage.shards.as_slice() else { panic!() };
    assert_eq!((eu.name.as_str(), of(&eu.url).as_str()), ("eu", "postgresql://u:p@eu/main"));
    assert_eq!(eu.tenants, ["acme".into(), "globex".into()]);
    assert_eq!(settings.references().count(), 2, "a reload reads both again");
    for literal in ["postgresql://%2Frun%2Fpostgresql/modhost", "postgres://modhost@db-1:5432,db-2:5433/modhost"] {
        let settings = storage(&format!("[storage]\nurl = '{literal}'"));
        assert!(settings.server.storage.url.is_some(), "{literal} has no password");
    }
}
