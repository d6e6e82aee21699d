//! Tests of `modhost test`: tests that pass, fail, can't run, are recorded and updated; and the backtrace of a guest
//! that traps.

use std::fs;
use std::path::Path;

use quick_junit::Report;
use tempfile::TempDir;

use super::harness::{
    CommandOutput, Host, Settings, Signal, bare, chat, chosen, component, modhost, say, signal, signed_post,
    test_guest_with_names, until,
};

/// The compile cache is kept between tests.
const CACHE: (&str, &str) = ("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));

/// Runs `modhost test --no-build` in a folder.
async fn test(folder: &Path, args: &[&str]) -> CommandOutput {
    modhost(folder, "test", &[&["--no-build"], args].concat(), &[CACHE]).await
}

/// A folder with a modules.toml and these test files.
fn folder(settings: &Settings, tests: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.toml"), settings.text()).unwrap();
    fs::create_dir(folder.path().join("tests")).unwrap();
    for (name, text) in tests {
        fs::write(folder.path().join(format!("tests/{name}.toml")), text).unwrap();
    }
    folder
}

/// Runs a single test with this text.
async fn one(text: &str) -> CommandOutput {
    let folder = folder(&Settings::test_guest(""), &[("one", text)]);
    test(folder.path(), &[]).await
}

async fn passes(text: &str) {
    let ran = one(text).await;
    assert_eq!(ran.code, 0, "{text}\n{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("test one ... ok") && ran.stdout.contains("1 passed, 0 failed"), "{ran:?}");
}

async fn fails(text: &str, words: &[&str]) {
    let ran = one(text).await;
    assert_eq!(ran.code, 1, "{text}\n{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("test one ... FAILED") && ran.stdout.contains("0 passed, 1 failed"), "{ran:?}");
    for word in words {
        assert!(ran.stdout.contains(word), "no {word:?} in:\n{}", ran.stdout);
    }
}

/// The hosts that the module may send requests to.
const SERVICES: &str = r#"http = ["bank.example.com", "crm.example.com", "shop.example.com"]"#;

#[tokio::test]
async fn shipped_modules_pass_their_tests() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let settings = [
        ("Assistant", "assistant", "assistant", ""),
        ("DemoApp", "demo_app", "demo-app", r#"config = { greeting = "Hello" }"#),
        ("ChatLog", "chat_log", "chat-log", r#"events = ["unique.chat.user-message.created"]"#),
        ("NexusRelay", "nexus_relay", "nexus-relay", r#"events = ["MESSAGE_FINALIZED"]"#),
        ("DocumentNotes", "document_notes", "document-notes", r#"events = ["document.*"]"#),
        ("ServiceStatus", "service_status", "service-status", SERVICES),
    ];
    let settings = settings.into_iter().fold(Settings::new(), |settings, (name, built, source, lines)| {
        let watch = plugins.join(source).join("src");
        settings.module(name, built, &format!("watch = [{watch:?}]\n{lines}"))
    });
    let folder = folder(&settings, &[]);
    let ran = test(folder.path(), &[]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("ok: 11 passed, 0 failed"), "{}", ran.stdout);
    assert!(!folder.path().join(".modhost").exists(), "`modhost test` created a data directory");

    let ran = test(folder.path(), &["ChatLog", "DemoApp", "--filter", "echo"]).await;
    assert!(ran.stdout.contains("test echo ... ok") && ran.stdout.contains("ok: 1 passed"), "{ran:?}");
}

#[tokio::test]
async fn test_file_defines_answers_and_stored_values() {
    passes("text = 'now'\ntime = 2026-02-03T04:05:06Z\n[expect]\nreply = '1770091506000'").await;
    passes("text = 'config greeting'\nconfig = { greeting = 'Hi' }\n[expect]\nreply = { contains = 'Hi' }").await;
    passes("text = 'kv-count k 2'\n[keyvalue.default]\nk = '40'\n[expect]\nreply = '42'\nkeyvalue.default.k = '42'")
        .await;
    passes("text = 'complete why'\n[[completion]]\nfor = 'why'\ntext = 'because'\n[expect]\nreply = 'because'").await;
    passes("text = 'stream why'\n[[completion]]\ntext = 'because'\n[expect]\nreply = 'because'").await;
    passes("text = 'stream why'\n[[completion]]\npieces = ['be', '', 'cause']\n[expect]\nreply = 'be|cause'").await;
    passes("text = 'complete why'\n[[completion]]\npieces = ['be', 'cause']\n[expect]\nreply = 'because'").await;
    let broken = "[[completion]]\npieces = ['be']\nerror = 'unavailable'\n[expect]\n";
    passes(&format!("text = 'stream-caught why'\n{broken}reply = {{ matches = 'be|*unavailable*' }}")).await;
    passes(&format!("text = 'complete why'\n{broken}failure = 'unavailable'")).await;
    let failure = "failure = { reason = 'rate limited', retry = '30s' }\nnot_called = ['messages.reply']";
    let error = "{ kind = 'rate-limited', after = '30s' }";
    passes(&format!("text = 'search x'\n[[search]]\nerror = {error}\n[expect]\n{failure}")).await;
    let history = "[[history]]\nrole = 'assistant'\ntext = 'before'\n";
    passes(&format!("text = 'history'\n{history}[expect]\nreply = {{ matches = '*before*history*' }}")).await;
    let refused = "[[answer]]\ncall = 'messages.create'\nerror = 'denied'\n";
    passes(&format!("text = 'create x'\n{refused}[expect]\nfailure = 'not allowed'\nmessages = []")).await;
    passes(
        "text = 'fail-with-text why|sorry'\n[expect]\nfailure = { reason = 'why', user_text = 'sorry', retry = 'no' }",
    )
    .await;
    passes("text = 'loop'\n[expect]\nfailure = 'limit reached: cpu'\nreply = false").await;
    passes("text = 'step-and reply x'\n[expect]\nsteps = ['Working…']").await;
    passes("text = 'step-and fail x'\n[expect]\nfailure = 'x'\nsteps = [{ text = 'Working…', status = 'failed' }]")
        .await;

    let random = "text = 'random'\n";
    let reply = |ran: CommandOutput| {
        let (_, after) = ran.stdout.split_once("found").expect("a difference");
        after.lines().next().unwrap_or_default().to_owned()
    };
    let draw = async |chance: u32| reply(one(&format!("{random}chance = {chance}\n[expect]\nreply = 'x'")).await);
    assert_eq!(draw(1).await, draw(1).await, "random numbers must be deterministic");
    assert_ne!(draw(1).await, draw(2).await);
}

#[tokio::test]
async fn mismatches_are_reported_with_their_line() {
    let text = "text = \"step-and reply a\\nb\"\n\n[expect]\n";
    fails(
        &format!("{text}reply = \"\"\"\na\nc\"\"\""),
        &["tests/one.toml:4: mismatch in the reply", "    a\n  - c\n  + b"],
    )
    .await;
    fails(
        &format!("{text}steps = []"),
        &["tests/one.toml:4: mismatch in the steps", "expected  (none)", "found     completed  Working…"],
    )
    .await;
    fails(
        &format!("{text}calls = [{{ call = \"search.search\" }}, {{ call = \"messages.reply\", text = \"x\" }}]"),
        &["the calls", "- search.search", "- messages.reply  text = \"x\"", "+ messages.reply  text = \"a\\nb\""],
    )
    .await;
    fails(
        &format!("{text}not_called = [\"messages.reply\"]"),
        &["expected  no messages.reply", "found     messages.reply"],
    )
    .await;
    fails(&format!("{text}log = [\"x\"]"), &["a text that contains \"x\"", "(no log lines)"]).await;
    fails(&format!("{text}failure = \"x\""), &["expected  a failure", "found     the module answered"]).await;
    fails("text = 'fail a'\n[expect]\nfailure = 'b'", &["the failure's reason", "found     a"]).await;
    fails("text = 'fail a'", &["the module failed: a"]).await;
    fails("text = 'nothing'", &["it returned ok but never wrote a reply"]).await;
    fails("text = 'kv-set k v'\n[expect.keyvalue.default]\nk = 'w'", &["the value of k in default", "\"v\""]).await;
}

#[tokio::test]
async fn missing_answers_are_reported_with_the_lines_to_add() {
    fails("text = 'search travel'", &["the module searches for \"travel\"", "[[search.hits]]\ntitle = "]).await;
    fails("text = 'complete why'", &["the module requests a completion for \"why\"", "[[completion]]\ntext = "]).await;
    let used_up = "text = 'complete why'\n[[completion]]\nfor = 'something else'\ntext = 'x'";
    fails(used_up, &["the test has no answer left for it"]).await;
}

#[tokio::test]
async fn answers_requests_only_to_allowed_hosts() {
    let ask = |answers: &str| {
        let services = r#"{ "Bank": "https://bank.example.com/rates" }"#;
        format!("text = 'How are they?'\nconfig = {{ services = '{services}' }}\n{answers}")
    };
    let ran = async |http: &str, text: &str| {
        let settings = Settings::new().module("ServiceStatus", "service_status", http);
        test(folder(&settings, &[("one", text)]).path(), &[]).await
    };
    let answered = ask("[[http]]\nstatus = 503\n[expect]\nreply = { contains = 'error (503)' }");
    let ran_well = ran(SERVICES, &answered).await;
    assert_eq!(ran_well.code, 0, "{ran_well:?}");

    // Answers are matched by URL, whatever the order of the requests.
    let both = r#"{ "Bank": "https://bank.example.com/rates", "Shop": "https://shop.example.com/" }"#;
    let by_address = format!(
        "text = 'How are they?'\nconfig = {{ services = '{both}' }}\n[[http]]\nfor = 'shop.example.com'\nstatus = 503\n\
         [[http]]\nfor = 'GET https://bank.example.com/'\nalways = true\n[expect]\nreply = {{ matches = '*Bank*up (200)*Shop*error (503)' }}"
    );
    let by_address = ran(SERVICES, &by_address).await;
    assert_eq!(by_address.code, 0, "{by_address:?}");

    let closed = ran(r#"http = ["shop.example.com"]"#, &answered).await;
    let words = "`GET https://bank.example.com/rates` is not allowed: add \"bank.example.com\" to `http` of the module";
    assert!(closed.code == 1 && closed.stdout.contains(words), "{closed:?}");
    let refused = ask("[expect]\nreply = { contains = 'is not an allowed host' }");
    let refused = ran(r#"http = ["shop.example.com"]"#, &refused).await;
    assert_eq!(refused.code, 0, "{refused:?}");

    let forgotten = ran(SERVICES, &ask("")).await;
    assert_eq!(forgotten.code, 1, "{forgotten:?}");
    for words in
        ["the module sends `GET https://bank.example.com/rates`", "no response left for it; add:", "[[http]]\n"]
    {
        assert!(forgotten.stdout.contains(words), "no {words:?} in:\n{}", forgotten.stdout);
    }
}

#[tokio::test]
async fn invalid_test_files_are_explained() {
    let cases = [
        ("txt = 'x'", &["unknown setting `txt`", "did you mean text?"][..]),
        ("", &["this test has no event", "text = "]),
        ("text = 'x", &["one.toml:1:", "invalid TOML"]),
        ("text = 'x'\nevent = 'e.json'", &["one.toml:2:9", "this test has both `text` and `event`"]),
        ("event = 'missing.json'", &["cannot read tests/missing.json"]),
        ("text = 'x'\n[[completion]]\ntext = 'a'\npieces = ['b']", &["one.toml:4:10", "remove one of the two"]),
        ("text = 'x'\n[[search]]\nerror = 'timout'", &["one.toml:3:9", "did you mean timeout?"]),
        ("text = 'x'\n[expect]\nreply = { contain = 'x' }", &["did you mean contains?"]),
        ("text = 'x'\n[expect]\nreply = 3", &["`reply` must be a text", "{ contains = "]),
        ("text = 'x'\n[expect]\ncalls = [{ call = 'search' }]", &["unknown call \"search\"", "search.search"]),
        ("text = 'x'\ntime = 'noon'", &["`time` must be a time", "2026-01-31T08:00:00Z"]),
        ("[event]\nname = 'other'", &["Test would not receive this event", "the event's name is `other`"]),
    ];
    for (text, words) in cases {
        let ran = one(text).await;
        let all_output = format!("{}{}", ran.stdout, ran.stderr);
        let is_event = text.starts_with("[event]");
        assert_eq!(ran.code, if is_event { 1 } else { 2 }, "{text}\n{all_output}");
        words.iter().for_each(|word| assert!(all_output.contains(word), "no {word:?} for {text:?} in:\n{all_output}"));
    }

    let folder = folder(&Settings::test_guest(""), &[("wrong", "txt = 'x'"), ("right", "text = 'reply x'")]);
    let ran = test(folder.path(), &[]).await;
    assert!(ran.code == 2 && ran.stdout.contains("1 passed, 0 failed, 1 not run"), "the others run: {ran:?}");
    for (args, words) in
        [(&["Tst"][..], "did you mean Test?"), (&["--filter", "nothing"], "no test has \"nothing\" in its name")]
    {
        let ran = test(folder.path(), args).await;
        assert!(ran.code == 2 && ran.stderr.contains(words), "{ran:?}");
    }
    fs::remove_dir_all(folder.path().join("tests")).unwrap();
    let ran = test(folder.path(), &[]).await;
    assert!(ran.code == 2 && ran.stderr.contains("there are no tests") && ran.stderr.contains("text = "), "{ran:?}");
}

#[tokio::test]
async fn guest_output_contains_no_terminal_escapes() {
    let text = r#"text = "stderr \u001b[31mred""#;
    let ran = one(&format!("{text}\n[expect]\nlog = [\"x\"]\nreply = \"\"")).await;
    assert!(ran.code == 1 && ran.stdout.contains(r"\u{1b}[31mred"), "{ran:?}");
    assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{ran:?}");
}

#[tokio::test]
async fn update_removes_a_failure_that_does_not_occur() {
    let tests = [
        (
            "line",
            "text = 'reply x'\n[expect]\nfailure = { retry = 'yes' } # it is down\nsteps = []\n",
            "text = 'reply x'\n[expect]\nreply = \"x\"\nsteps = []\n",
        ),
        (
            "last",
            "text = 'reply x'\n[expect]\nreply = 'y'\nfailure = 'z'",
            "text = 'reply x'\n[expect]\nreply = \"x\"\n",
        ),
        (
            "table",
            "text = 'reply x'\n[expect.failure]\nretry = 'yes'\n[expect.keyvalue.a]\nb = false\n",
            "text = 'reply x'\n[expect.keyvalue.a]\nb = false\n",
        ),
    ];
    let folder = folder(&Settings::test_guest(""), &tests.map(|(name, before, _)| (name, before)));
    let ran = test(folder.path(), &["--update"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("ok: 0 passed, 0 failed, 3 updated"), "{ran:?}");
    for (name, _, after) in tests {
        assert_eq!(fs::read_to_string(folder.path().join(format!("tests/{name}.toml"))).unwrap(), after);
    }
    let again = test(folder.path(), &[]).await;
    assert!(again.code == 0 && again.stdout.contains("3 passed"), "{again:?}");
    // If an update can't be placed automatically, the user is asked to edit the file.
    let folder = super::testing::folder(
        &Settings::test_guest(""),
        &[("one", "text = 'reply x'\nexpect.failure.retry = 'yes'\n")],
    );
    let ran = test(folder.path(), &["--update"]).await;
    assert!(ran.code == 1 && ran.stdout.contains("mismatch in the outcome"), "{ran:?}");
}

#[tokio::test]
async fn update_rewrites_only_mismatches() {
    let before = r#"# why this is tested
text = "step-and reply b" # what is said

[expect]  # from here on
reply = 'a'   # the reply
calls = [
  { call = "message-log.entry.create" },     # the step
  { call = "messages.reply", text = "a" },   # and the answer
]
# the steps
steps = [
  "Done",     # not so
]
"#;
    let after = before
        .replace("reply = 'a' ", "reply = \"b\" ")
        .replace("text = \"a\" }", "text = \"b\" }")
        .replace("\"Done\",", "\"Working…\",");
    let tests = [("changed", before), ("new", "text = 'reply x'\n"), ("broken", "text = 'fail y'\n")];
    let folder = folder(&Settings::test_guest(""), &tests);
    let read = |name: &str| fs::read_to_string(folder.path().join(format!("tests/{name}.toml"))).unwrap();
    let ran = test(folder.path(), &["--update"]).await;
    assert_eq!(read("changed"), after, "{}", ran.stdout);
    assert_eq!(read("new"), "text = 'reply x'\n\n[expect]\nreply = \"x\"\n");
    assert_eq!(read("broken"), "text = 'fail y'\n", "a failure is never what was meant");
    assert!(ran.code == 1 && ran.stdout.contains("test changed ... updated"), "{ran:?}");
    assert!(ran.stdout.contains("0 passed, 1 failed, 2 updated"), "{ran:?}");
    let again = test(folder.path(), &[]).await;
    assert!(again.stdout.contains("2 passed, 1 failed"), "{}", again.stdout);
}

#[tokio::test]
async fn junit_report_is_valid() {
    let tests =
        [("good", "text = 'stdout hello'"), ("failing", "text = \"fail <&> \\u0001 why\""), ("wrong", "txt = 1")];
    let folder = folder(&Settings::test_guest(""), &tests);
    let ran = test(folder.path(), &["--junit", "report.xml"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    let report = fs::read_to_string(folder.path().join("report.xml")).unwrap();
    let report = Report::deserialize_from_str(&report).unwrap_or_else(|error| panic!("{error}:\n{report}"));
    assert_eq!((report.tests, report.failures, report.errors), (3, 1, 1));
    let suite = &report.test_suites[0];
    assert_eq!(suite.name.as_str(), "Test");
    let names: Vec<_> = suite.test_cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["failing", "good", "wrong"]);
    assert!(suite.test_cases[1].system_out.as_ref().unwrap().as_str().contains("hello"));
}

#[tokio::test]
async fn builds_outdated_components_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("module/tests")).unwrap();
    fs::write(path("module/source"), "").unwrap();
    fs::write(path("module/tests/one.toml"), "text = 'reply x'").unwrap();
    let file = component("test_guest");
    let build =
        format!("build = \"echo >> builds; test ! -e broken && cp {} m.wasm\"\nwatch = [\"module\"]", file.display());
    let settings = Settings::new().module_file("Test", "m.wasm", &build);
    fs::write(path("modules.toml"), settings.text()).unwrap();
    let builds = || fs::read_to_string(path("builds")).unwrap().lines().count();

    let ran = modhost(folder.path(), "test", &[], &[CACHE]).await;
    assert!(ran.code == 0 && ran.stderr.contains("building Test: "), "{ran:?}");
    assert_eq!(
        (modhost(folder.path(), "test", &[], &[CACHE]).await.code, builds()),
        (0, 1),
        "the component is up to date"
    );
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    fs::File::options().append(true).open(path("module/source")).unwrap().set_modified(later).unwrap();
    fs::write(path("broken"), "").unwrap();
    let ran = modhost(folder.path(), "test", &[], &[CACHE]).await;
    assert!(
        ran.code == 2 && ran.stderr.contains("error: cannot build module Test: the build command failed"),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("NOT RUN") && ran.stdout.contains("its module cannot be built"), "{ran:?}");
    assert_eq!((test(folder.path(), &[]).await.code, builds()), (0, 2), "--no-build runs the existing component");
}

/// Records the newest completed delivery as a test.
async fn record(host: &Host, args: &[&str]) -> CommandOutput {
    let all = [&["--admin", host.admin.as_str(), "--record", "last"], args].concat();
    modhost(host.folder(), "test", &all, &[CACHE]).await
}

/// Waits until this many deliveries have ended.
async fn ended(host: &Host, count: usize) {
    until(&format!("{count} deliveries to end"), async || {
        let args = ["list", "--json", "--admin", &host.admin];
        let listed = modhost(host.folder(), "deliveries", &args, &[]).await.stdout;
        (listed.lines().filter(|line| !line.contains("\"ended_at\":null")).count() >= count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn recorded_tests_pass() {
    let host = Settings::test_guest("").start().await;
    let commands = [
        "kv-count k 3",
        "kv-count k 3",
        "kv-get k",
        "kv-get nothing",
        "kv-keys",
        "kv-swap k 6 7",
        "search travel",
        "search-page 2 travel",
        "complete travel policy",
        "complete-into-reply travel policy",
        "stream travel policy",
        "history",
        "event",
        "now",
        "create hello",
        "step look",
        "fail why",
        "panic at the disco",
        "step-and reply two\nlines \"quoted\" \\",
    ];
    for (place, text) in commands.iter().enumerate() {
        chat(&host, "Test", text).await;
        ended(&host, place + 1).await;
        let ran = record(&host, &[]).await;
        assert!(ran.code == 0 && ran.stderr.contains("the test passes"), "{text}: {ran:?}");
    }
    let ran = test(host.folder(), &[]).await;
    assert!(
        ran.code == 0 && ran.stdout.contains(&format!("{} passed", commands.len())),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    let short = fs::read_to_string(host.folder().join("tests/kv-get-k.toml")).unwrap();
    assert!(short.contains("text = \"kv-get k\"") && short.contains("[keyvalue.default]\nk = \"6\""), "{short}");
    assert!(host.folder().join("tests/kv-count-k-3-2.toml").exists(), "an existing test was overwritten");

    let printed = record(&host, &["Test", "--out", "-"]).await;
    assert!(printed.stdout.starts_with("# Recorded from delivery dlv_"), "{printed:?}");
    let nobody = record(&host, &["Nobody"]).await;
    assert!(nobody.code == 1 && nobody.stderr.contains("no delivery has ended yet"), "{nobody:?}");
}

#[tokio::test]
async fn records_offline_without_secrets() {
    let mut host = Settings::test_guest("").start().await;
    let mut event = chosen("evt_1", "Test", "reply hi");
    event["payload"]["configuration"] = serde_json::json!({ "apiKey": "sk-sesame", "tone": "dry" });
    assert!(signed_post(&host.webhook, event.to_string()).await.status().is_success());
    ended(&host, 1).await;
    host.stop().await;
    let data = host.folder().join(".modhost");
    let args = ["--data-dir", data.to_str().unwrap(), "--record", "last", "--out", "recorded.toml"];
    let ran = modhost(host.folder(), "test", &args, &[CACHE]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = fs::read_to_string(host.folder().join("recorded.toml")).unwrap();
    assert!(text.contains("apiKey = \"redacted\"") && text.contains("tone = \"dry\""), "{text}");
    assert!(!text.contains("sesame"), "{text}");
}

#[tokio::test]
async fn backtrace_has_function_names_and_lines() {
    let file = test_guest_with_names();
    let settings = Settings::new().module_file("Test", file.to_str().unwrap(), "");
    let text = "text = 'panic at the disco'";
    let folder = folder(&settings, &[("named", text)]);
    let ran = test(folder.path(), &[]).await;
    let frame = ran.stdout.lines().find(|line| line.contains("endings.rs:") && line.starts_with("at "));
    let frame = frame.unwrap_or_else(|| panic!("no frame in:\n{}", ran.stdout));
    assert!(frame.contains("{closure") && frame.contains("(guest/src/endings.rs:"), "{frame}");
    assert!(ran.stdout.contains("\nat test_guest::run (guest/src/lib.rs:"), "{}", ran.stdout);
    assert!(ran.stdout.contains("panicked at") && ran.stdout.contains("at the disco"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("at abort") && !ran.stdout.contains("at std::"), "{}", ran.stdout);

    fails(text, &["the component has no names of its functions", "debug = \"line-tables-only\""]).await;
}

#[tokio::test]
async fn dev_shows_a_failure_with_its_event() {
    let host = Settings::test_guest(r#"events = ["unique.chat.user-message.created"]"#).start().await;
    say(&host.platform, "Test", "hear panic \u{1b}[31mred\n✗ Forged failed").await;
    let output = until("the failure to be shown", async || {
        let output = host.output();
        output.contains("deliveries show dlv_").then_some(output)
    })
    .await;
    assert!(output.contains("✗ Test failed  dlv_"), "{output}");
    assert!(output.contains("event  \"hear panic  [31mred ✗ Forged failed\""), "{output}");
    assert!(output.contains("reason trap: ") && output.contains("│ ✗ Forged failed"), "{output}");
    assert!(output.contains("│ info  test_guest user-message-created hear panic"), "{output}");
    assert_eq!(output.matches("panicked at").count(), 1, "the output repeats the reason: {output}");
    assert!(!output.contains('\u{1b}') && !output.lines().any(|line| line.starts_with("✗ Forged")), "{output}");
}

#[tokio::test]
async fn watch_reruns_changed_tests() {
    let folder = folder(&Settings::test_guest(""), &[("one", "text = 'reply x'\n[expect]\nreply = 'y'")]);
    let output = fs::File::create(folder.path().join("output")).unwrap();
    let mut watching = bare("test", folder.path());
    let mut watching = watching.args(["--no-build", "--watch"]).env(CACHE.0, CACHE.1).stdout(output).spawn().unwrap();
    let wait_for_output = async |words: &str| {
        until(words, async || fs::read_to_string(folder.path().join("output")).unwrap().contains(words).then_some(()))
            .await;
    };
    wait_for_output("waiting for changes").await;
    wait_for_output("0 passed, 1 failed").await;
    fs::write(folder.path().join("tests/one.toml"), "text = 'reply x'\n[expect]\nreply = 'x'").unwrap();
    wait_for_output("1 passed, 0 failed").await;
    signal(watching.id(), Signal::TERM);
    assert!(watching.wait().unwrap().success(), "`--watch` exits on the signal");
}
