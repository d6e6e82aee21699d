//! Tests of the shipped modules end to end: signed event, component, calls to the platform, final message.

use futures::future::join_all;
use serde_json::{Value, json};

use super::harness::{
    Model, PendingReply, Settings, call, chat, chat_on, http, read_chat, read_message, say, signed_post,
    wait_for_answer,
};

const QUESTION: &str = "How much may a hotel room cost in London?";

/// Clients that wait for an answer poll one of these timestamps.
fn assert_stamped(message: &Value) {
    for stamp in ["completedAt", "startedStreamingAt", "stoppedStreamingAt"] {
        assert!(message[stamp].is_string(), "no {stamp} in {message}");
    }
}

async fn hits(host: &super::harness::Host, text: &str) -> Vec<Value> {
    let query = json!({ "searchString": text, "searchType": "COMBINED", "limit": 3 });
    call(&host.platform, "search/search", &query).await.as_array().unwrap().clone()
}

/// The numbers of the footnotes in a text, in order.
fn footnotes(text: &str) -> Vec<u64> {
    let after = text.split("<sup>").skip(1);
    after.map(|rest| rest.split_once("</sup>").unwrap().0.parse().unwrap()).collect()
}

#[tokio::test]
async fn assistant_quotes_and_cites_the_right_document() {
    let host = Settings::samples().start().await;
    let answer = chat(&host, "Assistant", QUESTION).await;

    let done = [("Found 3 relevant documents", "COMPLETED"), ("Generating response…", "COMPLETED")];
    assert_eq!(answer.steps(), done);
    let orders: Vec<_> = answer.reply["steps"].as_array().unwrap().iter().map(|step| &step["order"]).collect();
    assert_eq!(orders, [1, 2]);
    assert!(answer.text().contains("up to 190 euros in London"), "{}", answer.text());
    assert!(answer.text().contains("No language model is connected"), "{}", answer.text());
    assert_stamped(&answer.reply);

    let hits = hits(&host, QUESTION).await;
    assert_eq!(hits[0]["key"], "money/travel-policy.md");
    let references = answer.reply["references"].as_array().unwrap();
    let mut cited = footnotes(answer.text());
    cited.sort_unstable();
    cited.dedup();
    assert!(cited.contains(&1), "the best hit is not cited: {}", answer.text());
    let named: Vec<_> = references.iter().map(|reference| reference["sequenceNumber"].as_u64().unwrap()).collect();
    assert_eq!(named, cited, "references and footnotes differ");
    for (reference, number) in references.iter().zip(named) {
        let index = usize::try_from(number - 1).unwrap();
        let hit = &hits[index];
        let source_id = format!("{}_{}", hit["id"].as_str().unwrap(), hit["chunkId"].as_str().unwrap());
        assert_eq!(reference["sourceId"], source_id);
        assert_eq!(reference["source"], "node-ingestion-chunks");
        assert_eq!(reference["originalIndex"], json!([index]));
        assert_eq!((&reference["name"], &reference["url"]), (&hit["title"], &hit["url"]));
        let document = http().get(reference["url"].as_str().unwrap()).send().await.unwrap().text().await.unwrap();
        // The text before a footnote is a quotation from the document that the footnote names.
        let quoted = answer.text().split(&format!(" <sup>{number}</sup>")).next().unwrap().rsplit("> ").next().unwrap();
        let sentence = quoted.split(". ").next().unwrap();
        assert!(document.contains(sentence), "{sentence:?} is not in {document}");
    }
}

#[tokio::test]
async fn assistant_reports_an_empty_search() {
    let host = Settings::samples().start().await;
    let answer = chat(&host, "Assistant", "Quixotic xylophones?").await;
    let done = [("Found no relevant documents", "COMPLETED"), ("Generating response…", "COMPLETED")];
    assert_eq!(answer.steps(), done);
    assert!(answer.text().starts_with("I found nothing about this in the knowledge base"), "{}", answer.text());
    assert_eq!(answer.reply["references"], json!([]));
    assert_stamped(&answer.reply);
}

#[tokio::test]
async fn assistant_shows_its_steps_while_the_completion_runs() {
    let mut model = Model::start().await;
    let host = Settings::samples().model(&model.url).start().await;
    let chat_id = say(&host.platform, "Assistant", QUESTION).await;

    let question = model.asked().await;
    let reply = read_chat(&host.platform, &chat_id).await["messages"][1].clone();
    let steps: Vec<_> =
        reply["steps"].as_array().unwrap().iter().map(|step| (&step["text"], &step["status"])).collect();
    let (found, generating) = (json!("Found 3 relevant documents"), json!("Generating response…"));
    assert_eq!(steps, [(&found, &json!("COMPLETED")), (&generating, &json!("RUNNING"))]);
    assert_eq!((&reply["text"], &reply["completedAt"]), (&Value::Null, &Value::Null));

    assert_eq!(question.body["temperature"], 0.3);
    assert_eq!(question.body["model"], "test-model");
    let instructions = question.body["messages"][0]["content"].as_str().unwrap();
    for hit in hits(&host, QUESTION).await {
        assert!(instructions.contains(hit["text"].as_str().unwrap().trim()), "{hit} is not in {instructions}");
    }
    assert_eq!(question.body["messages"][0]["role"], "system");
    assert_eq!(question.body["messages"][1], json!({ "role": "user", "content": QUESTION }));
    assert_eq!(question.body["messages"].as_array().unwrap().len(), 2);

    question.answer("190 euros [source0], breakfast included [source2]. Yachts are free [source7].");
    let answer = wait_for_answer(&host, &chat_id).await;
    assert_eq!(answer.text(), "190 euros <sup>1</sup>, breakfast included <sup>3</sup>. Yachts are free.");
    let references = answer.reply["references"].as_array().unwrap();
    assert_eq!(references.iter().map(|reference| &reference["sequenceNumber"]).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(answer.steps().last(), Some(&("Generating response…", "COMPLETED")));
}

#[tokio::test]
async fn demo_app_echoes_in_a_separate_message() {
    let host = Settings::samples().start().await;
    let answer = chat(&host, "DemoApp", "Is anybody there?").await;
    assert_eq!(
        answer.messages(),
        [
            ("USER", "Is anybody there?"),
            ("ASSISTANT", "Hello! What you wrote comes back in the next message."),
            ("ASSISTANT", "Is anybody there?"),
        ]
    );
    assert_stamped(&answer.reply);
    assert_stamped(&answer.chat["messages"][2]);
}

#[tokio::test]
async fn demo_app_uses_the_greeting_of_its_assistant() {
    let host = Settings::samples().start().await;
    let place = PendingReply::new(&host, "DemoApp").await;
    let mut event = place.chosen("evt_greeting", "DemoApp", "Hi");
    event["payload"]["configuration"] = json!({ "greeting": "Servus" });
    assert_eq!(signed_post(&host.webhook, event.to_string()).await.status(), 200);
    let answer = place.answer(&host).await;
    assert_eq!(answer.text(), "Servus! What you wrote comes back in the next message.");
}

#[tokio::test]
async fn chat_log_records_every_message_and_answers_none() {
    let host = Settings::samples().start().await;
    let quiet = say(&host.platform, "ChatLog", "Good morning").await;
    let echoed = chat(&host, "DemoApp", "Good evening").await;
    for (chat_id, assistant, text) in
        [(&quiet, "assistant_ChatLog", "Good morning"), (&echoed.chat_id, "assistant_DemoApp", "Good evening")]
    {
        let line = host.logged(&[&format!("chat {chat_id} of {assistant}: {text}")]).await;
        assert!(line.contains("module=ChatLog") && line.contains("user=\"user_local\""), "{line}");
        let delivery = line.split_whitespace().find(|word| word.starts_with("delivery=")).unwrap();
        host.logged(&["completed", "module=ChatLog", delivery]).await;
    }
    let chat = read_chat(&host.platform, &quiet).await;
    assert_eq!(chat["messages"].as_array().unwrap().len(), 1, "{chat}");
}

#[tokio::test]
async fn continues_a_chat() {
    let host = Settings::samples().start().await;
    let first = chat(&host, "DemoApp", "First").await;
    let second = chat_on(&host, "DemoApp", &first.chat_id, "Second").await;
    let texts: Vec<_> = second.messages().into_iter().map(|(_, text)| text).collect();
    let greeting = "Hello! What you wrote comes back in the next message.";
    assert_eq!(texts, ["First", greeting, "First", "Second", greeting, "Second"]);
    // The first reply hasn't changed.
    assert_eq!(read_message(&host, &first.chat_id, first.reply["id"].as_str().unwrap()).await, first.reply);
}

#[tokio::test]
async fn answers_concurrent_chats_separately() {
    let host = Settings::samples().module("Test", "test_guest", "").start().await;
    let texts: Vec<_> = (1..=24).map(|n| format!("step-and reply answer {n}")).collect();
    let answers = join_all(texts.iter().map(|text| chat(&host, "Test", text)));
    let others = join_all((0..3).map(|_| chat(&host, "Assistant", QUESTION)));
    let (answers, others) = tokio::join!(answers, others);
    for (answer, text) in answers.iter().zip(&texts) {
        assert_eq!(format!("step-and reply {}", answer.text()), *text);
        assert_eq!(answer.steps(), [("Working…", "COMPLETED")]);
    }
    assert!(others.iter().all(|answer| answer.text() == others[0].text() && answer.text().contains("190 euros")));
}
