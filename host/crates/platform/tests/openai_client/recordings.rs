//! Tests recorded answers of many kinds of servers: `streams/NAME.txt` is the body, byte for byte, and `NAME.json` the
//! expected result.
//!
//! Each recording is read as a stream and as a complete answer, in pieces of any size, and truncated everywhere. A
//! truncated answer must never be `Ok` with less than the complete text.

use std::path::Path;

use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use modhost_platform::fuzzing;
use modhost_platform::openai::OpenAi;
use modhost_platform::{CallError, Completion, ErrorKind, Usage};
use serde::Deserialize;

use crate::client::{caller, question, read};
use crate::server::{Reply, Server, answer_with};

/// A recorded answer and its expected result.
struct Recording {
    name: String,
    body: Bytes,
    expected: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default = "events")]
    content_type: String,
    text: Option<String>,
    finish_reason: Option<String>,
    usage: Option<(u32, u32)>,
    /// A part of the error's message.
    error: Option<String>,
    kind: Option<String>,
    /// A server that sends the finish reason with every piece can't be distinguished from one that stops after the
    /// first.
    #[serde(default)]
    cut_is_ambiguous: bool,
}

fn events() -> String {
    "text/event-stream".to_owned()
}

fn recordings() -> Vec<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openai_client/streams");
    let mut recordings = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "txt") {
            continue;
        }
        let expected = std::fs::read_to_string(path.with_extension("json")).unwrap();
        recordings.push(Recording {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            body: std::fs::read(&path).unwrap().into(),
            expected: serde_json::from_str(&expected).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        });
    }
    assert!(recordings.len() > 50, "{}", recordings.len());
    recordings.sort_by(|a, b| a.name.cmp(&b.name));
    recordings
}

impl Recording {
    /// Returns a reply with this body in these pieces, which then ends, or breaks the connection.
    fn reply(&self, pieces: Vec<Bytes>, breaks: bool) -> Reply {
        let broken = breaks.then(|| Err(std::io::Error::other("cut")));
        let body = stream::iter(pieces.into_iter().map(Ok)).chain(stream::iter(broken));
        let kind = [("content-type", self.expected.content_type.as_str())];
        let headers = if kind[0].1.is_empty() { &[][..] } else { &kind[..] };
        answer_with(200, headers, Body::from_stream(body))
    }

    /// Asserts the expected result of the complete answer.
    #[track_caller]
    fn check(&self, result: Result<Completion, CallError>) {
        let (name, Expected { text, finish_reason, usage, error, kind, .. }) = (&self.name, &self.expected);
        match (result, text, error) {
            (Ok(completion), Some(text), None) => {
                let usage = usage.map(|(prompt_tokens, completion_tokens)| Usage { prompt_tokens, completion_tokens });
                let expected = Completion { text: text.clone(), finish_reason: finish_reason.clone(), usage };
                assert_eq!(completion, expected, "{name}");
            }
            (Err(actual), None, Some(error)) => {
                assert!(actual.message.contains(error.as_str()), "{name}: {actual}");
                let word = kind.as_deref().unwrap();
                assert_eq!(actual.kind.as_str(), word, "{name}: {actual}");
            }
            (result, ..) => panic!("{name}: {result:?}"),
        }
    }

    /// Asserts that a truncated answer is not accepted as complete.
    #[track_caller]
    fn check_cut(&self, at: usize, result: Result<(String, Option<String>), String>) {
        let Ok((text, reason)) = result else { return };
        let Expected { text: whole, finish_reason, cut_is_ambiguous, .. } = &self.expected;
        assert!(
            *cut_is_ambiguous || (Some(&text) == whole.as_ref() && (reason == *finish_reason || reason.is_none())),
            "{} truncated at {at} is Ok: {text:?}, {reason:?}",
            self.name
        );
    }
}

/// Reads an answer piece by piece.
async fn streamed(client: &OpenAi) -> Result<Completion, CallError> {
    let (pieces, ending) = read(client, &question()).await;
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
    ending.map(|ending| Completion { text: pieces.concat(), finish_reason: ending.finish_reason, usage: ending.usage })
}

/// Splits the bytes into pieces of random sizes.
fn pieces(body: &Bytes, random: &mut fastrand::Rng, largest: usize) -> Vec<Bytes> {
    let mut rest = body.clone();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        pieces.push(rest.split_to(random.usize(1..=largest).min(rest.len())));
    }
    pieces
}

#[tokio::test]
async fn reads_recordings_alike_as_a_stream_and_complete() {
    let mut random = fastrand::Rng::with_seed(7);
    for recording in recordings() {
        let body = &recording.body;
        let mut splits = vec![vec![body.clone()], pieces(body, &mut random, 1)];
        splits.extend((0..3).map(|_| pieces(body, &mut random, 60)));
        let replies: Vec<_> = splits.into_iter().flat_map(|pieces| [pieces.clone(), pieces]).collect();
        let rounds = replies.len() / 2;
        let server = Server::scripted(replies.into_iter().map(|pieces| recording.reply(pieces, false))).await;
        let client = server.client();
        for _ in 0..rounds {
            recording.check(streamed(&client).await);
            recording.check(client.complete(&caller(), &question()).await);
        }
    }
}

/// Returns the positions at which a stream is truncated over HTTP: around line ends, and at random positions within
/// lines.
fn cuts(body: &[u8], random: &mut fastrand::Rng) -> Vec<usize> {
    let ends = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let mut cuts: Vec<_> = ends.flat_map(|at| [at.saturating_sub(1), at, at + 1]).collect();
    cuts.extend((0..6).map(|_| random.usize(0..=body.len())));
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

#[tokio::test]
async fn rejects_recordings_truncated_over_http() {
    let mut random = fastrand::Rng::with_seed(11);
    for recording in recordings() {
        let cuts = cuts(&recording.body, &mut random);
        let replies = cuts.iter().flat_map(|at| {
            let prefix = recording.body.slice(..*at);
            [false, true].map(|breaks| recording.reply(vec![prefix.clone()], breaks))
        });
        let server = Server::scripted(replies.collect::<Vec<_>>()).await;
        let client = server.client();
        for at in cuts {
            for breaks in [false, true] {
                let result = streamed(&client).await;
                if breaks && recording.expected.finish_reason.is_some() {
                    // A broken connection is an error, unless the end was declared before.
                    let is_explicit = recording.body[..at].windows(6).any(|it| it == b"[DONE]");
                    assert!(is_explicit || result.is_err(), "{} broken at {at}: {result:?}", recording.name);
                }
                let result = result.map(|it| (it.text, it.finish_reason)).map_err(|error| error.message);
                recording.check_cut(at, result);
            }
        }
    }
}

/// The same at every byte, without HTTP.
#[test]
fn rejects_every_prefix_of_a_recording() {
    let mut read = 0;
    for recording in recordings() {
        for at in 0..recording.body.len() {
            let result = fuzzing::completion(&recording.body[..at]);
            recording.check_cut(at, result.map(|it| (it.text, it.finish_reason)));
            read += 1;
        }
    }
    assert!(read > 20_000, "{read}");
}

/// An error with status 200 has the kind that it names, so that a module can react to a rate limit.
#[tokio::test]
async fn maps_errors_under_200_to_their_kind() {
    for (body, kind) in [
        (r#"{"error": {"message": "x", "code": "429"}}"#, ErrorKind::RateLimited(None)),
        (r#"{"error": {"message": "x", "type": "authentication_error"}}"#, ErrorKind::Denied),
        (r#"{"error": {"message": "x", "code": "context_length_exceeded"}}"#, ErrorKind::Invalid),
        (r#"{"error": {"message": "x", "code": "model_not_found"}}"#, ErrorKind::NotFound),
        (r#"{"error": {"message": "x", "type": "timeout"}}"#, ErrorKind::Timeout),
        (r#"{"error": "x"}"#, ErrorKind::Unavailable),
    ] {
        let server = Server::always(move || answer_with(200, &[("content-type", "application/json")], body)).await;
        let whole = server.client().complete(&caller(), &question()).await.unwrap_err();
        let streamed = streamed(&server.client()).await.unwrap_err();
        assert_eq!((whole.kind, streamed.kind), (kind, kind), "{body}");
        assert!(whole.message.starts_with("POST /chat/completions: 200 OK, but the answer is an error: x"), "{whole}");
    }
}
