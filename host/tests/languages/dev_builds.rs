//! Tests of `modhost dev` with interpreted languages: a saved source takes effect at once without a new component, with
//! the same behavior. `modhost build` makes the complete component, and `dev` starts from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::harness::{Host, chat, modhost as command};
use super::templates::{modhost, succeeds};
use super::toolchains::{self, Toolchain};

const NAME: &str = "Mine";
/// The name of the custom section with the sources.
const SECTION: &[u8] = b"modhost:sources";

/// A language, and the files of an author in it.
struct Author {
    language: &'static str,
    file: &'static str,
    /// A source whose answer is this text.
    says: fn(&str) -> String,
    /// A second file of the module: its name, its content for a text, and a source that replies with that text.
    helper: (&'static str, fn(&str) -> String, &'static str),
    /// A source that fails in line 6.
    breaks: &'static str,
    /// Words of the resulting error.
    broken: &'static [&'static str],
}

const PYTHON: Author = Author {
    language: "python",
    file: "src/answer.py",
    says: |text| {
        format!(
            "import modhost\nfrom modhost import ModuleChosen, messages\n\n@modhost.module\ndef answer(event: ModuleChosen) -> None:\n    messages.reply('{text}')\n"
        )
    },
    helper: (
        "src/words.py",
        |text| format!("TEXT = '{text}'\n"),
        "import modhost\nimport words\nfrom modhost import ModuleChosen, messages\n\n@modhost.module\ndef answer(event: ModuleChosen) -> None:\n    messages.reply(words.TEXT)\n",
    ),
    breaks: "import modhost\nfrom modhost import ModuleChosen\n\n@modhost.module\ndef answer(event: ModuleChosen) -> None:\n    event.user_message.text[500]\n",
    broken: &[
        "IndexError: string index out of range (answer.py, line 6, in answer)",
        "File \"answer.py\", line 6, in answer",
        "event.user_message.text[500]",
    ],
};

const JAVASCRIPT: Author = Author {
    language: "javascript",
    file: "src/answer.js",
    says: |text| {
        format!(
            "import {{ defineModule, messages }} from \"@modhost/sdk\";\n\nexport const handle = defineModule({{\n  moduleChosen() {{\n    messages.reply(\"{text}\");\n  }},\n}});\n"
        )
    },
    helper: (
        "src/words.js",
        |text| format!("export const TEXT = '{text}';\n"),
        "import { defineModule, messages } from \"@modhost/sdk\";\nimport { TEXT } from \"./words.js\";\n\nexport const handle = defineModule({\n  moduleChosen() {\n    messages.reply(TEXT);\n  },\n});\n",
    ),
    breaks: "import { defineModule, messages } from \"@modhost/sdk\";\n\nexport const handle = defineModule({\n  moduleChosen({ userMessage }) {\n    const nothing = null;\n    messages.reply(nothing.text);\n  },\n});\n",
    broken: &["TypeError: cannot read property 'text' of null", "at moduleChosen (src/answer.js:6:"],
};

#[tokio::test]
async fn python() {
    if let Some(tools) = toolchains::find(Toolchain::Python, "what `dev` builds of Python") {
        let mine = Mine::build(&PYTHON, tools).await;
        let host = mine.serves_each_saved_source().await;
        // A library that isn't in the component requires a new component.
        let source = (PYTHON.says)("text").replace("'text'", "str(colorsys.rgb_to_hls(0, 0, 0)[1])");
        host.save(&mine.path(PYTHON.file), format!("import colorsys\n{source}"));
        answers(&host, "0.0").await;
        assert!(!mine.has_sources(&host), "the new source imports a library that the component lacks");
        mine.build_makes_the_complete_component(host).await;
    }
}

#[tokio::test]
async fn javascript() {
    if let Some(tools) = toolchains::find(Toolchain::JavaScript, "what `dev` builds of JavaScript") {
        let mine = Mine::build(&JAVASCRIPT, tools).await;
        let host = mine.serves_each_saved_source().await;
        mine.build_makes_the_complete_component(host).await;
    }
}

/// The module and its tools.
struct Mine {
    author: &'static Author,
    tools: Vec<PathBuf>,
    folder: std::cell::RefCell<Option<tempfile::TempDir>>,
    /// The user's cache, in which `build` keeps the base components for `dev`.
    cache: tempfile::TempDir,
}

impl Mine {
    async fn build(author: &'static Author, tools: Vec<PathBuf>) -> Self {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = folder.path().to_owned();
        succeeds(modhost(&at, &["new", NAME, "--lang", author.language], &tools));
        if at.join("mine/package-lock.json").is_file() {
            // The packages are required: the toolchain was found a moment ago.
            assert!(toolchains::install_packages(&at.join("mine"), "`dev` builds"));
        }
        fs::write(at.join("mine").join(author.file), (author.says)("one")).unwrap();
        let mine = Self { author, tools, folder: std::cell::RefCell::new(Some(folder)), cache };
        mine.builds(&at);
        mine
    }

    fn builds(&self, folder: &Path) {
        succeeds(modhost(folder, &["build", NAME], &self.tools).env("XDG_CACHE_HOME", self.cache.path()));
    }

    fn path(&self, file: &str) -> String {
        format!("mine/{file}")
    }

    fn has_sources(&self, host: &Host) -> bool {
        let component = fs::read(host.file("mine/module.wasm")).unwrap();
        component.windows(SECTION.len()).any(|window| window == SECTION)
    }

    async fn serves_each_saved_source(&self) -> Host {
        let folder = self.folder.borrow_mut().take().unwrap();
        let path = toolchains::path_with(&self.tools);
        let variables = [("PATH", path.to_str().unwrap()), ("XDG_CACHE_HOME", self.cache.path().to_str().unwrap())];
        let host = Host::dev_building(folder, &variables).await;
        // `build` has built and compiled it.
        answers(&host, "one").await;
        host.logged(&["component is up to date"]).await;
        host.logged(&["compiled component loaded from the cache"]).await;
        let again =
            ["building module", "component compiled", "baseline code compiled"].map(|words| host.lines(&[words]));
        assert_eq!(again, [0; 3], "{}", host.log());
        assert!(!self.has_sources(&host));

        let author = self.author;
        host.save(&self.path(author.file), (author.says)("two"));
        answers(&host, "two").await;
        assert!(self.has_sources(&host));
        // The component that evaluates JavaScript is compiled once.
        let compiled = host.lines(&["baseline code compiled"]);

        host.save(&self.path(author.helper.0), (author.helper.1)("three"));
        host.save(&self.path(author.file), author.helper.2);
        answers(&host, "three").await;
        host.save(&self.path(author.helper.0), (author.helper.1)("four"));
        answers(&host, "four").await;
        host.save(&self.path(author.file), author.breaks);
        for said in author.broken {
            fails_with(&host, said).await;
        }
        assert_eq!(
            host.lines(&["baseline code compiled"]),
            compiled,
            "the component was compiled again:\n{}",
            host.log()
        );
        host
    }

    /// The component left by `dev` also runs elsewhere, until `build` makes the complete one.
    async fn build_makes_the_complete_component(&self, host: Host) {
        host.save(&self.path(self.author.file), (self.author.says)("five"));
        answers(&host, "five").await;
        let folder = host.kill();
        let tests = folder.path().join("mine/tests");
        fs::remove_dir_all(&tests).unwrap();
        fs::create_dir(&tests).unwrap();
        fs::write(tests.join("one.toml"), "text = \"Hello\"\n[expect]\nreply = \"five\"\n").unwrap();
        let tested = succeeds(modhost(folder.path(), &["test", "--no-build"], &self.tools));
        assert!(tested.contains("1 passed, 0 failed"), "{tested}");
        self.builds(folder.path());
        let component = fs::read(folder.path().join("mine/module.wasm")).unwrap();
        assert!(!component.windows(SECTION.len()).any(|window| window == SECTION));
        let tested = succeeds(modhost(folder.path(), &["test", "--no-build"], &self.tools));
        assert!(tested.contains("1 passed, 0 failed"), "{tested}");
    }
}

/// Waits until the module replies with this text. On a busy machine making a component takes a minute.
async fn answers(host: &Host, text: &str) {
    const PATIENCE: Duration = Duration::from_secs(600);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = chat(host, NAME, "Hello").await;
        if answer.text() == text {
            return;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {text}, not {}:\n{}", answer.text(), host.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until `deliveries show` contains these words for a failed delivery.
async fn fails_with(host: &Host, said: &str) {
    const PATIENCE: Duration = Duration::from_secs(600);
    let deadline = Instant::now() + PATIENCE;
    loop {
        chat(host, NAME, "Hello").await;
        let list = deliveries(host, &["list", "--state", "dead", "--json"]).await;
        for line in list.lines() {
            let id = serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
            if deliveries(host, &["show", &id]).await.contains(said) {
                return;
            }
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {said:?}:\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn deliveries(host: &Host, args: &[&str]) -> String {
    let ran = command(host.folder(), "deliveries", &[&["--admin", host.admin.as_str()], args].concat(), &[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout
}
