//! Authentication, routes and error responses.

use modhost_emulator::{API_KEY, APP_ID, COMPANY_ID, LocalError, LocalPlatform, LocalSettings, USER_ID};
use reqwest::Method;
use serde_json::json;

use crate::help::{Local, answer, assistant, error, settings, text};

const HEADERS: [(&str, &str, u16); 4] = [
    ("authorization", "Bearer ukey_local", 401),
    ("x-app-id", APP_ID, 401),
    ("x-company-id", COMPANY_ID, 403),
    ("x-user-id", USER_ID, 403),
];

#[tokio::test]
async fn requires_each_credential_to_be_correct() {
    assert_eq!(HEADERS[0].1, format!("Bearer {API_KEY}"));
    let local = Local::start(settings()).await;
    for (broken, right, status) in HEADERS {
        for sent in [None, Some("wrong")] {
            let mut request = local.bare(Method::GET, "/public/chat/space");
            for (name, value, _) in HEADERS {
                let value = if name == broken { sent } else { Some(value) };
                request = value.into_iter().fold(request, |request, value| request.header(name, value));
            }
            let message = error(answer(request).await, status);
            assert!(message.to_lowercase().contains(broken), "{message}");
            let known = right.trim_start_matches("Bearer ");
            assert!(message.contains(known), "the message names the correct value: {message}");
        }
    }
}

#[tokio::test]
async fn model_calls_need_no_user() {
    let local = Local::start(settings()).await;
    let ask = || {
        let request = local.bare(Method::GET, "/public/openai/models").bearer_auth(API_KEY);
        request.header("x-app-id", APP_ID).header("x-company-id", COMPANY_ID)
    };
    assert_eq!(answer(ask()).await, (200, json!({ "models": ["local-quote"] })));
    error(answer(ask().header("x-user-id", "user_other")).await, 403);
}

#[tokio::test]
async fn every_route_exists_under_both_prefixes() {
    let local = Local::start(settings()).await;
    for prefix in ["/public", "/public/chat"] {
        // Without credentials an existing path returns 401, any other 404.
        for (method, path) in [
            (Method::POST, "/message-log"),
            (Method::PATCH, "/message-log/x"),
            (Method::POST, "/search/search"),
            (Method::POST, "/search/search-string"),
            (Method::POST, "/openai/chat/completions"),
            (Method::GET, "/openai/models"),
            (Method::POST, "/openai/embeddings"),
            (Method::POST, "/messages"),
            (Method::GET, "/messages"),
            (Method::GET, "/messages/x"),
            (Method::PATCH, "/messages/x"),
            (Method::DELETE, "/messages/x"),
            (Method::POST, "/messages/x/event"),
            (Method::POST, "/integrated/chat/stream-completions"),
            (Method::POST, "/space/message"),
            (Method::POST, "/space/chat"),
            (Method::PATCH, "/space/chat/x"),
            (Method::DELETE, "/space/chat/x"),
            (Method::GET, "/space/chat/x/messages"),
            (Method::GET, "/space/x/messages/latest"),
            (Method::GET, "/space/x"),
            (Method::GET, "/space"),
        ] {
            error(answer(local.bare(method, &format!("{prefix}{path}"))).await, 401);
        }
        let message = error(answer(local.bare(Method::GET, &format!("{prefix}/nothing"))).await, 404);
        assert!(message.contains("/nothing"), "{message}");
    }
}

#[tokio::test]
async fn wrong_method_lists_allowed_methods() {
    let local = Local::start(settings()).await;
    let response = local.request(Method::PUT, "/messages").send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "GET,HEAD,POST");
}

#[tokio::test]
async fn invalid_body_is_rejected_with_the_field_name() {
    let local = Local::start(settings()).await;
    for (path, body, words) in [
        ("/messages", "", "not JSON"),
        ("/messages", "{", "not JSON"),
        ("/messages", "[]", "the body is invalid"),
        ("/messages", "{}", "chatId"),
        ("/message-log", r#"{"messageId": 5}"#, "messageId"),
        ("/message-log", r#"{"messageId": "m", "text": "t", "status": "DONE", "order": 1}"#, "status"),
        ("/search/search", r#"{"searchString": "x", "searchType": "COMBINED", "scopeIds": [1]}"#, "scopeIds[0]"),
        ("/search/search", r#"{"searchString": "", "searchType": "COMBINED"}"#, "searchString"),
        ("/openai/chat/completions", r#"{"messages": [{"role": "user"}, {"content": "x"}]}"#, "role"),
        ("/space/message", r#"{"text": "x"}"#, "assistantId"),
        ("/integrated/chat/stream-completions", r#"{"chatId": "c"}"#, "assistantId"),
    ] {
        let message = error(answer(local.request(Method::POST, path).body(body)).await, 400);
        assert!(message.contains(words), "{path} {body}: {message}");
    }
}

#[tokio::test]
async fn rejects_a_body_that_is_too_large() {
    let local = Local::start(settings()).await;
    let body = format!(r#"{{"text": "{}"}}"#, "x".repeat(17 * 1024 * 1024));
    error(answer(local.request(Method::POST, "/messages").body(body)).await, 413);
}

#[tokio::test]
async fn health_and_assistants_need_no_credentials() {
    let local = Local::start(settings()).await;
    assert_eq!(answer(local.bare(Method::GET, "/health")).await, (200, json!({ "status": "ok" })));
    let hello = local.bare(Method::GET, "/").send().await.unwrap().text().await.unwrap();
    assert!(hello.contains("modhost send") && hello.contains("/local/chats"), "{hello}");
    let assistants = local.local("/assistants").await;
    let ids: Vec<String> = assistants.as_array().unwrap().iter().map(|assistant| text(&assistant["id"])).collect();
    assert_eq!(ids, ["assistant_Answering", "assistant_Listening"]);
    assert!(local.platform.api_base().as_str().ends_with("/public/chat"));
}

/// The credentials are public, so a page can send them; only the headers that browsers add distinguish a page from a
/// program.
#[tokio::test]
async fn rejects_web_pages_with_valid_credentials() {
    let hosts = vec!["dev.example.com".parse().unwrap()];
    let local = Local::start(LocalSettings { hosts, ..settings() }).await;
    let (chat, ..) = local.chat().await;
    let calls = [
        (Method::GET, "/public/chat/space".to_owned()),
        (Method::GET, format!("/public/chat/space/chat/{chat}/messages")),
        (Method::POST, "/public/chat/space/message".to_owned()),
        (Method::POST, "/v1/chat/completions".to_owned()),
        (Method::GET, "/local/chats".to_owned()),
        (Method::POST, "/local/endpoint/revive".to_owned()),
        (Method::GET, "/nowhere".to_owned()),
    ];
    for (method, path) in calls {
        let request = || {
            let request =
                HEADERS.iter().fold(local.bare(method.clone(), &path), |it, (name, value, _)| it.header(*name, *value));
            request.json(&json!({ "assistantId": "assistant_Answering", "text": "x", "messages": [] }))
        };
        for (name, value) in [
            ("host", "evil.example"),
            ("host", "evil.example:8092"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
        ] {
            let message = error(answer(request().header(name, value)).await, 403);
            assert!(message.contains("admin_hosts"), "{method} {path} {name}: {value}: {message}");
        }
        let (status, _) = answer(request().header("host", "dev.example.com")).await;
        assert_ne!(status, 403, "{method} {path}");
    }
    local.platform.set_hosts(Vec::new());
    error(answer(local.bare(Method::GET, "/local/chats").header("host", "dev.example.com")).await, 403);
    assert_eq!(
        local.local("/chats").await.as_array().unwrap().len(),
        2,
        "only the two allowed requests created a chat"
    );
}

#[tokio::test]
async fn replaces_assistants_and_rejects_duplicate_ids() {
    let local = Local::start(settings()).await;
    local.platform.set_assistants(vec![assistant("New", true)]).unwrap();
    assert_eq!(
        local.get("/space/assistant_New").await.1["modules"][0]["configuration"],
        json!({ "greeting": "Hello" })
    );
    error(local.get("/space/assistant_Answering").await, 404);
    let twice = vec![assistant("Same", true), assistant("Same", false)];
    let refused = local.platform.set_assistants(twice).unwrap_err();
    assert!(matches!(&refused, LocalError::DuplicateAssistant(id) if id == "assistant_Same"), "{refused}");
    assert_eq!(local.get("/space/assistant_New").await.0, 200);
}

#[tokio::test]
async fn start_errors_name_the_cause_and_the_option() {
    let local = Local::start(settings()).await;
    let start =
        async |settings: LocalSettings| LocalPlatform::start(settings).await.err().expect("start fails").to_string();
    let taken = start(LocalSettings { listen: local.platform.address(), ..settings() }).await;
    assert!(taken.contains("--platform-port") && taken.contains(&local.platform.address().to_string()), "{taken}");
    let nowhere = start(LocalSettings { documents: Some("/nowhere/at/all".into()), ..settings() }).await;
    assert!(nowhere.contains("--documents") && nowhere.contains("/nowhere/at/all"), "{nowhere}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("local-platform.sqlite"), "this is no database, however long it may be").unwrap();
    let broken = start(LocalSettings { data_dir: Some(folder.path().to_owned()), ..settings() }).await;
    assert!(broken.contains("local-platform.sqlite") && broken.contains("--data-dir"), "{broken}");
}
