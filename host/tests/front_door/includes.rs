//! Tests of included settings files: one file per tenant, each accepted or refused by itself.

use std::fs;
use std::path::Path;

use modhost_emulator as local;
use modhost_storage::versions::ContentHash;
use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use super::harness::{
    Host, Settings, chat, chosen, component, http, modhost, module_state, modules, modules_json, say, signed_post,
    until, variant, wait_for_answer,
};

const INCLUDE: &str = "include = [\"tenants/*.toml\"]\n";

/// The settings file of a tenant with a source on a path of its own and the test guest as `Assistant`.
struct Tenant {
    name: &'static str,
    path: String,
    head: &'static str,
    component: String,
    lines: &'static str,
}

impl Tenant {
    fn new(name: &'static str) -> Self {
        let component = component("test_guest").display().to_string();
        Self { name, path: format!("/{name}"), head: "", component, lines: "" }
    }

    fn text(&self) -> String {
        let Self { name, path, head, component, lines } = self;
        format!(
            r#"[tenant]
name = {name:?}
{head}

[tenant.platform]
kind = "unique"
api_base = "env:TEST_API_BASE"
app_id = "env:TEST_APP_ID"
api_key = "env:TEST_API_KEY"

[[source]]
name = "chat"
path = {path:?}
scheme = "unique"
secrets = ["env:TEST_ENDPOINT_SECRET"]

[[module]]
name = "Assistant"
component = {component:?}
{lines}
"#
        )
    }

    /// Writes the file as an editor does.
    fn save(&self, folder: &Path) {
        save(folder, self.name, &self.text());
    }
}

/// Replaces the file of a tenant atomically.
fn save(folder: &Path, name: &str, text: &str) {
    let tenants = folder.join("tenants");
    fs::create_dir_all(&tenants).unwrap();
    fs::write(tenants.join("new"), text).unwrap();
    fs::rename(tenants.join("new"), tenants.join(format!("{name}.toml"))).unwrap();
}

/// A folder with a modules.toml that includes the files of these tenants.
fn folder(settings: &Settings, tenants: &[&Tenant]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.toml"), format!("{INCLUDE}{}", settings.text())).unwrap();
    tenants.iter().for_each(|tenant| tenant.save(folder.path()));
    folder
}

/// Starts a host with the test guest as `Assistant` in modules.toml, and with these tenants.
async fn start(server: &str, tenants: &[&Tenant]) -> Host {
    let settings = Settings::new().server(server).module("Assistant", "test_guest", "");
    Host::dev(folder(&settings, tenants)).await
}

async fn api(host: &Host, path: &str) -> (StatusCode, Value) {
    let response = http().get(format!("{}/api/{path}", host.admin)).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn refused_files(host: &Host) -> Vec<Value> {
    host.health().await["refused_files"].as_array().cloned().unwrap_or_default()
}

/// Waits until exactly these files are refused.
async fn refuses(host: &Host, files: &[&str]) {
    until(&format!("{files:?} to be refused"), async || {
        let refused = refused_files(host).await;
        let names: Vec<_> = refused.iter().map(|file| file["file"].as_str().unwrap()).collect();
        let is_it = names.len() == files.len() && names.iter().zip(files).all(|(name, file)| name.ends_with(file));
        is_it.then_some(())
    })
    .await;
}

/// Waits until the settings in effect are saved for the next start: a file for each of this many included ones.
async fn saved(host: &Host, count: usize) {
    until("the included files to be saved", async || {
        let saved = fs::read_dir(host.file(".modhost/included")).ok()?.count();
        (saved == count && host.file(".modhost/settings.json").exists()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tenants_have_modules_of_the_same_name() {
    let host = start("", &[&Tenant::new("acme"), &Tenant::new("beta")]).await;
    for module in ["Assistant", "acme/Assistant", "beta/Assistant"] {
        let text = format!("reply of {module}");
        assert_eq!(chat(&host, module, &text).await.text(), format!("of {module}"));
        host.logged(&["completed", &format!("module={module} ")]).await;
    }
    // Each keeps its own values.
    chat(&host, "acme/Assistant", "kv-set a good morning").await;
    assert_eq!(chat(&host, "acme/Assistant", "kv-get a").await.text(), "good morning");
    assert_eq!(chat(&host, "beta/Assistant", "kv-get a").await.text(), "nothing");
    let (_, value) = api(&host, "keyvalue/acme/acme%2FAssistant/default/value?key=a").await;
    assert!(!value["value"].is_null(), "{value}");

    // The API, the command line and the metrics use the full name.
    for path in ["modules/acme%2FAssistant", "modules/acme/Assistant"] {
        let (status, module) = api(&host, path).await;
        assert_eq!((status, &module["name"]), (StatusCode::OK, &"acme/Assistant".into()), "{module}");
    }
    assert_eq!(api(&host, "modules/acme/Assistant/versions").await.0, StatusCode::OK);
    let names: Vec<_> = modules_json(&host, &[]).await.iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["Assistant", "acme/Assistant", "beta/Assistant"]);
    let unknown = modules(&host, &["pause", "acme/Asistant"]).await;
    assert!(unknown.code == 1 && unknown.stderr.contains("did you mean acme/Assistant?"), "{unknown:?}");
    let metrics = http().get(format!("{}/metrics", host.admin)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"module="acme/Assistant""#), "{metrics}");
    let listed = modhost(host.folder(), "routes", &[], &[]).await;
    assert!(listed.stdout.contains("acme/chat") && listed.stdout.contains("beta/Assistant"), "{listed:?}");
    let args = ["--to", "beta/Assistant", "--platform", &host.platform, "reply hi"];
    let sent = modhost(host.folder(), "send", &args, &[]).await;
    assert!(sent.code == 0 && sent.stdout.contains("hi"), "{sent:?}");
}

/// A source of modules.toml delivers the events of all tenants, by company. An event that names a module goes to the
/// tenant's own module of that name, and to the one of modules.toml only without it.
#[tokio::test]
async fn event_goes_to_the_own_module_of_its_tenant() {
    let acme = Tenant { head: "companies = [\"company_acme\"]", ..Tenant::new("acme") };
    let beta = Tenant { head: "companies = [\"company_beta\"]", ..Tenant::new("beta") };
    let beta_text = beta.text().replace("\"Assistant\"", "\"Other\"");
    let host = start("", &[&acme]).await;
    save(host.folder(), "beta", &beta_text);
    host.logged(&["included settings file loaded", "tenant=\"beta\""]).await;
    for (id, company) in [("evt_acme", "company_acme"), ("evt_beta", "company_beta"), ("evt_local", local::COMPANY_ID)]
    {
        let mut event = chosen(id, "Assistant", "log hi");
        event["companyId"] = company.into();
        assert_eq!(signed_post(&host.webhook, event.to_string()).await.status(), StatusCode::OK);
        host.logged(&["attempt started", id]).await;
    }
    let runs = |id: &str, module: &str| host.lines(&["attempt started", id, &format!("module={module} ")]);
    assert_eq!((runs("evt_acme", "acme/Assistant"), runs("evt_acme", "Assistant")), (1, 0));
    assert_eq!((runs("evt_beta", "Assistant"), runs("evt_local", "Assistant")), (1, 1));

    let event = host.file("event.json");
    let mut body = chosen("evt_1", "Assistant", "hi");
    body["companyId"] = "company_acme".into();
    fs::write(&event, body.to_string()).unwrap();
    let test = ["test", event.to_str().unwrap(), "--source", "unique", "--json"];
    let routes: Value = serde_json::from_str(&modhost(host.folder(), "routes", &test, &[]).await.stdout).unwrap();
    let modules = routes["modules"].as_array().unwrap();
    let of = |name: &str| modules.iter().find(|module| module["name"] == name).cloned().unwrap_or_default();
    assert_eq!((&of("acme/Assistant")["gets"], &of("Assistant")["gets"]), (&true.into(), &false.into()), "{routes}");
    assert!(of("Assistant")["reason"].as_str().unwrap().contains("has its own"), "{routes}");
}

#[tokio::test]
async fn broken_file_affects_only_its_tenant() {
    let (acme, beta) = (Tenant::new("acme"), Tenant::new("beta"));
    let host = start("", &[&acme, &beta]).await;
    let line = acme.text().lines().count() + 1;
    save(host.folder(), "acme", &format!("{}wrong = 1\n", acme.text()));
    host.logged(&["ERROR", "cannot load an included settings file; its previous settings stay", "tenant=\"acme\""])
        .await;
    refuses(&host, &["tenants/acme.toml"]).await;
    let refused = refused_files(&host).await;
    let metrics = http().get(format!("{}/metrics", host.admin)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("modhost_settings_files_refused 1\n"), "{metrics}");
    let error = refused[0]["errors"][0].as_str().unwrap();
    assert!(error.contains(&format!("tenants/acme.toml:{line}:1: unknown setting `wrong`")), "{error}");
    assert_eq!(chat(&host, "acme/Assistant", "reply still here").await.text(), "still here");

    // Meanwhile another tenant's file, a new file and modules.toml change.
    let second = format!("{}\n[[module]]\nname = \"Second\"\ncomponent = {:?}\n", beta.text(), beta.component);
    save(host.folder(), "beta", &second);
    assert_eq!(chat_when_there(&host, "beta/Second").await, "hello");
    Tenant::new("gamma").save(host.folder());
    assert_eq!(chat_when_there(&host, "gamma/Assistant").await, "hello");
    let settings = Settings::new().module("Assistant", "test_guest", "").module("More", "test_guest", "");
    host.save("modules.toml", format!("{INCLUDE}{}", settings.text()));
    assert_eq!(chat_when_there(&host, "More").await, "hello");

    let check = modhost(host.folder(), "check", &[], &variables()).await;
    assert_eq!(check.code, 1, "{check:?}");
    assert!(check.stdout.contains("modules.toml and 2 of 3 included files: the host can start"), "{}", check.stdout);
    assert!(check.stdout.contains("refused: tenants/acme.toml"), "{}", check.stdout);
    assert!(check.stdout.contains(&format!("acme.toml:{line}:1: unknown setting `wrong`")), "{}", check.stdout);

    acme.save(host.folder());
    host.logged(&["included settings file loaded", "tenant=\"acme\""]).await;
    refuses(&host, &[]).await;
}

/// The variables of the host's environment for `modhost check`.
fn variables() -> [(&'static str, &'static str); 4] {
    [
        ("TEST_ENDPOINT_SECRET", local::ENDPOINT_SECRET),
        ("TEST_API_BASE", "http://127.0.0.1:1"),
        ("TEST_APP_ID", "app"),
        ("TEST_API_KEY", "key"),
    ]
}

/// Waits until the local platform has a module and the module serves, and returns its answer.
async fn chat_when_there(host: &Host, module: &str) -> String {
    until(&format!("{module} to serve"), async || {
        let assistants = http().get(format!("{}/local/assistants", host.platform)).send().await.unwrap();
        let assistants: Value = assistants.json().await.unwrap();
        let id = format!("assistant_{module}");
        let is_known = assistants.as_array()?.iter().any(|assistant| assistant["id"] == *id);
        (is_known && !host.module(module).await["version"].is_null()).then_some(())
    })
    .await;
    chat(host, module, "reply hello").await.text().to_owned()
}

/// The first file in alphabetical order claims the path of another one. The path stays with its holder, also across a
/// restart, until the holder gives it up.
#[tokio::test]
async fn path_stays_with_its_holder() {
    let beta = Tenant::new("beta");
    let newcomer = Tenant { path: "/beta".into(), ..Tenant::new("aaa") };
    let host = start("removal_grace = \"1h\"", &[&beta]).await;
    newcomer.save(host.folder());
    refuses(&host, &["tenants/aaa.toml"]).await;
    let refused = refused_files(&host).await;
    let error = refused[0]["errors"][0].as_str().unwrap();
    assert!(error.contains("tenants/aaa.toml:13:8: the path \"/beta\" is already used by"), "{error}");
    assert!(error.contains("the source \"beta/chat\" at tenants/beta.toml:13:8"), "{error}");
    // Neither does modules.toml get it.
    let taken = Settings::new().source("").more("[[source]]\nname = \"more\"\npath = \"/beta\"\nscheme = \"none\"\n");
    host.save("modules.toml", format!("{INCLUDE}{}", taken.text()));
    host.logged(&["ERROR", "cannot reload the settings", "is already used by the source", "beta/chat"]).await;
    let settings = Settings::new().server("removal_grace = \"1h\"").module("Assistant", "test_guest", "");
    host.save("modules.toml", format!("{INCLUDE}{}", settings.text()));
    host.logged(&["settings are valid again"]).await;

    saved(&host, 1).await;
    let host = Host::dev(host.kill()).await;
    refuses(&host, &["tenants/aaa.toml"]).await;
    assert_eq!(chat(&host, "beta/Assistant", "reply still here").await.text(), "still here");

    // What is only kept for the grace period is free.
    fs::remove_file(host.file("tenants/beta.toml")).unwrap();
    host.logged(&["WARN", "included settings file is gone", "tenant=\"beta\""]).await;
    refuses(&host, &[]).await;
    assert_eq!(chat_when_there(&host, "aaa/Assistant").await, "hello");
}

/// Without saved settings, modules.toml comes first, then the files in order.
#[tokio::test]
async fn first_file_has_the_path_at_the_first_start() {
    let host = start(
        "",
        &[
            &Tenant { path: "/same".into(), ..Tenant::new("beta") },
            &Tenant { path: "/same".into(), ..Tenant::new("acme") },
        ],
    )
    .await;
    refuses(&host, &["tenants/beta.toml"]).await;
    assert_eq!(chat(&host, "acme/Assistant", "reply mine").await.text(), "mine");
}

#[tokio::test]
async fn host_starts_with_the_last_accepted_settings() {
    let (acme, beta) = (Tenant::new("acme"), Tenant::new("beta"));
    let host = start("", &[&acme, &beta]).await;
    saved(&host, 2).await;
    let folder = host.kill();
    save(folder.path(), "acme", "[[tenant]\n");
    let host = Host::dev(folder).await;
    refuses(&host, &["tenants/acme.toml"]).await;
    host.logged(&["ERROR", "cannot load an included settings file; its previous settings stay", "acme"]).await;
    for module in ["acme/Assistant", "beta/Assistant"] {
        assert_eq!(chat(&host, module, "reply still here").await.text(), "still here");
    }
    acme.save(host.folder());
    refuses(&host, &[]).await;
}

/// The host finds the accepted settings of a file even if it is started in another folder, so that the paths differ.
#[tokio::test]
async fn last_accepted_settings_belong_to_the_file_not_to_its_path() {
    let settings = Settings::new().module("Assistant", "test_guest", "");
    let folder = folder(&settings, &[&Tenant::new("acme")]);
    let platform = local::LocalPlatform::start(local::LocalSettings::default()).await.unwrap();
    let host = Host::serve(folder, &variables(), Some(&platform)).await;
    saved(&host, 1).await;
    let folder = host.kill();
    save(folder.path(), "acme", "[[tenant]\n");
    let config = folder.path().join("modules.toml").display().to_string();
    let variables = [&variables()[..], &[("MODHOST_CONFIG", config.as_str())]].concat();
    let host = Host::serve(folder, &variables, Some(&platform)).await;
    let refused = refused_files(&host).await;
    assert_eq!((refused.len(), &refused[0]["tenant"]), (1, &"acme".into()), "{refused:?}");
    assert!(!host.module("acme/Assistant").await["version"].is_null());
    assert_eq!(host.lines(&["included settings file is gone"]), 0);
}

#[tokio::test]
async fn removed_file_is_dropped_after_the_grace() {
    let (acme, beta) = (Tenant::new("acme"), Tenant::new("beta"));
    let host = start("removal_grace = \"3s\"", &[&acme, &beta]).await;
    saved(&host, 2).await;
    fs::remove_file(host.file("tenants/acme.toml")).unwrap();
    host.logged(&["WARN", "included settings file is gone", "tenant=\"acme\"", "grace=3s"]).await;
    // Its events wait for it.
    let chat_id = say(&host.platform, "acme/Assistant", "reply late").await;
    acme.save(host.folder());
    host.logged(&["included settings file loaded", "tenant=\"acme\""]).await;
    assert_eq!(wait_for_answer(&host, &chat_id).await.text(), "late");

    fs::remove_file(host.file("tenants/acme.toml")).unwrap();
    host.logged(&["removed settings file dropped", "tenant=\"acme\""]).await;
    assert!(host.module("acme/Assistant").await.is_null());
    assert_eq!(chat(&host, "beta/Assistant", "reply here").await.text(), "here");
    saved(&host, 1).await;
}

/// A file whose secret isn't set is refused; it is accepted when `.env` has the secret, without a change of the file.
#[tokio::test]
async fn missing_secret_refuses_one_file() {
    let text = Tenant::new("acme").text().replace("[\"env:TEST_ENDPOINT_SECRET\"]", "[\"file:secret\"]");
    let key = "[tenant.completion]\napi_base = \"http://127.0.0.1:1\"\nmodel = \"m\"\napi_key = \"env:ACME_KEY\"\n";
    let text = text.replace("\n[[source]]", &format!("\n{key}\n[[source]]"));
    let settings = Settings::new().module("Assistant", "test_guest", "");
    let folder = folder(&settings, &[&Tenant::new("beta")]);
    save(folder.path(), "acme", &text);
    let platform = local::LocalPlatform::start(local::LocalSettings::default()).await.unwrap();
    let host = Host::serve(folder, &variables(), Some(&platform)).await;
    refuses(&host, &["tenants/acme.toml"]).await;
    let refused = refused_files(&host).await;
    let errors = refused[0]["errors"].to_string();
    assert!(errors.contains("ACME_KEY") && errors.contains("there is no file tenants/secret"), "{errors}");
    assert!(host.module("acme/Assistant").await.is_null());
    assert!(!host.module("beta/Assistant").await["version"].is_null());
    fs::write(host.file(".env"), "ACME_KEY=sesame\n").unwrap();
    until("the variable to be read", async || {
        let errors = refused_files(&host).await[0]["errors"].to_string();
        (!errors.contains("ACME_KEY")).then_some(())
    })
    .await;
    // The path is relative to the file that has it.
    fs::write(host.file("tenants/secret"), local::ENDPOINT_SECRET).unwrap();
    refuses(&host, &[]).await;
    let acme = host.webhook.replace("/webhook", "/acme");
    let event = chosen("evt_acme", "Assistant", "log hi").to_string();
    assert_eq!(signed_post(&acme, event).await.status(), StatusCode::OK);
    host.logged(&["attempt started", "evt_acme", "module=acme/Assistant "]).await;
}

/// The component of a tenant's module is relative to the tenant's file, and its versions are its own.
#[tokio::test]
async fn module_of_a_tenant_has_versions_of_its_own() {
    let [first, second] = [1, 2].map(|number| variant("test_guest", number));
    let [acme, beta] = ["acme", "beta"].map(|name| Tenant { component: "module.wasm".into(), ..Tenant::new(name) });
    let folder = folder(&Settings::new(), &[&acme, &beta]);
    fs::write(folder.path().join("tenants/module.wasm"), &first).unwrap();
    let host = Host::dev(folder).await;
    host.save("tenants/module.wasm", &second);
    for module in ["acme/Assistant", "beta/Assistant"] {
        host.serves(module, &second).await;
    }
    let rolled_back = modules(&host, &["rollback", "acme/Assistant"]).await;
    assert_eq!(rolled_back.code, 0, "{rolled_back:?}");
    let version = |bytes: &[u8]| Value::from(ContentHash::of(bytes).to_string());
    assert_eq!(module_state(&host, "acme/Assistant").await["version"], version(&first));
    assert_eq!(module_state(&host, "beta/Assistant").await["version"], version(&second));
    // A change of another tenant's file leaves it as it is.
    let mut changed = beta;
    changed.lines = "ordering = \"chat\"";
    changed.save(host.folder());
    host.logged(&["included settings file loaded", "tenant=\"beta\""]).await;
    assert_eq!(module_state(&host, "acme/Assistant").await["version"], version(&first));
}

/// The build command of a tenant's module runs in the folder of the tenant's file.
#[tokio::test]
async fn module_is_built_in_the_folder_of_its_file() {
    let acme = Tenant {
        component: "module.wasm".into(),
        lines: "build = \"cp guest.wasm module.wasm\"",
        ..Tenant::new("acme")
    };
    let folder = folder(&Settings::new(), &[&acme]);
    fs::copy(component("test_guest"), folder.path().join("tenants/guest.wasm")).unwrap();
    let built = modhost(folder.path(), "build", &["acme/Assistant"], &[]).await;
    assert_eq!(built.code, 0, "{built:?}");
    let host = Host::dev(folder).await;
    assert_eq!(chat(&host, "acme/Assistant", "reply built").await.text(), "built");
}
