//! Deliveries to the webhook endpoint, and the handling of its responses.

use hmac::{Hmac, KeyInit, Mac};
use modhost_emulator::{COMPANY_ID, ENDPOINT_SECRET, LocalSettings, USER_ID};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::help::{FarAnswer, FarSide, Local, answer, settings, text};

async fn local_and_endpoint(answers: impl IntoIterator<Item = impl Into<FarAnswer>>) -> (Local, FarSide) {
    let endpoint = FarSide::answering(answers).await;
    let local = Local::start(LocalSettings { webhook: Some(endpoint.url("/webhook")), ..settings() }).await;
    (local, endpoint)
}

const NONE: [u16; 0] = [];

#[tokio::test]
async fn message_sends_two_signed_events_in_order() {
    let (local, endpoint) = local_and_endpoint(NONE).await;
    let correlation = json!({ "parentMessageId": "m", "parentChatId": "c", "parentAssistantId": "a" });
    let new = json!({
        "assistantId": "assistant_Answering", "text": "Grüezi", "toolChoices": ["t"], "skillChoices": [], "correlation": correlation,
    });
    let (_, question) = local.post("/space/message", new).await;
    assert_eq!((&question["role"], &question["text"]), (&json!("USER"), &json!("Grüezi")));
    let delivered = local.deliveries(2, "delivered").await;
    assert_eq!(delivered[0]["answer"], "200 OK");
    let (_, reply) = local.get(&format!("/space/{}/messages/latest", text(&question["chatId"]))).await;
    assert_eq!((&reply["role"], &reply["text"]), (&json!("ASSISTANT"), &Value::Null));

    let bodies = endpoint.bodies();
    assert_eq!(bodies[0]["event"], "unique.chat.user-message.created");
    assert_eq!(
        bodies[0]["payload"],
        json!({ "chatId": question["chatId"], "assistantId": "assistant_Answering", "text": "Grüezi" })
    );
    assert_eq!(bodies[1]["event"], "unique.chat.external-module.chosen");
    let payload = &bodies[1]["payload"];
    assert_eq!((&payload["name"], &payload["chatId"]), (&json!("Answering"), &question["chatId"]));
    assert_eq!(payload["configuration"], json!({ "greeting": "Hello" }));
    assert_eq!((&payload["userMessage"]["id"], &payload["userMessage"]["text"]), (&question["id"], &json!("Grüezi")));
    assert_eq!(payload["assistantMessage"], json!({ "id": reply["id"], "createdAt": reply["createdAt"] }));
    assert_eq!((&payload["toolChoices"], &payload["correlation"]), (&json!(["t"]), &correlation));
    for ((headers, raw), body) in endpoint.received().iter().zip(&bodies) {
        let mut mac = Hmac::<Sha256>::new_from_slice(ENDPOINT_SECRET.as_bytes()).unwrap();
        mac.update(raw);
        assert_eq!(headers["x-unique-signature"], hex::encode(mac.finalize().into_bytes()).as_str());
        assert_eq!(headers["x-unique-id"], text(&body["id"]).as_str());
        assert_eq!(headers["x-unique-version"], text(&body["version"]).as_str());
        assert_eq!(
            (&headers["x-unique-user-id"], &headers["x-unique-company-id"]),
            (&USER_ID.parse().unwrap(), &COMPANY_ID.parse().unwrap())
        );
        assert_eq!((&body["userId"], &body["companyId"]), (&json!(USER_ID), &json!(COMPANY_ID)));
        assert!(headers["x-unique-created-at"].to_str().unwrap().parse::<u64>().is_ok());
        assert!(text(&body["createdAt"]).parse::<u64>().is_ok());
        assert_eq!(headers["content-type"], "application/json");
    }
}

#[tokio::test]
async fn assistant_without_module_choice_sends_one_event_and_creates_no_message() {
    let (local, endpoint) = local_and_endpoint(NONE).await;
    let question = local.say("Listening", "Hello").await;
    local.deliveries(1, "delivered").await;
    assert_eq!(endpoint.bodies()[0]["event"], "unique.chat.user-message.created");
    let whole = local.local(&format!("/chats/{}", text(&question["chatId"]))).await;
    assert_eq!(whole["messages"].as_array().unwrap().len(), 1);
    assert_eq!(local.local("/deliveries").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn retries_after_temporary_failures() {
    let limited = FarAnswer { headers: vec![("retry-after", "0".into())], ..429.into() };
    let (local, endpoint) = local_and_endpoint([500.into(), limited, 503.into(), 307.into()]).await;
    local.say("Listening", "Hello").await;
    let delivered = local.deliveries(1, "delivered").await;
    assert_eq!(delivered[0]["attempts"], 5);
    let received = endpoint.received();
    assert!(received.iter().all(|(_, body)| *body == received[0].1), "every attempt sends the same event");
}

#[tokio::test]
async fn honors_retry_after() {
    let later = FarAnswer { headers: vec![("retry-after", "3600".into())], ..503.into() };
    let (local, endpoint) = local_and_endpoint([later]).await;
    local.say("Listening", "first").await;
    local.deliveries(1, "retrying").await;
    // The default delay would be a millisecond; other events are delivered meanwhile.
    local.say("Listening", "second").await;
    local.deliveries(1, "delivered").await;
    local.deliveries(1, "retrying").await;
    assert_eq!(endpoint.received().len(), 2);
    local.platform.shutdown().await;
}

#[tokio::test]
async fn waiting_retry_does_not_block_the_next_event() {
    let later = FarAnswer { headers: vec![("retry-after", "3600".into())], ..503.into() };
    let (local, _endpoint) = local_and_endpoint([later]).await;
    local.say("Answering", "Hello").await;
    let delivered = local.deliveries(1, "delivered").await;
    assert_eq!(delivered[0]["event"], "unique.chat.external-module.chosen");
}

#[tokio::test]
async fn gives_up_after_five_retries() {
    let (local, endpoint) = local_and_endpoint([502; 6]).await;
    local.say("Listening", "Hello").await;
    let failed = local.deliveries(1, "failed").await;
    assert_eq!((&failed[0]["attempts"], &failed[0]["answer"]), (&json!(6), &json!("502 Bad Gateway")));
    local.say("Listening", "Hello again").await;
    local.deliveries(1, "delivered").await;
    assert_eq!(endpoint.received().len(), 7);
}

#[tokio::test]
async fn retries_after_refused_connections() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhook", gone.local_addr().unwrap());
    drop(gone);
    let local = Local::start(LocalSettings { webhook: Some(url.parse().unwrap()), ..settings() }).await;
    local.say("Listening", "Hello").await;
    let failed = local.deliveries(1, "failed").await;
    assert!(text(&failed[0]["answer"]).to_lowercase().contains("refused"), "{failed:?}");
}

#[tokio::test]
async fn other_statuses_expire_the_endpoint_until_it_is_revived() {
    for status in [400, 401, 404, 418] {
        let (local, endpoint) = local_and_endpoint([status]).await;
        local.say("Answering", "Hello").await;
        let refused = local.deliveries(1, "refused").await;
        assert_eq!(refused[0]["attempts"], 1);
        let skipped = local.deliveries(1, "skipped").await;
        assert!(text(&skipped[0]["answer"]).contains(&status.to_string()), "{skipped:?}");
        assert_eq!(skipped[0]["attempts"], 0);
        assert_eq!(endpoint.received().len(), 1);

        let revive = async || answer(local.bare(Method::POST, "/local/endpoint/revive")).await;
        assert_eq!(revive().await, (200, json!({ "revived": true })));
        assert_eq!(revive().await, (200, json!({ "revived": false })));
        local.say("Answering", "Hello again").await;
        local.deliveries(2, "delivered").await;
        assert!(!local.platform.revive_endpoint());
    }
}

#[tokio::test]
async fn skips_events_until_an_endpoint_is_set() {
    let local = Local::start(settings()).await;
    local.say("Listening", "Hello").await;
    let skipped = local.deliveries(1, "skipped").await;
    assert!(text(&skipped[0]["answer"]).contains("no webhook"), "{skipped:?}");
    let endpoint = FarSide::answering(NONE).await;
    local.platform.set_webhook(endpoint.url("/webhook"));
    local.say("Listening", "Hello").await;
    local.deliveries(1, "delivered").await;
}
