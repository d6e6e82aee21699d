//! Tests of `new`, `build` and `sdk`, mostly of their errors.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use modhost_config::Settings;
use tempfile::tempdir;

use super::harness::{CommandOutput, component, modhost};

#[tokio::test]
async fn suggests_the_parent_folder_with_settings() {
    let folder = tempdir().unwrap();
    assert_eq!(new(folder.path(), &["Mine", "--lang", "c"]).await.code, 0);
    for (inside, file) in [("mine", "../modules.toml"), ("mine/tests", "../../modules.toml")] {
        let ran = modhost(&folder.path().join(inside), "test", &[], &[]).await;
        let said = format!("a parent folder has one: run the command there, or pass --config {file}\n");
        assert!(ran.code == 2 && ran.stderr.contains(&said), "{ran:?}");
    }
}

async fn new(folder: &Path, args: &[&str]) -> CommandOutput {
    modhost(folder, "new", args, &[]).await
}

/// The names of the entries of a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn creates_settings_and_a_document_with_the_first_module() {
    let folder = tempdir().unwrap();
    let ran = new(folder.path(), &["Travel desk", "--lang", "javascript"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(names(folder.path()), ["documents", "modules.toml", "travel-desk"]);
    let settings = Settings::load(folder.path().join("modules.toml")).unwrap();
    let module = &settings.modules[0];
    assert_eq!((module.name.as_str(), module.build.as_deref()), ("Travel desk", Some("npm run build")));
    assert_eq!(module.component, folder.path().join("travel-desk/module.wasm"));
    let line = ran.stdout.split_once("at line ").unwrap().1.lines().next().unwrap().parse::<usize>().unwrap();
    let text = fs::read_to_string(folder.path().join("modules.toml")).unwrap();
    assert_eq!(text.lines().nth(line - 1), Some("[[module]]"), "{text}");
    // The next steps can be copied.
    assert!(ran.stdout.contains("  cd travel-desk\n  npm ci\n"), "{ran:?}");
    assert!(ran.stdout.contains(" build 'Travel desk'\n"), "{ran:?}");
    let readme = fs::read_to_string(folder.path().join("travel-desk/README.md")).unwrap();
    assert!(readme.starts_with("# Travel desk\n"), "{readme}");
}

#[tokio::test]
async fn adds_an_entry_on_request_and_changes_nothing_else() {
    let folder = tempdir().unwrap();
    assert_eq!(new(folder.path(), &["First", "--lang", "c"]).await.code, 0);
    let file = folder.path().join("modules.toml");
    let before = fs::read_to_string(&file).unwrap();

    let ran = new(folder.path(), &["Second", "--lang", "c", "--dir", "elsewhere/second"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("append this to modules.toml, or use --add next time"), "{ran:?}");
    assert!(ran.stdout.contains("folder = \"elsewhere/second\"\n"), "{ran:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);

    let ran = new(folder.path(), &["Third", "--lang", "c", "--add"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("added the module to modules.toml, at line "), "{ran:?}");
    let after = fs::read_to_string(&file).unwrap();
    assert!(after.starts_with(&before), "{after}");
    let settings = Settings::load(&file).unwrap();
    let modules: Vec<_> = settings.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(modules, ["First", "Third"]);
}

#[tokio::test]
async fn creates_nothing_for_invalid_arguments() {
    let folder = tempdir().unwrap();
    assert_eq!(new(folder.path(), &["First", "--lang", "c"]).await.code, 0);
    fs::create_dir(folder.path().join("there")).unwrap();
    fs::write(folder.path().join("there/mine.txt"), "mine").unwrap();
    fs::write(folder.path().join("broken.toml"), "[[module]\n").unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let before = names(folder.path());
    let text = fs::read_to_string(folder.path().join("modules.toml")).unwrap();
    let line = text.lines().position(|line| line == "[[module]]").unwrap() + 1;
    let conflict = format!("modules.toml:{line}:1: a module named First already exists");
    for (args, said) in [
        (
            &["Mine"][..],
            "no language is given\nhelp: choose one with --lang: rust, python, javascript, typescript, go, c, cpp",
        ),
        (&["First", "--lang", "c", "--dir", "other"], &*conflict),
        (
            &["Mine", "--lang", "c", "--dir", "there"],
            "the folder there is not empty\nhelp: choose another folder with --dir",
        ),
        (&["Mine", "--lang", "c", "--dir", "file"], "cannot use file as the module's folder"),
        (
            &["Mine", "--lang", "c", "--add", "--config", "broken.toml"],
            "cannot add the module to broken.toml; no file was created or changed",
        ),
        (&["Übersetzer", "--lang", "c"], "Choose one with --package NAME"),
        (&["Mine", "--lang", "c", "--package", "Mine"], "\"Mine\" is not a valid package name"),
        (&["Mine", "--template", "there"], "there is no there/template.toml: a template needs one"),
    ] {
        let ran = new(folder.path(), args).await;
        assert!(ran.code == 1 && ran.stderr.contains(said), "{args:?}: {ran:?}");
        assert_eq!(names(folder.path()), before, "{args:?}");
    }
}

#[tokio::test]
async fn uses_a_custom_template() {
    let folder = tempdir().unwrap();
    let template = folder.path().join("template");
    fs::create_dir_all(template.join("src/my_module")).unwrap();
    fs::create_dir_all(template.join("node_modules/left")).unwrap();
    fs::write(template.join("node_modules/left/out"), "").unwrap();
    fs::write(template.join("src/my_module/my-module.txt"), "MyModule is my-module").unwrap();
    fs::write(template.join("picture"), [0xff, 0xfe]).unwrap();
    let about = "language = \"Shell\"\nbuild = \"cp picture my_module.wasm\"\ncomponent = \"my_module.wasm\"\n";
    fs::write(template.join("template.toml"), about).unwrap();
    let ran = new(folder.path(), &["TravelDesk", "--template", "template"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("travel-desk, a module in Shell (2 files)"), "{ran:?}");
    let own = folder.path().join("travel-desk");
    assert_eq!(names(&own), ["picture", "src"]);
    let text = fs::read_to_string(own.join("src/travel_desk/travel-desk.txt")).unwrap();
    assert_eq!(text, "TravelDesk is travel-desk");
    assert_eq!(fs::read(own.join("picture")).unwrap(), [0xff, 0xfe]);

    fs::write(template.join("template.toml"), format!("{about}sdks = \"rust\"\n")).unwrap();
    let ran = new(folder.path(), &["Other", "--template", "template"]).await;
    assert!(ran.code == 1 && ran.stderr.contains("unknown field `sdks`") && ran.stderr.contains("line 4"), "{ran:?}");
}

#[tokio::test]
async fn updates_an_sdk() {
    let folder = tempdir().unwrap();
    for (language, file) in
        [("rust", "wit/world.wit"), ("python", "src/modhost/py.typed"), ("go", "go.mod"), ("c", "modhost.h")]
    {
        let out = format!("sdk/{language}");
        let ran = modhost(folder.path(), "sdk", &[language, "--out", &out], &[]).await;
        assert!(ran.code == 0 && ran.stdout.contains("new or changed"), "{ran:?}");
        assert!(folder.path().join(&out).join(file).is_file() && folder.path().join(&out).join("LICENSE").is_file());
        let ran = modhost(folder.path(), "sdk", &[language, "--out", &out], &[]).await;
        assert!(ran.code == 0 && ran.stdout.contains("unchanged"), "{ran:?}");
    }
}

/// A source and a tenant.
const HOST: &str = r#"[[source]]
name = "unique"
path = "/webhook"
scheme = "unique"
secrets = ["env:SECRET"]
tenant = "default"

[[tenant]]
name = "default"
platform = { kind = "unique", api_base = "env:SECRET", app_id = "env:SECRET", api_key = "env:SECRET" }
"#;

/// A `modules.toml` with modules in folders of their own and these build commands.
fn building(folder: &Path, modules: &[(&str, &str)]) {
    let mut text = HOST.to_owned();
    for (name, command) in modules {
        fs::create_dir_all(folder.join(name)).unwrap();
        text += &format!("\n[[module]]\nname = {name:?}\nfolder = {name:?}\ncomponent = \"{name}/module.wasm\"\n");
        if !command.is_empty() {
            text += &format!("build = {command:?}\n");
        }
    }
    fs::write(folder.join("modules.toml"), text).unwrap();
}

#[tokio::test]
async fn build_reports_the_component_or_the_error() {
    let folder = tempdir().unwrap();
    let built = component("demo_app");
    let core = "printf '\\000asm\\001\\000\\000\\000' > module.wasm";
    let copy = format!("cp {} module.wasm", built.display());
    building(
        folder.path(),
        &[("Good", &copy), ("Core", core), ("Nothing", "true"), ("Broken", "exit 3"), ("Bare", "")],
    );
    let build = async |args: &[&str]| modhost(folder.path(), "build", args, &[]).await;

    let ran = build(&["Good"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("built Good: Good/module.wasm, "), "{ran:?}");
    assert!(ran.stdout.contains(", compiled in ") && ran.stdout.contains("may need `config`"), "{ran:?}");

    let ran = build(&[]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    for said in [
        "built Good: ",
        "failed Core: Core/module.wasm: incompatible: ",
        "failed Nothing: the build command did not create Nothing/module.wasm; set `component` in modules.toml to",
        "failed Broken: the build command failed (exit status: 3); its output is above",
        "3 of 4 modules cannot serve",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {ran:?}");
    }
    for (name, said) in [("Goo", "did you mean Good?"), ("Bare", "module Bare has no `build` command")] {
        let ran = build(&[name]).await;
        assert!(ran.code == 2 && ran.stderr.contains(said), "{ran:?}");
    }
}

#[tokio::test]
async fn changed_tests_do_not_trigger_a_build() {
    let folder = tempdir().unwrap();
    let command = format!("cp {} module.wasm && echo built >> ../builds", component("demo_app").display());
    building(folder.path(), &[("DemoApp", &command)]);
    let write = |name: &str, text: &str| fs::write(folder.path().join("DemoApp").join(name), text).unwrap();
    let cache = folder.path().join("cache");
    let test = async || modhost(folder.path(), "test", &[], &[("XDG_CACHE_HOME", cache.to_str().unwrap())]).await;
    let builds = || fs::read_to_string(folder.path().join("builds")).unwrap().lines().count();
    fs::create_dir(folder.path().join("DemoApp/tests")).unwrap();
    write("source", "");
    write("tests/one.toml", "text = 'hello'");
    for (changed, text, built) in [
        ("tests/two.toml", "text = 'hello again'", 1),
        ("tests/one.toml", "text = 'hello there'", 1),
        ("tests/event.json", "{}", 1),
        ("source", "another", 2),
    ] {
        write(changed, text);
        let ran = test().await;
        assert!(ran.code == 0 && builds() == built, "{changed}: {ran:?}");
    }
}

#[tokio::test]
async fn missing_tool_is_named_with_its_installation() {
    let folder = tempdir().unwrap();
    // A PATH with a shell and nothing else.
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink("/bin/sh", bin.join("sh")).unwrap();
    let path = [("PATH", bin.to_str().unwrap())];
    for (language, tool, said) in [
        ("rust", "cargo", "install Rust from https://rustup.rs"),
        ("python", "modhost-componentize", "\n  .venv/bin/pip install --no-deps --no-build-isolation ./sdk"),
        ("javascript", "npm", "install Node 20 or newer from https://nodejs.org"),
        ("go", "go", "\n  python3 -m venv .venv\n  .venv/bin/pip install --require-hashes -r requirements.txt"),
        ("c", "python-zig", "; or run once for "),
    ] {
        let ran = modhost(
            folder.path(),
            "new",
            &["Mine", "--lang", language, "--dir", language, "--config", language_file(language)],
            &[],
        )
        .await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let ran = modhost(folder.path(), "build", &["--config", language_file(language)], &path).await;
        let said =
            ran.stdout.contains(&format!("failed Mine: `{tool}` is not installed: ")) && ran.stdout.contains(said);
        assert!(ran.code == 1 && said, "{language}: {ran:?}");
    }
}

fn language_file(language: &str) -> &'static str {
    match language {
        "rust" => "rust.toml",
        "python" => "python.toml",
        "javascript" => "javascript.toml",
        "go" => "go.toml",
        _ => "c.toml",
    }
}
