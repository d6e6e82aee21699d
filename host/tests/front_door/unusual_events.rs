//! Tests of unusual events: each is either delivered, or refused for a retry and kept as unreadable. None is
//! acknowledged and lost.

use modhost_emulator as local;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::harness::{Host, PendingReply, Settings, chosen, http, modhost, now, post, sign, signed_post, until};

/// The number of verified events with an outcome, summed over tenants.
async fn counted(host: &Host, outcome: &str) -> f64 {
    let text = http().get(format!("{}/metrics", host.admin)).send().await.unwrap().text().await.unwrap();
    let label = format!("outcome=\"{outcome}\"");
    let counts = text.lines().filter(|line| line.starts_with("modhost_events_total{") && line.contains(&label));
    counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

async fn admin(host: &Host, path: &str) -> Value {
    http().get(format!("{}/api/{path}", host.admin)).send().await.unwrap().json().await.unwrap()
}

async fn deliveries(host: &Host, event: &str) -> Vec<Value> {
    let listed = admin(host, &format!("deliveries?event={event}")).await;
    listed["deliveries"].as_array().unwrap().clone()
}

async fn assert_retryable(answer: Response) {
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "60");
}

/// An event that chooses `Test` to fill a reply, with a textual change to its JSON that serde couldn't serialize.
fn changed(event: &Value, from: &str, to: &str) -> String {
    let text = event.to_string();
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    text.replace(from, to)
}

#[tokio::test]
async fn answers_an_event_with_an_unpaired_surrogate() {
    let host = Settings::test_guest("").start().await;
    let place = PendingReply::new(&host, "Test").await;
    let body = changed(&place.chosen("evt_half", "Test", "reply half @@"), "@@", r"\ud83d");
    assert_eq!(signed_post(&host.webhook, body.clone()).await.status(), StatusCode::OK);
    assert_eq!(place.answer(&host).await.text(), "half \u{fffd}");
    // The journal has the body as it was signed; the module got valid text.
    let delivery = deliveries(&host, "evt_half").await.remove(0);
    let story = admin(&host, &format!("deliveries/{}", delivery["id"].as_str().unwrap())).await;
    assert_eq!(story["event"]["payload"]["userMessage"]["text"], "reply half \u{fffd}");
}

/// Puts unusual values into every field of a module-chosen event: either the module gets the event and the user a
/// reply, or the event is refused for a retry and kept as unreadable.
#[tokio::test]
async fn unusual_values_are_answered_or_kept() {
    let host = Settings::test_guest("").start().await;
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let values = [
        "null",
        "7",
        "[]",
        "{}",
        "true",
        "1e400",
        r#""\ud83d""#,
        r#"{"a":1,"a":2}"#,
        "NaN",
        "-Infinity",
        deep.as_str(),
    ];
    let fields = [
        "/payload/description",
        "/payload/configuration",
        "/payload/assistantId",
        "/payload/userMessage",
        "/payload/userMessage/id",
        "/payload/userMessage/text",
        "/payload/userMessage/createdAt",
        "/payload/userMessage/language",
        "/payload/userMessage/originalText",
        "/payload/name",
        "/payload",
        "/createdAt",
        "/version",
        "/id",
        "/event",
    ];
    let (mut answered, mut kept) = (0, 0);
    for (row, field) in fields.iter().enumerate() {
        for (column, value) in values.iter().enumerate() {
            let place = PendingReply::new(&host, "Test").await;
            let id = format!("evt_{row}_{column}");
            let mut event = place.chosen(&id, "Test", "reply well");
            event["payload"]["userMessage"]["language"] = "en".into();
            event["payload"]["userMessage"]["originalText"] = "well".into();
            *event.pointer_mut(field).unwrap() = "@@".into();
            let body = changed(&event, "\"@@\"", value);
            let answer = signed_post(&host.webhook, body.clone()).await;
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            match status.as_u16() {
                // The changed event name or module name may match no module. Both outcomes are counted.
                200 if ["/event", "/payload/name"].contains(field) => {
                    assert!(deliveries(&host, &id).await.is_empty(), "{body}");
                }
                200 => {
                    answered += 1;
                    let answer = place.answer(&host).await;
                    assert!(!answer.text().is_empty(), "{body}");
                    let is_well = answer.text() == "well";
                    let is_essential = [
                        "/payload/assistantId",
                        "/payload/userMessage",
                        "/payload/userMessage/id",
                        "/payload/userMessage/text",
                    ]
                    .contains(field);
                    // Unusual values in fields that aren't essential must not prevent an answer.
                    assert!(is_well || is_essential, "{body}: {}", answer.text());
                }
                503 => {
                    kept += 1;
                    assert!(text.contains("this is not an event"), "{body}: {text}");
                    assert!(["/payload", "/payload/name", "/id", "/event"].contains(field), "{body}: {text}");
                    let found = admin(&host, "unreadable").await["unreadable"].as_array().unwrap().clone();
                    assert!(found.iter().any(|it| it["size"] == body.len()), "{body}");
                }
                other => panic!("{other} for {body}"),
            }
        }
    }
    assert!(answered >= 80 && kept >= 20, "{answered} answered, {kept} kept");
    assert_eq!(counted(&host, "unreadable").await, f64::from(kept));
    // The log has the reason why the module didn't understand the payload.
    host.logged(&["the payload has an unknown shape", "`userMessage.text` is null"]).await;
    host.logged(&["it returned ok but never wrote a reply", "`userMessage.text` is null"]).await;
}

#[tokio::test]
async fn malformed_reply_id_is_reported_in_another_message() {
    let host = Settings::test_guest("").start().await;
    let place = PendingReply::new(&host, "Test").await;
    let mut event = place.chosen("evt_reply", "Test", "reply well");
    event["payload"]["assistantMessage"]["id"] = Value::Null;
    assert_eq!(signed_post(&host.webhook, event.to_string()).await.status(), StatusCode::OK);
    let delivery = until("the delivery to end", async || {
        deliveries(&host, "evt_reply").await.into_iter().find(|it| it["state"] == "dead")
    })
    .await;
    assert!(delivery["reason"].as_str().unwrap().contains("`assistantMessage.id` is null"), "{delivery}");
    let chat = super::harness::read_chat(&host.platform, &place.chat_id).await;
    let texts: Vec<_> = chat["messages"].as_array().unwrap().iter().filter_map(|it| it["text"].as_str()).collect();
    assert!(texts.iter().any(|text| !text.is_empty()), "{chat}");
}

#[tokio::test]
async fn finds_a_field_next_to_unusual_values() {
    let host = Settings::test_guest("events = [\"order\"]\nmatch = { kind = \"order\", number = 9007199254740993 }")
        .more(
            "[[source]]\nname = \"orders\"\npath = \"/orders\"\nscheme = \"none\"\nevent = { id = \"body:id\", name = \
             \"text:order\" }\n",
        )
        .start()
        .await;
    let orders = host.webhook.replace("/webhook", "/orders");
    let deep = format!("{}{}", "[".repeat(130), "]".repeat(130));
    for (number, odd) in
        ["1e400", r#""\ud83d""#, &deep, "NaN", r#"{"kind":1,"kind":2}"#, "9".repeat(400).as_str()].iter().enumerate()
    {
        for body in [
            format!(r#"{{"id":"a{number}","odd":{odd},"kind":"order","number":9007199254740993}}"#),
            format!(r#"{{"id":"b{number}","number":9007199254740993.0,"kind":"order","odd":{odd}}}"#),
        ] {
            assert_eq!(post(&orders, &[], body.clone()).await.status(), StatusCode::OK, "{body}");
            let id = &body[7..9];
            let found = deliveries(&host, id).await;
            assert_eq!(found.len(), 1, "{body}");
            std::fs::write(host.file("event.json"), &body).unwrap();
            let ran = modhost(host.folder(), "routes", &["test", "event.json", "--source", "orders"], &[]).await;
            assert!(ran.code == 0 && ran.stdout.contains("receives  Test"), "{ran:?}");
        }
    }
    // Integers that are equal as doubles are distinguished.
    let unwanted = counted(&host, "unwanted").await;
    let other = r#"{"id":"c","kind":"order","number":9007199254740992}"#;
    assert_eq!(post(&orders, &[], other).await.status(), StatusCode::OK);
    assert!(deliveries(&host, "c").await.is_empty());
    assert_eq!(counted(&host, "unwanted").await, unwanted + 1.0);
    std::fs::write(host.file("event.json"), other).unwrap();
    let ran = modhost(host.folder(), "routes", &["test", "event.json", "--source", "orders"], &[]).await;
    assert!(ran.stdout.contains("`match` requires number = 9007199254740993; it is 9007199254740992"), "{ran:?}");
}

#[tokio::test]
async fn unreadable_requests_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let host = Settings::test_guest("").start_in(folder).await;
    let body = "{\"id\":\"evt_1\",\"event\":\"e\",\"event\":\"f\",\"payload\":{\"secret\":\"caf\u{e9}\"}}";
    for _ in 0..3 {
        let (signature, time) = (sign(body.as_bytes()), now().to_string());
        let headers = [
            ("x-unique-signature", signature.as_str()),
            ("x-unique-created-at", &time),
            ("cookie", "sesame"),
            ("user-agent", "unique/1"),
        ];
        assert_retryable(post(&host.webhook, &headers, body).await).await;
    }
    let bytes = b"\xff\xfe not json".to_vec();
    assert_retryable(signed_post(&host.webhook, bytes.clone()).await).await;
    // Requests without a valid signature aren't kept.
    assert_eq!(post(&host.webhook, &[], "forged").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!((counted(&host, "unreadable").await, counted(&host, "taken").await), (4.0, 0.0));

    let listed = admin(&host, "unreadable").await;
    let listed = listed["unreadable"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let first = listed.iter().find(|it| it["times"] == 3).unwrap();
    assert_eq!(
        (&first["source"], &first["tenant"], &first["status"]),
        (&json!("unique"), &json!("default"), &json!(503))
    );
    assert_eq!(first["reason"], "its name is there more than once, `event` in the body");
    assert_eq!(first["headers"]["user-agent"], "unique/1");
    assert!(!first.to_string().contains("sesame") && !first.to_string().contains("signature"), "{first}");
    let id = first["id"].as_str().unwrap();
    let shown = admin(&host, &format!("unreadable/{id}")).await;
    assert_eq!(shown["body"], body);
    assert_eq!(admin(&host, "unreadable?source=other").await["unreadable"], json!([]));

    let run = async |args: &[&str]| {
        let args = [&["unreadable"], args, &["--admin", &host.admin]].concat();
        modhost(host.folder(), "deliveries", &args, &[]).await
    };
    let ran = run(&[]).await;
    assert!(ran.code == 0 && ran.stdout.contains(id) && ran.stdout.contains("more than once"), "{ran:?}");
    let ran = run(&[id, "--body"]).await;
    assert_eq!(ran.stdout, body);
    let ran = run(&[id]).await;
    assert!(ran.stdout.contains("user-agent: unique/1") && ran.stdout.contains("caf\u{e9}"), "{ran:?}");
    let ran = run(&["unr_nobody"]).await;
    assert!(ran.code == 1 && ran.stderr.contains("there is no unreadable request unr_nobody"), "{ran:?}");

    let settings = Settings::test_guest("");
    let id = id.to_owned();
    let host = settings.start_in(host.kill()).await;
    let again = admin(&host, "unreadable").await;
    assert_eq!(again["unreadable"].as_array().unwrap().len(), 2, "{again}");
    let args = ["unreadable", &id, "--drop", "--admin", &host.admin];
    let ran = modhost(host.folder(), "deliveries", &args, &[]).await;
    assert_eq!((ran.code, ran.stdout.trim()), (0, format!("{id}  dropped").as_str()), "{ran:?}");
    let data = host.file(".modhost");
    let args = ["unreadable", "--json", "--data-dir", data.to_str().unwrap()];
    let ran = modhost(host.folder(), "deliveries", &args, &[]).await;
    assert_eq!(ran.stdout.lines().count(), 1, "{ran:?}");
    let left: Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    let left = left["id"].as_str().unwrap();
    let args = ["unreadable", left, "--data-dir", data.to_str().unwrap()];
    let ran = modhost(host.folder(), "deliveries", &args, &[]).await;
    assert!(ran.code == 0 && ran.stdout.contains("not text"), "{ran:?}");
    let body = http().get(format!("{}/api/unreadable/{left}/body", host.admin)).send().await.unwrap();
    assert_eq!(body.bytes().await.unwrap(), bytes);
}

/// A company without a tenant, a challenge, an event no module wants: every 2xx is counted.
#[tokio::test]
async fn counts_every_acknowledgment() {
    let slack = r#"
[[source]]
name = "slack"
path = "/slack"
scheme = "none"
[source.event]
id = "body:event_id"
name = "body:event.type"
company = "body:team_id"
"#;
    let host = Settings::new()
        .tenants(&[("ours", local::COMPANY_ID), ("theirs", "company_2")])
        .more(slack)
        .module("Test", "test_guest", "events = [\"app_mention\"]")
        .start()
        .await;
    let to = host.webhook.replace("/webhook", "/slack");
    let event = |id: &str, team: &str, kind: &str| {
        json!({ "event_id": id, "team_id": team, "event": { "type": kind, "text": "x" } }).to_string()
    };
    let ok = async |body: String| assert_eq!(post(&to, &[], body).await.status(), StatusCode::OK);
    ok(event("1", local::COMPANY_ID, "app_mention")).await;
    ok(event("1", local::COMPANY_ID, "app_mention")).await;
    ok(event("2", "company_2", "message")).await;
    ok(event("3", "company_unknown", "app_mention")).await;
    host.logged(&["event belongs to no tenant", "no tenant has the company `company_unknown`"]).await;
    let mut counts = Vec::new();
    for outcome in ["taken", "again", "unwanted", "put_off", "unreadable"] {
        counts.push(counted(&host, outcome).await);
    }
    assert_eq!(counts, [1.0, 1.0, 2.0, 0.0, 0.0]);
    assert_eq!(deliveries(&host, "3").await.len(), 0);
}

#[tokio::test]
async fn reads_the_user_from_alternative_fields() {
    let source = r#"
[[source]]
name = "hooks"
path = "/hooks"
scheme = "none"
[source.event]
id = [["body:event_id", "hash"], "body:part"]
name = ["text:hook", ["body:kind", "body:type"]]
user = ["body:member.user.id", "body:user", "body:user.id"]
created_at = ["body:at", "body:time"]
"#;
    let host = Settings::new().more(source).module("Test", "test_guest", "events = [\"hook.*\"]").start().await;
    let to = host.webhook.replace("/webhook", "/hooks");
    for (number, (body, user, id)) in [
        (
            json!({ "member": { "user": { "id": "u1" } }, "user": "u2", "kind": "a", "event_id": "e" }),
            Some("u1"),
            "e@0",
        ),
        (json!({ "user": "u2", "type": "a", "event_id": "e" }), Some("u2"), "e@1"),
        (json!({ "member": null, "user": { "id": 3 }, "type": "a", "event_id": "e" }), Some("3"), "e@2"),
        (json!({ "user": [], "type": "a", "event_id": "e" }), None, "e@3"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = body;
        body["part"] = number.into();
        assert_eq!(post(&to, &[], body.to_string()).await.status(), StatusCode::OK, "{body}");
        let list = admin(&host, "deliveries").await["deliveries"].as_array().unwrap().clone();
        let delivery = list.iter().find(|it| it["event_id"] == id).unwrap_or_else(|| panic!("{id} is not in {list:?}"));
        assert_eq!(delivery["event_name"], "hook.a");
        let story = admin(&host, &format!("deliveries/{}", delivery["id"].as_str().unwrap())).await;
        assert_eq!(story["event"]["user_id"].as_str(), user, "{body}");
    }
}

/// A form body is kept as it was signed, and parsed the same when the journal returns it.
#[tokio::test]
async fn form_events_survive_a_restart() {
    let source = "[[source]]\nname = \"github\"\npath = \"/github\"\nscheme = \"github\"\nsecrets = [\"env:TEST_ENDPOINT_SECRET\"]\n";
    let settings = Settings::new().more(source).module("Test", "test_guest", "events = [\"issues.*\"]");
    let host = settings.start().await;
    let payload = r#"{"action":"opened","issue":{"title":"a & b \ud83d"},"sender":{"id":7}}"#;
    let form: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", payload).finish();
    let signature = format!("sha256={}", sign(form.as_bytes()));
    let headers = [
        ("x-hub-signature-256", signature.as_str()),
        ("x-github-event", "issues"),
        ("x-github-delivery", "d1"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let answer = http().post(host.webhook.replace("/webhook", "/github"));
    let answer = headers.iter().fold(answer, |request, (name, value)| request.header(*name, *value));
    assert_eq!(answer.body(form).send().await.unwrap().status(), StatusCode::OK);
    let delivery = until("the delivery to complete", async || {
        deliveries(&host, "d1").await.into_iter().find(|it| it["state"] == "completed")
    })
    .await;
    host.logged(&["issues.opened", "a & b"]).await;
    let host = settings.start_in(host.kill()).await;
    let story = admin(&host, &format!("deliveries/{}", delivery["id"].as_str().unwrap())).await;
    assert_eq!(story["event"]["payload"]["issue"]["title"], "a & b \u{fffd}");
    assert_eq!(story["event"]["user_id"], "7");
}

#[tokio::test]
async fn module_with_assistants_gets_events_without_an_assistant() {
    let host = Settings::test_guest("assistants = [\"assistant_Test\"]").start().await;
    let mut event = chosen("evt_1", "Test", "reply well");
    event["payload"]["assistantId"] = json!(["assistant_Test"]);
    assert_eq!(signed_post(&host.webhook, event.to_string()).await.status(), StatusCode::OK);
    assert_eq!(deliveries(&host, "evt_1").await.len(), 1);
    let mut other = chosen("evt_2", "Test", "reply well");
    other["payload"]["assistantId"] = "assistant_other".into();
    assert_eq!(signed_post(&host.webhook, other.to_string()).await.status(), StatusCode::OK);
    assert_eq!(deliveries(&host, "evt_2").await.len(), 0);
}
