//! Settings files that are cut: what a slow writer leaves for a moment is the beginning of a file, and often a valid one.
//!
//! Each file here is cut at every byte. What isn't refused is taken in after the whole file, with a clock that stands still.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modhost_config::{ActiveSettings, Environment, LoadedSettings, Settings, SettingsPart};
use modhost_platform::http_client;
use modhost_server::resolved_config::ResolvedConfig;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

const GRACE: Duration = Duration::from_secs(30);

/// Of everything something, and every kind of table a file can be cut in.
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

/// The shipped file with its commented entries for other systems.
fn shipped_with_all() -> String {
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(entry) if !entry.starts_with([' ', '#']) => entry.to_owned(),
        _ => line.to_owned(),
    };
    shipped().lines().map(uncommented).collect::<Vec<_>>().join("\n") + "\n"
}

/// The rich file with the server's settings at its end.
fn server_last() -> String {
    let (server, rest) = RICH.split_at(RICH.find("[[source]]").unwrap());
    format!("{rest}\n{server}\n[server.limits]\nmax_connections = 100\nmax_headers = 200\n")
}

/// Every beginning of a text that is valid by itself, but for all of it.
fn cuts(text: &str) -> impl Iterator<Item = (usize, Settings)> {
    (1..text.len()).filter(|at| text.is_char_boundary(*at)).filter_map(|at| Some((at, parse(&text[..at]).ok()?)))
}

/// That every part is there and as it was; `at` says where the file was cut.
fn as_before(was: &ActiveSettings, is: &ActiveSettings, at: usize) {
    let (was, is) = (was.settings(), is.settings());
    assert_eq!(was.server, is.server, "cut at {at}");
    for source in &was.sources {
        let kept = is.sources.iter().find(|it| it.name == source.name).unwrap_or_else(|| panic!("cut at {at}"));
        assert_eq!(source.kind, kept.kind, "cut at {at}");
    }
    for tenant in &was.tenants {
        assert_eq!(is.tenants.iter().find(|it| it.name == tenant.name), Some(tenant), "cut at {at}");
    }
    for module in &was.modules {
        assert_eq!(is.modules.iter().find(|it| it.name == module.name), Some(module), "cut at {at}");
    }
}

#[test]
fn a_file_cut_anywhere_changes_nothing() {
    let client = http_client().unwrap();
    for text in [shipped(), shipped_with_all(), RICH.to_owned(), server_last()] {
        let (whole, now) = (active(&text), Instant::now());
        let plan = ResolvedConfig::of(&whole, &client).unwrap_or_else(|errors| panic!("{errors}"));
        let mut count = 0;
        for (at, cut) in cuts(&text) {
            count += 1;
            let taken = whole.merge(loaded(cut.clone()), now);
            as_before(&whole, &taken, at);
            // Whose events are whose, and who wants them, is as it was.
            let cut_plan = ResolvedConfig::of(&taken, &client).unwrap_or_else(|errors| panic!("cut at {at}: {errors}"));
            for webhook in &plan.webhooks {
                let kept = cut_plan.webhooks.iter().find(|it| it.path == webhook.path).unwrap();
                assert_eq!(kept.reader, webhook.reader, "cut at {at}");
                assert_eq!(kept.keys.len(), webhook.keys.len(), "cut at {at}");
            }
            for route in &plan.routes {
                let kept = cut_plan.routes.iter().find(|it| it.module == route.module).unwrap();
                assert_eq!(kept.wants, route.wants, "cut at {at}");
                assert_eq!(kept.is_gone, !cut.modules.iter().any(|it| it.name == route.module), "cut at {at}");
            }
            // When the rest is there, all is as before.
            let restored = taken.merge(loaded(parse(&text).unwrap()), now + SECOND);
            assert_eq!(restored.settings(), whole.settings(), "cut at {at}");
            assert!(restored.is_settled(), "cut at {at}");
            // Else it is what is wanted, at its time.
            assert_eq!(taken.at(now + GRACE - SECOND).settings(), taken.settings(), "cut at {at}");
            let later = taken.at(now + GRACE);
            assert_eq!(later.settings(), &cut, "cut at {at}");
            assert!(later.is_settled(), "cut at {at}");
        }
        assert!(count > 100, "only {count} cuts are valid");
    }
}

#[test]
fn a_file_that_grows_line_by_line_changes_nothing() {
    for text in [RICH.to_owned(), server_last()] {
        let whole = active(&text);
        let now = Instant::now();
        let mut taken = whole.clone();
        for (at, cut) in cuts(&text) {
            taken = taken.merge(loaded(cut), now);
            as_before(&whole, &taken, at);
        }
        let restored = taken.merge(loaded(parse(&text).unwrap()), now);
        assert_eq!(restored.settings(), whole.settings());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However often a file is found cut within the grace, whoever else's time comes meanwhile, nothing changes; and with
    /// the whole file all is as before.
    #[test]
    fn files_cut_again_and_again_change_nothing(steps in prop::collection::vec((0.0..1.0_f64, 0_u64..3), 1..10)) {
        let (whole, start) = (active(RICH), Instant::now());
        let (mut taken, mut now) = (whole.clone(), start);
        for (cut, seconds) in steps {
            now += SECOND * u32::try_from(seconds).unwrap();
            let at = (RICH.len() as f64 * cut) as usize;
            if let Some(Ok(settings)) = RICH.get(..at).map(parse) {
                taken = taken.merge(loaded(settings), now);
            }
            taken = taken.at(now);
            as_before(&whole, &taken, at);
        }
        let restored = taken.merge(loaded(parse(RICH).unwrap()), now);
        prop_assert_eq!(restored.settings(), whole.settings());
        prop_assert!(restored.is_settled());
    }
}

#[test]
fn another_file_cut_anywhere_drops_nothing_it_has() {
    // One module is taken out, one put in before the others, and one has another value.
    let wanted = RICH
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
    let after = active(&wanted);
    for (at, cut) in cuts(&wanted) {
        let taken = whole.merge(loaded(cut), now);
        for module in &whole.settings().modules {
            assert_eq!(taken.settings().modules.iter().find(|it| it.name == module.name), Some(module), "cut at {at}");
        }
        for tenant in &whole.settings().tenants {
            let is = taken.settings().tenants.iter().find(|it| it.name == tenant.name).unwrap();
            let wanted = after.settings().tenants.iter().find(|it| it.name == tenant.name).unwrap();
            assert!(is == tenant || is == wanted, "cut at {at}: neither as it was nor as it is to be: {is:?}");
        }
        let restored = taken.merge(loaded(parse(&wanted).unwrap()), now);
        assert_eq!(restored.settings(), after.settings(), "cut at {at}");
    }
}

/// The least that works, with these tables.
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
fn what_is_taken_out_on_purpose_goes_at_once_where_no_cut_explains_it() {
    let second = MODULE.replace("\"M\"", "\"N\"");
    let before = active(&small(&format!("{TENANT}{MODULE}{second}")));
    let next = small(&format!("{TENANT}{}{second}", MODULE.replace("match = { a = 1 }\n", "")));
    let taken = before.merge(loaded(parse(&next).unwrap()), Instant::now());
    assert_eq!(taken.settings(), taken.as_written(), "the module behind it is whole, so it isn't cut");
    // In the last one, too, if it goes on to the same end.
    let next = small(&format!("{TENANT}{MODULE}{}", second.replace("events = [\"a\"]\n", "")));
    let taken = before.merge(loaded(parse(&next).unwrap()), Instant::now());
    assert_eq!(taken.settings(), taken.as_written());
    // And wherever it is, if the file was moved to its place.
    let next = small(&format!("{TENANT}{MODULE}{}", second.replace("match = { a = 1 }\n", "")));
    let next = parse(&next).unwrap();
    let taken = before.merge(loaded(next.clone()), Instant::now());
    assert_eq!(taken.settings(), before.settings(), "it may be cut");
    let taken = before.merge(LoadedSettings { is_complete: true, ..loaded(next) }, Instant::now());
    assert_eq!(taken.settings(), taken.as_written());
}

#[test]
fn without_a_grace_everything_goes_at_once() {
    let server = "[server]\nremoval_grace = \"0s\"\n";
    let before = active(&format!("{server}{}", small(&format!("{TENANT}{MODULE}"))));
    let taken = before.merge(loaded(parse(&format!("{server}{}", small(TENANT))).unwrap()), Instant::now());
    assert!(taken.settings().modules.is_empty() && taken.is_settled());
}

/// Which tenant a plan gives the events of a company to; none if they are refused.
fn tenant_of(active: &ActiveSettings, company: &str) -> Option<String> {
    let plan = ResolvedConfig::of(active, &http_client().unwrap()).unwrap_or_else(|errors| panic!("{errors}"));
    let body = serde_json::json!({ "id": "evt_1", "event": "a", "companyId": company, "userId": "u", "payload": {} });
    let event = plan.webhooks[0].reader.read(&http::HeaderMap::new(), &body.to_string().into_bytes().into());
    event.ok().map(|event| event.tenant.to_string())
}

#[test]
fn a_company_is_nobody_elses_while_its_tenant_is_gone() {
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
    assert_eq!(of(&gone), all, "its events wait for it");
    assert!(gone.is_removed(&SettingsPart::Tenant("one".into())));
    assert_eq!(of(&gone.at(now + GRACE)), ["c1", "c2", "c9"].map(|_| Some("any".into())));
    // One of its companies alone.
    let fewer = before.merge(loaded(parse(&small(&tenants.replace(", \"c2\"", ""))).unwrap()), now);
    assert_eq!(of(&fewer), all);
    assert_eq!(of(&fewer.at(now + GRACE)), [Some("one".into()), Some("any".into()), Some("any".into())]);
    // It has another name by now: that one has its events at once.
    let renamed = before.merge(loaded(parse(&small(&tenants.replace("\"one\"", "\"uno\""))).unwrap()), now);
    assert_eq!(of(&renamed), [Some("uno".into()), Some("uno".into()), Some("any".into())]);
    assert!(renamed.is_removed(&SettingsPart::Tenant("one".into())), "its deliveries wait all the same");
    // A company has moved to another tenant.
    let moved = tenants.replace("\"any\"\n", "\"any\"\ncompanies = [\"c2\"]\n").replace("\"c1\", \"c2\"", "\"c1\"");
    let moved = before.merge(loaded(parse(&small(&moved)).unwrap()), now);
    assert_eq!(of(&moved)[..2], [Some("one".into()), Some("any".into())]);
}

#[test]
fn the_only_tenant_can_be_renamed() {
    let (before, now) = (active(&small(&format!("{TENANT}{MODULE}"))), Instant::now());
    let renamed = small(&format!("{TENANT}{MODULE}").replace("\"one\"", "\"uno\""));
    let renamed = before.merge(loaded(parse(&renamed).unwrap()), now);
    assert_eq!(tenant_of(&renamed, "c1").as_deref(), Some("uno"));
    assert_eq!(tenant_of(&renamed.at(now + SECOND), "c1").as_deref(), Some("uno"));
    assert!(renamed.is_removed(&SettingsPart::Tenant("one".into())));
}

#[test]
fn a_source_whose_path_is_anothers_is_gone() {
    let (before, now) = (active(&small(TENANT)), Instant::now());
    let renamed = small(TENANT).replace("name = \"unique\"", "name = \"other\"");
    let renamed = before.merge(loaded(parse(&renamed).unwrap()), now);
    assert_eq!(renamed.settings(), renamed.as_written());
    let gone = small(TENANT).replace("name = \"unique\"", "name = \"other\"").replace("/webhook", "/other");
    let gone = before.merge(loaded(parse(&gone).unwrap()), now);
    let paths: Vec<_> = gone.settings().sources.iter().map(|it| it.webhook().unwrap().path.as_str()).collect();
    assert_eq!(paths, ["/other", "/webhook"]);
}

/// Settings with these values for `OLD` and `NEW`.
fn with_values(values: &[(&str, &str)]) -> LoadedSettings {
    let environment = Arc::new(values.iter().copied().collect());
    LoadedSettings { settings: parse(&small(TENANT)).unwrap(), environment, is_complete: false }
}

/// How many keys the source has, and whether it isn't known whether these are all.
fn keys(active: &ActiveSettings) -> (usize, bool) {
    let plan = ResolvedConfig::of(active, &http_client().unwrap()).unwrap_or_else(|errors| panic!("{errors}"));
    (plan.webhooks[0].keys.len(), !plan.unsettled.is_empty())
}

fn secret(active: &ActiveSettings) -> String {
    let source = active.settings().sources[0].webhook().unwrap();
    source.secrets[0].resolve(active.environment()).unwrap().expose().to_owned()
}

#[test]
fn a_secret_that_is_replaced_is_taken_for_a_while() {
    let now = Instant::now();
    let before = ActiveSettings::new(with_values(&[("OLD", "usig_first")]));
    assert_eq!(keys(&before), (1, false));
    let next = before.merge(with_values(&[("OLD", "sesame")]), now);
    assert_eq!((secret(&next).as_str(), keys(&next)), ("sesame", (2, true)));
    let third = next.merge(with_values(&[("OLD", "open")]), now + SECOND);
    assert_eq!(keys(&third), (3, true));
    assert_eq!(keys(&third.at(now + GRACE)), (2, true));
    assert_eq!(keys(&third.at(now + GRACE + SECOND)), (1, false));
    // Back again.
    let back = next.merge(with_values(&[("OLD", "usig_first")]), now + SECOND);
    assert_eq!((secret(&back).as_str(), keys(&back)), ("usig_first", (2, true)));
}

#[test]
fn a_secret_that_is_cut_is_not_taken() {
    let (now, whole) = (Instant::now(), "usig_0123456789");
    let before = ActiveSettings::new(with_values(&[("OLD", whole)]));
    let mut taken = before.clone();
    for length in 1..whole.len() {
        taken = taken.merge(with_values(&[("OLD", &whole[..length])]), now);
        assert_eq!(
            (secret(&taken).as_str(), keys(&taken)),
            (whole, (1, true)),
            "what others sign may be signed with a new one"
        );
    }
    let restored = taken.merge(with_values(&[("OLD", whole)]), now + SECOND);
    assert_eq!(secret(&restored), whole);
    assert_eq!(keys(&restored.at(now + GRACE)), (1, false));
    // It stays shorter: it was meant.
    let shorter = taken.at(now + GRACE);
    assert_eq!(secret(&shorter), &whole[..whole.len() - 1]);
}

#[test]
fn half_of_a_new_secret_is_no_old_one() {
    let now = Instant::now();
    let before = ActiveSettings::new(with_values(&[("OLD", "first")]));
    let half = before.merge(with_values(&[("OLD", "s")]), now);
    assert_eq!(secret(&half), "s");
    // Anybody can guess a letter.
    let whole = half.merge(with_values(&[("OLD", "sesame")]), now + SECOND);
    assert_eq!((secret(&whole).as_str(), keys(&whole)), ("sesame", (2, true)));
}

#[test]
fn a_variable_that_is_gone_leaves_its_value_before_another_ones() {
    let now = Instant::now();
    let before = ActiveSettings::new(with_values(&[("OLD", "first"), ("NEW", "second")]));
    let gone = before.merge(with_values(&[("NEW", "second")]), now);
    assert_eq!(secret(&gone), "first");
    assert_eq!(secret(&gone.at(now + SECOND)), "first", "whatever else is to be dropped");
    assert_eq!(secret(&gone.at(now + GRACE)), "second");
}
