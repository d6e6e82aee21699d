//! Runs `vectors/NAME.toml` of each scheme: a valid request, and the outcomes of changes to it. The signatures were
//! made by other programs. `tests/independent` runs the same files with the schemes' own implementations.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use modhost_ingress::sources::{Received, Source};
use serde::Deserialize;

use super::{headers, receive, source};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    now: u64,
    source: String,
    secrets: BTreeMap<String, String>,
    good: Good,
    event: Outcome,
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Good {
    headers: BTreeMap<String, String>,
    body: String,
}

/// The differences from the valid request, and the outcome: rejected if `refused` is set, otherwise accepted.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Case {
    name: String,
    /// Headers that replace those of the same name.
    headers: BTreeMap<String, String>,
    without: Vec<String>,
    /// Headers in addition to those of the same name.
    also: BTreeMap<String, String>,
    body: Option<String>,
    now: Option<u64>,
    /// The differences from the valid event.
    event: Outcome,
    /// A part of the reason.
    refused: Option<String>,
    status: Option<u16>,
    /// The outcome of other implementations, if it differs.
    #[allow(dead_code)]
    official: Option<String>,
}

/// The event of a request, or the response to a challenge.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Outcome {
    id: Option<String>,
    name: Option<String>,
    company: Option<String>,
    user: Option<String>,
    created_at: Option<u64>,
    payload: Option<String>,
    answered: Option<u16>,
    says: Option<String>,
}

impl Outcome {
    /// Returns this outcome, with missing fields from the other.
    fn or(&self, other: &Self) -> Self {
        let text = |mine: &Option<String>, other: &Option<String>| mine.clone().or_else(|| other.clone());
        if self.answered.is_some() {
            return self.clone();
        }
        Self {
            id: text(&self.id, &other.id),
            name: text(&self.name, &other.name),
            company: text(&self.company, &other.company),
            user: text(&self.user, &other.user),
            created_at: self.created_at.or(other.created_at),
            payload: text(&self.payload, &other.payload),
            answered: None,
            says: None,
        }
    }

    async fn of(received: Received) -> Self {
        match received {
            Received::Event(event) => Self {
                id: Some(event.id.clone()),
                name: Some(event.name.clone()),
                company: event.company_id.clone(),
                user: event.user_id.clone(),
                created_at: event.created_at,
                payload: Some(event.payload().to_owned()),
                ..Self::default()
            },
            Received::Challenge(answer) => Self {
                answered: Some(answer.status().as_u16()),
                says: Some(String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap()),
                ..Self::default()
            },
        }
    }
}

impl Vectors {
    fn source(&self) -> Source {
        let secrets: Vec<_> = self.secrets.iter().map(|(name, secret)| (name.as_str(), secret.as_str())).collect();
        source(&self.source, &secrets)
    }

    fn headers(&self, case: &Case) -> HeaderMap {
        let mut all = headers(self.good.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        for name in &case.without {
            assert!(all.remove(name.as_str()).is_some(), "the valid request has no header {name}");
        }
        for (name, value) in &case.headers {
            all.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        for (name, value) in &case.also {
            all.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        all
    }

    async fn check(&self, source: &Source, case: &Case) {
        let body = case.body.as_ref().unwrap_or(&self.good.body);
        match receive(source, &self.headers(case), body, case.now.unwrap_or(self.now)) {
            Ok(received) => {
                assert_eq!(case.refused, None, "accepted a request that must be rejected");
                assert_eq!(Outcome::of(received).await, case.event.or(&self.event));
            }
            Err(rejection) => {
                let expected =
                    case.refused.as_deref().unwrap_or_else(|| panic!("rejected a valid request: {rejection}"));
                assert!(rejection.to_string().contains(expected), "{rejection}\ninstead of\n{expected}");
                assert_eq!(Some(rejection.status(&*source.scheme).as_u16()), case.status);
            }
        }
    }
}

#[tokio::test]
async fn accepts_and_rejects_the_test_vectors() {
    for (scheme, vectors) in all() {
        let source = vectors.source();
        println!("{scheme}");
        vectors.check(&source, &Case::default()).await;
        let mut names = HashSet::new();
        for case in &vectors.case {
            println!("{scheme}: {}", case.name);
            assert!(names.insert(&case.name), "duplicate name of a case");
            vectors.check(&source, case).await;
        }
    }
}

/// Without keys, only the scheme `none` accepts requests.
#[test]
fn rejects_everything_without_keys() {
    for (scheme, vectors) in all() {
        let source = Source { keys: Vec::new(), ..vectors.source() };
        let accepted = receive(&source, &vectors.headers(&Case::default()), &vectors.good.body, vectors.now).is_ok();
        assert_eq!(accepted, scheme == "none", "{scheme}");
    }
}

/// A request signed for one scheme is rejected by every other.
#[test]
fn rejects_requests_signed_for_another_scheme() {
    let all = all();
    for (scheme, vectors) in all.iter().filter(|(scheme, _)| scheme != "none") {
        let source = vectors.source();
        for (other, theirs) in all.iter().filter(|(other, _)| other != scheme) {
            let accepted = receive(&source, &theirs.headers(&Case::default()), &theirs.good.body, theirs.now).is_ok();
            assert!(!accepted, "{scheme} accepts a request signed for {other}");
        }
    }
}

/// Discord specifies no tolerance for timestamps, but an operator can configure one.
#[test]
fn checks_discords_timestamp_if_a_tolerance_is_set() {
    let (_, mut vectors) = all().into_iter().find(|(scheme, _)| scheme == "discord").unwrap();
    vectors.source.push_str("tolerance = \"1m\"\ntolerance_ahead = \"10s\"\n");
    let source = vectors.source();
    let at = |now| receive(&source, &vectors.headers(&Case::default()), &vectors.good.body, now);
    for now in [vectors.now - 10, vectors.now, vectors.now + 60] {
        assert!(at(now).is_ok(), "{now}");
    }
    for now in [vectors.now - 11, vectors.now + 61] {
        let rejection = at(now).err().unwrap();
        assert!(rejection.to_string().contains("timestamp"), "{rejection}");
    }
}

fn all() -> Vec<(String, Vectors)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemes/vectors");
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let vectors = toml::from_str(&fs::read_to_string(&path).unwrap());
            let vectors = vectors.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.file_stem().unwrap().to_string_lossy().into_owned(), vectors)
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    let schemes = [
        "archivus",
        "discord",
        "github",
        "hmac",
        "linear",
        "nexus",
        "none",
        "shopify",
        "slack",
        "standard-webhooks",
        "stripe",
        "unique",
    ];
    assert_eq!(names, schemes, "a scheme has no vectors, or vectors have no scheme");
    all
}
