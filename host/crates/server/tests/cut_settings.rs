//! Tests of truncated settings files. While a file is written slowly, the host reads a prefix of it, which is often
//! valid.
//!
//! Each file here is truncated at every byte. Each valid prefix is merged with the complete file, with simulated time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modhost_config::{ActiveSettings, Environment, LoadedSettings, Settings, SettingsPart};
use modhost_platform::TenantHttpClients;
use modhost_server::resolved_config::ResolvedConfig;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

const GRACE: Duration = Duration::from_secs(30);

/// A file with every kind of table that a truncation can end in.
const RICH: &str = r#"
[server]
concurrency = 128
max_body = "2MiB"

[server.retention]
completed = "3d"

[[source]]
name = "unique"
path = "/webhook"
scheme = "unique"
secrets = [
    "env:OLD",
    "env:NEW",
]
tolerance = "60s"

[[source]]
name = "github"
path = "/github"
scheme = "github"
secrets = ["env:NEW"]
tenant = "first"

[[source]]
name = "shop"
path = "/shop"
scheme = "hmac"
header = "x-signature"
signed = "{body}"
secrets = ["env:NEW"]

[source.event]
id = "body:order.id"
name = "text:order"
company = "body:shop"

[[tenant]]
name = "first"
companies = ["c1", "c2"]

[tenant.platform]
kind = "unique"
api_base = "https://one.example.com/public/chat"
app_id = "app_1"
api_key = "env:KEY"
model = "large"

[tenant.completion]
api_base = "https://models.example.com/v1"
model = "small"

[tenant.limits]
concurrency = 12
events_per_second = 250

[[tenant]]
name = "second"
companies = ["c3"]
platform = { kind = "none" }

[[tenant]]
name = "third"
platform = { kind = "none" }

[tenant.limits]
max_deliveries = 1000

[[module]]
name = "Orders"
component = "orders.wasm"
events = ["order", "unique.*"]
sources = ["shop", "unique"]
tenants = ["second", "first"]
ordering = "chat"
resume = false

[module.match]
state = ["open", "paid"]
"lines.0.price" = 1250

[module.config]
challenge = "Hello"
retries = 12

[module.limits]
memory = "256MiB"
calls = 1200

[module.limits.http]
timeout = "90s"

[[module.http]]
host = "api.example.com"
methods = ["GET"]

[[module.http]]
host = "crm.example.com"
headers = { authorization = "Bearer env:KEY" }

[module.retry]
attempts = 12
first = "5s"

[module.swap]
replay = 20
canary = "25%"

[[module]]
name = "Last"
component = "last.wasm"
events = ["push"]
assistants = ["assistant_1"]
apology = "Later."

[module.retry]
attempts = 12
"#;

fn environment() -> Environment {
    let names = [
        ("OLD", "usig_old"),
        ("NEW", "usig_new"),
        ("KEY", "ukey"),
        ("UNIQUE_ENDPOINT_SECRET", "usig_1"),
        ("UNIQUE_API_BASE", "https://example.com/public/chat"),
        ("UNIQUE_APP_ID", "app_1"),
        ("UNIQUE_API_KEY", "ukey_1"),
        ("NEXUS_SECRET", "nexus_1"),
        ("NEXUS_API_KEY", "nkey_1"),
        ("ARCHIVUS_SECRET", "archivus_1"),
    ];
    names.into_iter().collect()
}

fn loaded(settings: Settings) -> LoadedSettings {
    LoadedSettings { settings, environment: Arc::new(environment()), is_complete: false }
}

fn parse(text: &str) -> Result<Settings, String> {
    Settings::parse(text, "modules.toml").map_err(|errors| errors.to_string())
}

fn active(text: &str) -> ActiveSettings {
    ActiveSettings::new(loaded(parse(text).unwrap_or_else(|errors| panic!("{errors}"))))
}

fn shipped() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../modules.toml")).unwrap()
}

/// The shipped file with its commented-out entries for other systems.
fn shipped_with_all() -> String {
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(entry) if !entry.starts_with([' ', '#']) => entry.to_owned(),
        _ => line.to_owned(),
    };
    shipped().lines().map(uncommented).collect::<Vec<_>>().join("\n") + "\n"
}

/// The rich file with the server's settings at the end.
fn server_last() -> String {
    let (server, rest) = RICH.split_at(RICH.find("[[source]]").unwrap());
    format!("{rest}\n{server}\n[server.limits]\nmax_connections = 100\nmax_headers = 200\n")
}

/// Returns each proper prefix of a text that is valid, with its length.
fn cuts(text: &str) -> impl Iterator<Item = (usize, Settings)> {
    (1..text.len()).filter(|at| text.is_char_boundary(*at)).filter_map(|at| Some((at, parse(&text[..at]).ok()?)))
}

/// Asserts that every part is present and unchanged. `at` is the length of the prefix.
fn assert_unchanged(was: &ActiveSettings, is: &ActiveSettings, at: usize) {
    let (was, is) = (was.settings(), is.settings());
    assert_eq!(was.server, is.server, "truncated at {at}");
    for source in &was.sources {
        let kept = is.sources.iter().find(|it| it.name == source.name).unwrap_or_else(|| panic!("truncated at {at}"));
        assert_eq!(source.kind, kept.kind, "truncated at {at}");
    }
    for tenant in &was.tenants {
        assert_eq!(is.tenants.iter().find(|it| it.name == tenant.name), Some(tenant), "truncated at {at}");
    }
    for module in &was.modules {
        assert_eq!(is.modules.iter().find(|it| it.name == module.name), Some(module), "truncated at {at}");
    }
}

#[test]
fn retains_everything_wherever_a_file_is_truncated() {
    let clients = TenantHttpClients::default();
    for text in [shipped(), shipped_with_all(), RICH.to_owned(), server_last()] {
        let (whole, now) = (active(&text), Instant::now());
        let config = ResolvedConfig::of(&whole, &clients).unwrap_or_else(|errors| panic!("{errors}"));
        let mut count = 0;
        for (at, cut) in cuts(&text) {
            count += 1;
            let merged = whole.merge(loaded(cut.clone()), now);
            assert_unchanged(&whole, &merged, at);
            // The tenants and routes of events are unchanged.
            let cut_config =
                ResolvedConfig::of(&merged, &clients).unwrap_or_else(|errors| panic!("truncated at {at}: {errors}"));
            for webhook in &config.webhooks {
                let kept = cut_config.webhooks.iter().find(|it| it.path == webhook.path).unwrap();
                assert_eq!(kept.reader, webhook.reader, "truncated at {at}");
                assert_eq!(kept.keys.len(), webhook.keys.len(), "truncated at {at}");
            }
            for route in &config.routes {
                let kept = cut_config.routes.iter().find(|it| it.module == route.module).unwrap();
                assert_eq!(kept.wants, route.wants, "truncated at {at}");
                assert_eq!(kept.is_removed, !cut.modules.iter().any(|it| it.name == route.module), "truncated at {at}");
            }
            // When the rest arrives, the settings are the same as before.
            let restored = merged.merge(loaded(parse(&text).unwrap()), now + SECOND);
            assert_eq!(restored.settings(), whole.settings(), "truncated at {at}");
            assert!(restored.is_settled(), "truncated at {at}");
            // Otherwise the truncated file takes effect at the end of the grace period.
            assert_eq!(merged.at(now + GRACE - SECOND).settings(), merged.settings(), "truncated at {at}");
            let later = merged.at(now + GRACE);
            assert_eq!(later.settings(), &cut, "truncated at {at}");
            assert!(later.is_settled(), "truncated at {at}");
        }
        assert!(count > 100, "only {count} prefixes are valid");
    }
}

#[test]
fn retains_everything_while_a_file_grows() {
    for text in [RICH.to_owned(), server_last()] {
        let whole = active(&text);
        let now = Instant::now();
        let mut merged = whole.clone();
        for (at, cut) in cuts(&text) {
            merged = merged.merge(loaded(cut), now);
            assert_unchanged(&whole, &merged, at);
        }
        let restored = merged.merge(loaded(parse(&text).unwrap()), now);
        assert_eq!(restored.settings(), whole.settings());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Truncated files change nothing within the grace period, however often they are read, even if the grace of other
    /// parts ends meanwhile. The complete file restores the settings.
    #[test]
    fn survives_repeated_truncation(steps in prop::collection::vec((0.0..1.0_f64, 0_u64..3), 1..10)) {
        let (whole, start) = (active(RICH), Instant::now());
        let (mut merged, mut now) = (whole.clone(), start);
        for (cut, seconds) in steps {
            now += SECOND * u32::try_from(seconds).unwrap();
            let at = (RICH.len() as f64 * cut) as usize;
            if let Some(Ok(settings)) = RICH.get(..at).map(parse) {
                merged = merged.merge(loaded(settings), now);
            }
            merged = merged.at(now);
            assert_unchanged(&whole, &merged, at);
        }
        let restored = merged.merge(loaded(parse(RICH).unwrap()), now);
        prop_assert_eq!(restored.settings(), whole.settings());
        prop_assert!(restored.is_settled());
    }
}

#[test]
fn retains_the_parts_of_a_changed_file_that_is_truncated() {
    // One module is added before the others, and two values of tenants are changed.
    let target = RICH
        .replace(
            "[[module]]\nname = \"Orders\"",
            "[[module]]\nname = \"New\"\ncomponent = \"new.wasm\"\n\n[[module]]\nname = \"Orders\"",
        )
        .replace("model = \"large\"", "model = \"larger\"")
        .replace(
            "[[tenant]]\nname = \"second\"\ncompanies = [\"c3\"]",
            "[[tenant]]\nname = \"second\"\ncompanies = [\"c3\", \"c4\"]",
        );
    let (whole, now) = (active(RICH), Instant::now());
    let after = active(&target);
    for (at, cut) in cuts(&target) {
        let merged = whole.merge(loaded(cut), now);
        for module in &whole.settings().modules {
            assert_eq!(
                merged.settings().modules.iter().find(|it| it.name == module.name),
                Some(module),
                "truncated at {at}"
            );
        }
        for tenant in &whole.settings().tenants {
            let is = merged.settings().tenants.iter().find(|it| it.name == tenant.name).unwrap();
            let target = after.settings().tenants.iter().find(|it| it.name == tenant.name).unwrap();
            assert!(is == tenant || is == target, "truncated at {at}: neither the old nor the new value: {is:?}");
        }
        let restored = merged.merge(loaded(parse(&target).unwrap()), now);
        assert_eq!(restored.settings(), after.settings(), "truncated at {at}");
    }
}

/// The smallest valid file, with these tables.
fn small(tables: &str) -> String {
    format!(
        r#"
[[source]]
name = "unique"
path = "/webhook"
scheme = "unique"
secrets = ["env:OLD|NEW"]

{tables}
"#
    )
}

const TENANT: &str = "[[tenant]]\nname = \"one\"\nplatform = { kind = \"none\" }\n";

const MODULE: &str = "[[module]]\nname = \"M\"\ncomponent = \"m.wasm\"\nevents = [\"a\"]\nmatch = { a = 1 }\n";

#[test]
fn removes_at_once_if_no_truncation_explains_it() {
    let second = MODULE.replace("\"M\"", "\"N\"");
    let before = active(&small(&format!("{TENANT}{MODULE}{second}")));
    let next = small(&format!("{TENANT}{}{second}", MODULE.replace("match = { a = 1 }\n", "")));
    let merged = before.merge(loaded(parse(&next).unwrap()), Instant::now());
    assert_eq!(merged.settings(), merged.as_written(), "the module after it is complete, so the file isn't truncated");
    // The same holds for the last module if its end is unchanged.
    let next = small(&format!("{TENANT}{MODULE}{}", second.replace("events = [\"a\"]\n", "")));
    let merged = before.merge(loaded(parse(&next).unwrap()), Instant::now());
    assert_eq!(merged.settings(), merged.as_written());
    // The same holds for any part if the file was moved into place.
    let next = small(&format!("{TENANT}{MODULE}{}", second.replace("match = { a = 1 }\n", "")));
    let next = parse(&next).unwrap();
    let merged = before.merge(loaded(next.clone()), Instant::now());
    assert_eq!(merged.settings(), before.settings(), "the file may be truncated");
    let merged = before.merge(LoadedSettings { is_complete: true, ..loaded(next) }, Instant::now());
    assert_eq!(merged.settings(), merged.as_written());
}

#[test]
fn removes_at_once_without_a_grace_period() {
    let server = "[server]\nremoval_grace = \"0s\"\n";
    let before = active(&format!("{server}{}", small(&format!("{TENANT}{MODULE}"))));
    let merged = before.merge(loaded(parse(&format!("{server}{}", small(TENANT))).unwrap()), Instant::now());
    assert!(merged.settings().modules.is_empty() && merged.is_settled());
}

/// Returns the tenant that gets the events of a company. `None` if they are rejected.
fn tenant_of(active: &ActiveSettings, company: &str) -> Option<String> {
    let config = ResolvedConfig::of(active, &TenantHttpClients::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let body = serde_json::json!({ "id": "evt_1", "event": "a", "companyId": company, "userId": "u", "payload": {} });
    let event = config.webhooks[0].reader.read(&http::HeaderMap::new(), &body.to_string().into_bytes().into());
    event.ok().map(|event| event.tenant.to_string())
}

#[test]
fn retains_the_companies_of_a_removed_tenant() {
    let tenants = r#"
[[tenant]]
name = "any"
platform = { kind = "none" }

[[tenant]]
name = "one"
companies = ["c1", "c2"]
platform = { kind = "none" }
"#;
    let (before, now) = (active(&small(tenants)), Instant::now());
    let of = |active: &ActiveSettings| ["c1", "c2", "c9"].map(|company| tenant_of(active, company));
    let all = [Some("one".into()), Some("one".into()), Some("any".into())];
    assert_eq!(of(&before), all);
    let (first, _) = tenants.split_at(tenants.rfind("[[tenant]]").unwrap());
    let gone = before.merge(loaded(parse(&small(first)).unwrap()), now);
    assert_eq!(of(&gone), all, "the removed tenant keeps its events");
    assert!(gone.is_removed(&SettingsPart::Tenant("one".into())));
    assert_eq!(of(&gone.at(now + GRACE)), ["c1", "c2", "c9"].map(|_| Some("any".into())));
    // Only one of its companies is removed.
    let fewer = before.merge(loaded(parse(&small(&tenants.replace(", \"c2\"", ""))).unwrap()), now);
    assert_eq!(of(&fewer), all);
    assert_eq!(of(&fewer.at(now + GRACE)), [Some("one".into()), Some("any".into()), Some("any".into())]);
    // If the tenant was renamed, the new tenant gets the events at once.
    let renamed = before.merge(loaded(parse(&small(&tenants.replace("\"one\"", "\"uno\""))).unwrap()), now);
    assert_eq!(of(&renamed), [Some("uno".into()), Some("uno".into()), Some("any".into())]);
    assert!(renamed.is_removed(&SettingsPart::Tenant("one".into())), "its deliveries wait");
    // A company has moved to another tenant.
    let moved = tenants.replace("\"any\"\n", "\"any\"\ncompanies = [\"c2\"]\n").replace("\"c1\", \"c2\"", "\"c1\"");
    let moved = before.merge(loaded(parse(&small(&moved)).unwrap()), now);
    assert_eq!(of(&moved)[..2], [Some("one".into()), Some("any".into())]);
}

#[test]
fn renames_the_only_tenant() {
    let (before, now) = (active(&small(&format!("{TENANT}{MODULE}"))), Instant::now());
    let renamed = small(&format!("{TENANT}{MODULE}").replace("\"one\"", "\"uno\""));
    let renamed = before.merge(loaded(parse(&renamed).unwrap()), now);
    assert_eq!(tenant_of(&renamed, "c1").as_deref(), Some("uno"));
    assert_eq!(tenant_of(&renamed.at(now + SECOND), "c1").as_deref(), Some("uno"));
    assert!(renamed.is_removed(&SettingsPart::Tenant("one".into())));
}

#[test]
fn drops_a_source_whose_path_is_reused() {
    let (before, now) = (active(&small(TENANT)), Instant::now());
    let renamed = small(TENANT).replace("name = \"unique\"", "name = \"other\"");
    let renamed = before.merge(loaded(parse(&renamed).unwrap()), now);
    assert_eq!(renamed.settings(), renamed.as_written());
    let gone = small(TENANT).replace("name = \"unique\"", "name = \"other\"").replace("/webhook", "/other");
    let gone = before.merge(loaded(parse(&gone).unwrap()), now);
    let paths: Vec<_> = gone.settings().sources.iter().map(|it| it.webhook().unwrap().path.as_str()).collect();
    assert_eq!(paths, ["/other", "/webhook"]);
}

/// Settings with these values of `OLD` and `NEW`.
fn with_values(values: &[(&str, &str)]) -> LoadedSettings {
    let environment = Arc::new(values.iter().copied().collect());
    LoadedSettings { settings: parse(&small(TENANT)).unwrap(), environment, is_complete: false }
}

/// Returns the number of keys of the source, and whether its secrets are unconfirmed.
fn keys(active: &ActiveSettings) -> (usize, bool) {
    let config = ResolvedConfig::of(active, &TenantHttpClients::default()).unwrap_or_else(|errors| panic!("{errors}"));
    (config.webhooks[0].keys.len(), !config.unconfirmed.is_empty())
}

fn secret(active: &ActiveSettings) -> String {
    let source = active.settings().sources[0].webhook().unwrap();
    source.secrets[0].resolve(active.environment()).unwrap().expose().to_owned()
}

#[test]
fn accepts_a_replaced_secret_during_the_grace_period() {
    let now = Instant::now();
    let before = ActiveSettings::new(with_values(&[("OLD", "usig_first")]));
    assert_eq!(keys(&before), (1, false));
    let next = before.merge(with_values(&[("OLD", "sesame")]), now);
    assert_eq!((secret(&next).as_str(), keys(&next)), ("sesame", (2, true)));
    let third = next.merge(with_values(&[("OLD", "open")]), now + SECOND);
    assert_eq!(keys(&third), (3, true));
    assert_eq!(keys(&third.at(now + GRACE)), (2, true));
    assert_eq!(keys(&third.at(now + GRACE + SECOND)), (1, false));
    // The previous value comes back.
    let back = next.merge(with_values(&[("OLD", "usig_first")]), now + SECOND);
    assert_eq!((secret(&back).as_str(), keys(&back)), ("usig_first", (2, true)));
}

#[test]
fn ignores_a_truncated_secret() {
    let (now, whole) = (Instant::now(), "usig_0123456789");
    let before = ActiveSettings::new(with_values(&[("OLD", whole)]));
    let mut merged = before.clone();
    for length in 1..whole.len() {
        merged = merged.merge(with_values(&[("OLD", &whole[..length])]), now);
        assert_eq!(
            (secret(&merged).as_str(), keys(&merged)),
            (whole, (1, true)),
            "requests may be signed with an unknown new secret"
        );
    }
    let restored = merged.merge(with_values(&[("OLD", whole)]), now + SECOND);
    assert_eq!(secret(&restored), whole);
    assert_eq!(keys(&restored.at(now + GRACE)), (1, false));
    // If the value stays shorter, it takes effect.
    let shorter = merged.at(now + GRACE);
    assert_eq!(secret(&shorter), &whole[..whole.len() - 1]);
}

#[test]
fn does_not_retain_half_of_a_new_secret() {
    let now = Instant::now();
    let before = ActiveSettings::new(with_values(&[("OLD", "first")]));
    let half = before.merge(with_values(&[("OLD", "s")]), now);
    assert_eq!(secret(&half), "s");
    // A prefix of one letter would be easy to guess.
    let whole = half.merge(with_values(&[("OLD", "sesame")]), now + SECOND);
    assert_eq!((secret(&whole).as_str(), keys(&whole)), ("sesame", (2, true)));
}

#[test]
fn retains_the_value_of_a_removed_variable() {
    let now = Instant::now();
    let before = ActiveSettings::new(with_values(&[("OLD", "first"), ("NEW", "second")]));
    let gone = before.merge(with_values(&[("NEW", "second")]), now);
    assert_eq!(secret(&gone), "first");
    assert_eq!(secret(&gone.at(now + SECOND)), "first", "the value is retained until the grace period ends");
    assert_eq!(secret(&gone.at(now + GRACE)), "second");
}
