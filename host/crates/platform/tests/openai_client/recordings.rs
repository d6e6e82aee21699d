//! What servers of many kinds answer, byte by byte as they send it: `streams/NAME.txt`, and beside it, in `NAME.json`, what a
//! module is to have of it.
//!
//! Each is read as a stream and as a whole, in pieces of any size, and cut off everywhere. Whatever the cut, a module never
//! has Ok with less than the whole text.

use std::path::Path;

use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use modhost_platform::fuzzing;
use modhost_platform::openai::OpenAi;
use modhost_platform::{CallError, Completion, ErrorKind, Usage};
use serde::Deserialize;

use crate::client::{caller, question, read};
use crate::server::{Reply, Server, answer_with};

/// An answer as it was sent, and what it is to be read as.
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
    /// What the error says.
    error: Option<String>,
    kind: Option<String>,
    /// A server that gives its reason to stop with every piece can't be told from one that stops after the first.
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
    /// A server that sends this body in these pieces, and then ends it, or breaks the connection.
    fn reply(&self, pieces: Vec<Bytes>, breaks: bool) -> Reply {
        let broken = breaks.then(|| Err(std::io::Error::other("cut")));
        let body = stream::iter(pieces.into_iter().map(Ok)).chain(stream::iter(broken));
        let kind = [("content-type", self.expected.content_type.as_str())];
        let headers = if kind[0].1.is_empty() { &[][..] } else { &kind[..] };
        answer_with(200, headers, Body::from_stream(body))
    }

    /// Whether this is what is expected of the whole.
    #[track_caller]
    fn check(&self, result: Result<Completion, CallError>) {
        let (name, Expected { text, finish_reason, usage, error, kind, .. }) = (&self.name, &self.expected);
        match (result, text, error) {
            (Ok(completion), Some(text), None) => {
                let usage = usage.map(|(prompt_tokens, completion_tokens)| Usage { prompt_tokens, completion_tokens });
                let expected = Completion { text: text.clone(), finish_reason: finish_reason.clone(), usage };
                assert_eq!(completion, expected, "{name}");
            }
            (Err(told), None, Some(error)) => {
                assert!(told.message.contains(error.as_str()), "{name}: {told}");
                let word = kind.as_deref().unwrap();
                assert_eq!(told.kind.word(), word, "{name}: {told}");
            }
            (result, ..) => panic!("{name}: {result:?}"),
        }
    }

    /// Whether an answer that was cut off is read as no more than it is.
    #[track_caller]
    fn check_cut(&self, at: usize, result: Result<(String, Option<String>), String>) {
        let Ok((text, reason)) = result else { return };
        let Expected { text: whole, finish_reason, cut_is_ambiguous, .. } = &self.expected;
        assert!(
            *cut_is_ambiguous || (Some(&text) == whole.as_ref() && (reason == *finish_reason || reason.is_none())),
            "{} cut at {at} is Ok: {text:?}, {reason:?}",
            self.name
        );
    }
}

/// An answer read piece by piece.
async fn streamed(client: &OpenAi) -> Result<Completion, CallError> {
    let (pieces, ending) = read(client, &question()).await;
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
    ending.map(|ending| Completion { text: pieces.concat(), finish_reason: ending.finish_reason, usage: ending.usage })
}

/// The same bytes, in pieces of a size that changes.
fn pieces(body: &Bytes, random: &mut fastrand::Rng, largest: usize) -> Vec<Bytes> {
    let mut rest = body.clone();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        pieces.push(rest.split_to(random.usize(1..=largest).min(rest.len())));
    }
    pieces
}

#[tokio::test]
async fn every_recording_is_read_alike_streamed_and_whole_in_pieces_of_any_size() {
    let mut random = fastrand::Rng::with_seed(7);
    for recording in recordings() {
        let body = &recording.body;
        let mut ways = vec![vec![body.clone()], pieces(body, &mut random, 1)];
        ways.extend((0..3).map(|_| pieces(body, &mut random, 60)));
        let replies: Vec<_> = ways.into_iter().flat_map(|pieces| [pieces.clone(), pieces]).collect();
        let rounds = replies.len() / 2;
        let server = Server::scripted(replies.into_iter().map(|pieces| recording.reply(pieces, false))).await;
        let client = server.client();
        for _ in 0..rounds {
            recording.check(streamed(&client).await);
            recording.check(client.complete(&caller(), &question()).await);
        }
    }
}

/// Where a stream is cut over HTTP: around the ends of its lines, and here and there within them.
fn cuts(body: &[u8], random: &mut fastrand::Rng) -> Vec<usize> {
    let ends = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let mut cuts: Vec<_> = ends.flat_map(|at| [at.saturating_sub(1), at, at + 1]).collect();
    cuts.extend((0..6).map(|_| random.usize(0..=body.len())));
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

#[tokio::test]
async fn a_recording_that_is_cut_off_is_never_ok_with_half() {
    let mut random = fastrand::Rng::with_seed(11);
    for recording in recordings() {
        let cuts = cuts(&recording.body, &mut random);
        let replies = cuts.iter().flat_map(|at| {
            let begun = recording.body.slice(..*at);
            [false, true].map(|breaks| recording.reply(vec![begun.clone()], breaks))
        });
        let server = Server::scripted(replies.collect::<Vec<_>>()).await;
        let client = server.client();
        for at in cuts {
            for breaks in [false, true] {
                let result = streamed(&client).await;
                if breaks && recording.expected.finish_reason.is_some() {
                    // A connection that breaks is no end, unless the end was said before.
                    let said = recording.body[..at].windows(6).any(|it| it == b"[DONE]");
                    assert!(said || result.is_err(), "{} broken at {at}: {result:?}", recording.name);
                }
                let result = result.map(|it| (it.text, it.finish_reason)).map_err(|error| error.message);
                recording.check_cut(at, result);
            }
        }
    }
}

/// The same at every byte, without HTTP.
#[test]
fn every_prefix_of_a_recording_is_never_ok_with_half() {
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

/// A limit in disguise is one the module can wait for.
#[tokio::test]
async fn errors_under_200_have_the_kind_they_name() {
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
