//! What modules.toml says, and what is said about one that is wrong.
//!
//! Each `NAME.toml` beside this file is wrong in some way, and `NAME.txt` is word for word what a person reads about
//! it. `UPDATE_EXPECTED=1 cargo test --release --test config` writes them anew: read them before you commit them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use modhost_config::source::Window;
use modhost_config::{Environment, PlatformSettings, Scheme, Settings, UniquePlatform};
use modhost_core::event::interest::NamePattern;
use modhost_core::limits::{Limit, Resource, SetBy};

#[test]
fn mistakes_are_told_word_for_word() {
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
            panic!("nothing was found wrong with {}", path.display());
        };
        let told = format!("{errors}\n");
        assert!(!told.contains("sesame"), "{} lets a secret out:\n{told}", path.display());
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &told).unwrap();
        }
        let wanted = fs::read_to_string(&expected).unwrap_or_default();
        assert!(told == wanted, "of {} this is told:\n{told}\ninstead of:\n{wanted}", path.display());
    }
    assert!(count > 0, "no files in {}", folder.display());
}

/// The least that works, with one line more at the end of the module.
fn small(line: &str) -> Settings {
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

/// The first tenant's platform.
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
fn the_shipped_file_is_fine() {
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
fn the_shipped_file_knows_other_systems() {
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

/// Its commented lines say what the defaults are, and must not lie.
#[test]
fn the_shipped_file_shows_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../modules.toml");
    let text = fs::read_to_string(&path).unwrap();
    let is_setting =
        |line: &str| line.starts_with("# [") || line.split_once(" = ").is_some_and(|(key, _)| !key[2..].contains(' '));
    let skipped = [
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
        "# total_memory",
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
fn a_tenant_may_have_a_model_of_its_own() {
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
    let (least, references) = completion("");
    assert_eq!((least.model.as_str(), least.api_key, references), ("llama", None, 1));
    assert_eq!(least.timeout, Duration::from_secs(600));
    assert_eq!(least.idempotency_header.unwrap(), "idempotency-key");
    let (most, references) = completion("api_key = 'env:K'\ntimeout = '5s'\nidempotency_header = 'none'");
    assert_eq!((most.timeout, most.idempotency_header, references), (Duration::from_secs(5), None, 2));
    assert!(most.api_key.is_some());
}

#[test]
fn defaults_are_filled_in() {
    let settings = small("");
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
    assert_eq!((module.place.line, module.place.column), (12, 9));
}

#[test]
fn a_platform_is_of_a_kind() {
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
fn config_reaches_the_module_as_text() {
    let settings =
        small("config = { text = 'a \"b\"', number = 0x10, list = [1, 'x'], when = 2026-01-02, deep.er = true }");
    let config = &settings.modules[0].config;
    assert_eq!(config["text"], "a \"b\"");
    assert_eq!(config["number"], "16");
    assert_eq!(config["list"], r#"[1,"x"]"#);
    assert_eq!(config["when"], "2026-01-02");
    assert_eq!(config["deep"], r#"{"er":true}"#);
}

#[test]
fn an_age_of_zero_switches_the_check_off() {
    let text = "[[source]]\nname = 'a'\npath = '/a'\nscheme = 'unique'\nsecrets = ['env:S']\ntolerance = '0s'\n";
    let tenant = "[[tenant]]\nname = 'b'\nplatform = { kind = 'unique', api_base = 'env:B', app_id = 'env:A', api_key = 'env:K' }";
    let settings = Settings::parse(&format!("{text}{tenant}"), "modules.toml").unwrap();
    assert_eq!(
        settings.sources[0].webhook().unwrap().scheme,
        Scheme::Unique(Window { past: None, ..Window::default() })
    );
}

#[test]
fn a_module_may_be_granted_nothing_to_keep() {
    let keyvalue = |line: &str| small(line).modules[0].limits.delivery.amount(Resource::KeyValue);
    assert_eq!(keyvalue(""), 10 << 20);
    assert_eq!(keyvalue("limits = { keyvalue = 0 }"), 0);
    assert_eq!(keyvalue("limits = { keyvalue = '64KiB' }"), 64 << 10);
}

#[test]
fn ceilings_hold_where_a_module_says_nothing() {
    let text = "[server.ceilings]\nmemory = '64MiB'\ntables = 500_000\n\
        [[tenant]]\nname = 'b'\nplatform = { kind = 'none' }\nlimits = { memory = '1MiB', total_memory = '1GiB' }\n\
        [[module]]\nname = 'Silent'\ncomponent = 'm.wasm'\n\
        [[module]]\nname = 'Modest'\ncomponent = 'm.wasm'\nlimits = { memory = '32MiB' }\n";
    let settings = Settings::parse(text, "modules.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let limits = |module: usize| settings.modules[module].limits.delivery;
    assert_eq!(limits(0).get(Resource::Memory), Limit { amount: 64 << 20, set_by: SetBy::Server });
    assert_eq!(limits(0).get(Resource::Tables), Limit { amount: 200_000, set_by: SetBy::Module });
    assert_eq!(limits(1).get(Resource::Memory), Limit { amount: 32 << 20, set_by: SetBy::Module });
    let tenant = &settings.tenants[0].limits;
    assert_eq!((tenant.delivery.get(Resource::Memory), tenant.total_memory), (Some(1 << 20), Some(1 << 30)));
}

#[test]
fn ceilings_hold_for_what_a_module_keeps_sends_and_runs_at_once() {
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
    assert_eq!(limits(0).get(Resource::KeyValue), by(1 << 20, SetBy::Server));
    assert_eq!(limits(1).get(Resource::KeyValue), by(64 << 10, SetBy::Module));
    assert_eq!(limits(0).get(Resource::HttpRequest), by(0, SetBy::Server));
    assert_eq!(limits(0).get(Resource::HttpTimeout), by(5_000_000_000, SetBy::Server));
    assert_eq!(limits(1).get(Resource::HttpTimeout), by(1_000_000_000, SetBy::Module));
    assert_eq!(limits(1).get(Resource::HttpAnswer), by(2 << 20, SetBy::Server));
    let modest = limits(1).for_tenant(&settings.tenants[1].limits.delivery);
    assert_eq!(modest.get(Resource::KeyValue), by(0, SetBy::Tenant));
    assert_eq!(modest.get(Resource::HttpAnswer), by(1 << 10, SetBy::Tenant));
    let at_once = |module: usize, tenant: usize| {
        (settings.modules[module].limits.concurrency, settings.tenants[tenant].limits.concurrency)
    };
    assert_eq!((at_once(0, 0), at_once(1, 1)), ((8, 8), (2, 4)));
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
fn a_stack_has_a_size() {
    let stack = |lines: &str| {
        let tenant = "[[tenant]]\nname = 'b'\nplatform = { kind = 'none' }\n";
        let text = format!("[server]\n{lines}\n{tenant}");
        Settings::parse(&text, "modules.toml").unwrap_or_else(|errors| panic!("{errors}")).server.stack
    };
    assert_eq!((stack(""), stack("stack = '2MiB'"), stack("stack = '128KiB'")), (512 << 10, 2 << 20, 128 << 10));
}

#[test]
fn settings_are_equal_wherever_they_stand() {
    assert_eq!(small(""), small("\n# a comment\n"));
    assert_ne!(small(""), small("limits = { memory = '1MiB' }"));
    assert_ne!(small(""), small("config = { challenge = 'Hello' }"));
}

#[test]
fn what_may_be_written_down_resolves_to_itself() {
    let settings = small("");
    let platform = unique(&settings);
    let environment: Environment = [("K", "ukey_1")].into_iter().collect();
    assert_eq!(platform.app_id.resolve(&environment).unwrap().expose(), "app_1");
    assert_eq!(platform.api_key.resolve(&environment).unwrap().expose(), "ukey_1");
    let unset = settings.sources[0].webhook().unwrap().secrets[0].resolve(&environment).unwrap_err().to_string();
    assert!(unset.starts_with("some/where/modules.toml:6:20: the environment variable S is not set"), "{unset}");
}

#[test]
fn a_host_with_nothing_to_do_is_only_warned() {
    let tenant = "[[tenant]]\nname = 'b'\nplatform = { kind = 'unique', api_base = 'env:B', app_id = 'env:A', api_key = 'env:K' }";
    let settings = Settings::parse(tenant, "modules.toml").unwrap();
    let warnings = warnings(&settings);
    assert!(warnings[0].starts_with("modules.toml has no [[module]]"), "{warnings:?}");
    assert!(warnings[1].starts_with("modules.toml has no [[source]]"), "{warnings:?}");
}

/// An event socket of a tenant with one company, with further lines, and modules that want these events.
fn socket(lines: &str, modules: &[&str]) -> Settings {
    let mut text = format!(
        "[[source]]\nname = 'unique'\nkind = 'event-socket'\n{lines}\n[[tenant]]\nname = 'acme'\ncompanies = ['company_1']\n\
         platform = {{ kind = 'unique', api_base = 'env:B', app_id = 'env:A', api_key = 'env:K' }}\n"
    );
    for (place, wants) in modules.iter().enumerate() {
        text += &format!("[[module]]\nname = 'M{place}'\ncomponent = 'm.wasm'\n{wants}\n");
    }
    Settings::parse(&text, "modules.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn an_event_socket_brings_what_modules_want() {
    let subscriptions =
        |settings: &Settings| settings.sources[0].subscriptions(&settings.tenants[0], &settings.modules);
    let chosen = "unique.chat.external-module.chosen";
    let wanted = socket("", &["events = ['b.c', 'unique.z', 'unique.a', 'document.*']", "", "sources = ['unique']"]);
    assert_eq!(subscriptions(&wanted), ["unique.a", chosen, "unique.z"]);
    assert_eq!(warnings(&wanted), [""; 0]);
    let defaults = wanted.sources[0].event_socket().unwrap();
    assert_eq!((defaults.reconnect_after, defaults.silence), (Duration::from_secs(540), Duration::from_secs(120)));

    let named = socket("subscriptions = ['unique.b']\nreconnect_after = '1m'", &["events = ['unique.*']"]);
    assert_eq!(subscriptions(&named), ["unique.b"]);
    assert_eq!(named.sources[0].event_socket().unwrap().reconnect_after, Duration::from_secs(60));

    let nothing = socket("", &["events = ['document.processed']"]);
    assert_eq!(
        warnings(&nothing),
        ["modules.toml:1:1: the source \"unique\" has nothing to subscribe to, and isn't connected\n  \
          = help: no module of the tenant \"acme\" wants an event of Unique's"]
    );
    let twice = socket("\n[[source]]\nname = 'hook'\npath = '/a'\nscheme = 'unique'\nsecrets = ['env:S']", &[""]);
    assert_eq!(
        warnings(&twice),
        ["modules.toml:1:1: the sources \"hook\" and \"unique\" may bring the same events\n  \
          = help: an event that comes by both is answered twice: use one of them for each tenant"]
    );
}

#[test]
fn a_module_nobody_delivers_to_is_only_warned() {
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
            "modules.toml:10:1: no source brings events of the tenant \"globex\"\n  = help: add a [[source]] with this tenant",
            "modules.toml:13:1: nobody delivers to the module \"M\"\n  \
             = help: none of its tenants has a [[source]]: add one, or change its `tenants`",
        ]
    );
}

#[test]
fn a_company_that_nobody_signed_is_warned_of() {
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
          = help: whoever gets hold of a signed request can send it again for another company: name a part of the body if you can"
        ]
    );
    let hmac = "scheme = 'hmac'\nheader = 'X-Signature'\nevent = { company = 'header:X-Org' }";
    assert_eq!(warned(hmac).len(), 1);
    assert_eq!(warned(&format!("{hmac}\nsigned = '{{header:X-Org}}.{{body}}'")), [""; 0]);
    assert_eq!(warned("scheme = 'shopify'\nevent = { company = 'body:shop' }"), [""; 0]);
}
