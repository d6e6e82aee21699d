//! What has to hold whatever comes. The tests beside this file try it with what proptest thinks of, the targets in `fuzz/`
//! with what libFuzzer finds; both call these functions.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use modhost_config::Settings;
use modhost_config::source::EventFields;
use modhost_core::event::interest::{Candidate, Interest, NamePattern, Path};
use modhost_core::event::{Event, Subject};
use modhost_core::json::{Document, Value};
use modhost_core::secret::Secret;
use modhost_ingress::sources::schemes::{self, Outgoing, Request};
use modhost_ingress::sources::{Reader, Source, TenantResolver};
use modhost_platform::fuzzing;

/// A scheme's lines in modules.toml, a secret of it, and the headers it looks at.
struct Case {
    lines: &'static str,
    secret: &'static str,
    headers: &'static [&'static str],
    /// Whether what is in the body is signed.
    signs: bool,
}

const WAYS: [Case; 13] = [
    way("scheme = 'unique'", "usig_1", &["x-unique-signature", "x-unique-created-at"]),
    Case { signs: false, ..way("scheme = 'nexus'\nheader = 'x-secret'", "sesame", &["x-secret"]) },
    way("scheme = 'archivus'", "whk_1", &["x-archivus-signature"]),
    way("scheme = 'standard-webhooks'", "whsec_c2VzYW1l", &STANDARD),
    way("scheme = 'standard-webhooks'", "whsk_ERERERERERERERERERERERERERERERERERERERERERE=", &STANDARD),
    way("scheme = 'github'", "hush", &["x-hub-signature-256", "x-github-event", "x-github-delivery"]),
    way("scheme = 'stripe'", "whsec_1", &["stripe-signature"]),
    way("scheme = 'slack'", "hush", &["x-slack-signature", "x-slack-request-timestamp"]),
    way("scheme = 'shopify'", "hush", &["x-shopify-hmac-sha256", "x-shopify-topic", "x-shopify-event-id"]),
    way("scheme = 'linear'", "lin_wh_1", &["linear-signature", "linear-delivery"]),
    way(
        "scheme = 'discord'",
        "1111111111111111111111111111111111111111111111111111111111111111\
         d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737",
        &["x-signature-ed25519", "x-signature-timestamp"],
    ),
    way("scheme = 'hmac'\nheader = 'x-signature'", "hush", &["x-signature"]),
    way(
        "scheme = 'hmac'\nheader = 'x-signature'\nalgorithm = 'sha512'\nencoding = 'base64'\nprefix = 'sig:'\n\
         timestamp_header = 'x-time'\nsigned = '{timestamp}.{body}'",
        "hush",
        &["x-signature", "x-time"],
    ),
];

const STANDARD: [&str; 6] =
    ["svix-id", "svix-timestamp", "svix-signature", "webhook-id", "webhook-timestamp", "webhook-signature"];

/// How many different sources [`source`] knows.
pub const SOURCES: usize = WAYS.len();

/// When all of this happens.
const NOW: Duration = Duration::from_secs(1_767_225_600);

const fn way(lines: &'static str, secret: &'static str, headers: &'static [&'static str]) -> Case {
    Case { lines, secret, headers, signs: true }
}

/// One of the sources; any number names one.
fn source(number: usize) -> (&'static Case, &'static Source) {
    static ALL: LazyLock<Vec<Source>> = LazyLock::new(|| WAYS.iter().map(make).collect());
    (&WAYS[number % SOURCES], &ALL[number % SOURCES])
}

fn make(way: &Case) -> Source {
    let text = format!(
        "[[source]]\nname = 'in'\npath = '/in'\nsecrets = ['env:S']\n{}\n[[tenant]]\nname = 'default'\n\
         platform = {{ kind = 'unique', api_base = 'env:B', app_id = 'env:A', api_key = 'env:K' }}",
        way.lines
    );
    let settings = Settings::parse(&text, "modules.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let scheme = schemes::scheme(&settings.sources[0].webhook().unwrap().scheme);
    Source {
        reader: Reader {
            name: "in".into(),
            envelope: scheme.envelope().with(&EventFields::default()),
            owners: TenantResolver::One {
                tenant: "default".into(),
                companies: Vec::new(),
                of_others: Default::default(),
            },
        },
        path: "/in".into(),
        keys: vec![scheme.key(&Secret::new(way.secret)).unwrap()],
        events_per_second: None,
        scheme,
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

fn signed(source: &Source, body: &[u8]) -> HeaderMap {
    let outgoing = Outgoing { body, headers: &HeaderMap::new(), now: now(), id: "id_1" };
    source.scheme.sign(&outgoing, source.keys.first()).unwrap()
}

fn takes(source: &Source, headers: &HeaderMap, body: &[u8]) -> bool {
    source.scheme.verify(&Request { headers, body, now: now() }, &source.keys).is_ok()
}

/// A signed body is taken; another one in its place is not.
pub fn a_changed_body_is_refused(number: usize, body: &[u8], other: &[u8]) {
    let (way, source) = source(number);
    let headers = signed(source, body);
    // One scheme wants a time in the body.
    if !way.lines.contains("linear") {
        assert!(takes(source, &headers, body), "{}", way.lines);
    }
    if way.signs && body != other {
        assert!(!takes(source, &headers, other), "{}", way.lines);
    }
}

/// A signed body with one byte of a header changed that is needed is not taken.
pub fn a_changed_header_is_refused(number: usize, place: usize, byte: u8) {
    let (way, source) = source(number);
    let body = source.scheme.dated(b"{}", now()).into_owned();
    let mut headers = signed(source, &body);
    assert!(takes(source, &headers, &body), "{}", way.lines);
    // The signature itself; what else there is may not be signed.
    let is_signature = |name: &&&str| name.contains("sig") || name.contains("hmac") || name.contains("secret");
    let names: Vec<_> = way.headers.iter().filter(|name| headers.contains_key(**name)).filter(is_signature).collect();
    let name = *names[place % names.len()];
    let mut value = headers[name].as_bytes().to_vec();
    let place = place % value.len();
    value[place] = byte;
    let Ok(changed) = HeaderValue::from_bytes(&value) else { return };
    if changed == headers[name] {
        return;
    }
    headers.insert(HeaderName::from_static(name), changed);
    assert!(!takes(source, &headers, &body), "{}: {headers:?}", way.lines);
}

/// Nothing that wasn't signed is taken, and nobody is let in who has no key.
pub fn what_nobody_signed_is_refused(number: usize, values: &[Vec<u8>], body: &[u8]) {
    let (way, source) = source(number);
    let mut headers = HeaderMap::new();
    for (name, value) in way.headers.iter().cycle().zip(values) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    assert!(!takes(source, &headers, body), "{}: {headers:?}", way.lines);
    let request = Request { headers: &signed(source, body), body, now: now() };
    assert!(source.scheme.verify(&request, &[]).is_err(), "{}", way.lines);
}

/// A body makes an event of bounded size whose payload is a part of it, or none.
pub fn a_body_is_an_event_or_none(number: usize, body: &[u8]) -> Option<Event> {
    let (way, source) = source(number);
    let body = Bytes::copy_from_slice(body);
    let mut headers = HeaderMap::new();
    for name in way.headers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("value"));
    }
    let request = Request { headers: &headers, body: &body, now: now() };
    let _ = source.scheme.challenge(&request);
    let _ = source.scheme.taken(&request);
    let _ = source.scheme.dated(&body, now());
    let event = source.reader.read(&headers, &body).ok()?;
    // What all of the host keeps and shows of it is short, however long the body is.
    let texts = [Some(&event.id), Some(&event.name), event.company_id.as_ref(), event.user_id.as_ref()];
    let longest = texts.into_iter().flatten().map(String::len).max().unwrap_or(0);
    assert!(longest <= 4096, "{longest} bytes");
    assert!(event.created_at.is_none_or(|time| time < 253_402_300_800), "{:?}", event.created_at);
    // And what is kept is the body's own bytes; what it is given, JSON that every parser takes.
    assert_eq!(event.raw().as_ptr(), body.as_ptr());
    assert!(event.payload_range().end <= body.len() * 6 + 2);
    assert_strict(event.payload());
    // The journal makes the same event of the same bytes.
    let again = Event::new(event.header.clone(), body.clone(), event.payload_range());
    assert_eq!((again.payload(), &again.subject, again.flaw()), (event.payload(), &event.subject, event.flaw()));
    Some(event)
}

/// JSON that the strictest parser of a guest accepts, except for its depth.
fn assert_strict(json: &str) {
    serde_json::from_str::<serde::de::IgnoredAny>(json).unwrap_or_else(|error| panic!("{error}: {json:.200}"));
    if let Err(error) = serde_json::from_str::<serde_json::Value>(json) {
        assert!(error.to_string().contains("recursion limit"), "{error}: {json:.200}");
    }
}

/// JSON is read or refused. What serde_json reads is read alike; what is read is rewritten so that serde_json reads it, too.
pub fn json_is_read_as_others_read_it(text: &[u8]) {
    let others = serde_json::from_slice::<serde_json::Value>(text);
    let value = match Value::read(text) {
        Ok(value) => value,
        Err(error) => return assert!(others.is_err(), "{error}: {}", String::from_utf8_lossy(text)),
    };
    let strict = value.to_strict();
    assert_strict(&strict);
    assert_eq!(Value::read(strict.as_bytes()).unwrap().to_strict(), strict);
    let decoded = value.to_json();
    assert_eq!(decoded.is_null(), value.is_null());
    let Ok(others) = others else { return };
    // Strict JSON stays as it is, and each field is what others find there.
    assert_eq!(decoded, others);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&strict).unwrap(), others);
    let document = Document::new(value);
    for (key, field) in others.as_object().into_iter().flatten() {
        let found = document.find([key.as_str()]).unwrap().value;
        assert_eq!(found.text().map(|it| it.text.into_owned()), field.as_str().map(str::to_owned), "{key}");
        // A double others made of more digits than it holds is not what was written.
        let is_exact = !(field.is_array() || field.is_object() || field.is_f64());
        assert!(!is_exact || found.equals(field), "{key}: {found:?} is not {field}");
    }
}

/// A value that may stand in JSON, however odd, hides nothing beside it: the module is found, its conditions hold, and what it
/// can do without is left out.
pub fn an_odd_value_hides_nothing(odd: &[u8]) {
    // Without what may stand around it: a byte order mark is no part of a value.
    let Ok(odd) = Value::read(odd).map(Value::as_bytes) else { return };
    for (before, after) in [("", "\"zone\":"), ("\"zone\":", "")] {
        let (first, last) = if before.is_empty() { (&b""[..], odd) } else { (odd, &b""[..]) };
        let comma = |value: &[u8], at_end: bool| match (value.is_empty(), at_end) {
            (true, _) => Vec::new(),
            (_, true) => [b",".as_slice(), after.as_bytes(), value].concat(),
            (_, false) => [before.as_bytes(), value, b","].concat(),
        };
        let body = [
            br#"{"id":"1","companyId":"c","userId":"u","payload":{"#.as_slice(),
            &comma(first, false),
            br#""name":"Test","chatId":"chat","assistantId":"a","description":"#,
            odd,
            br#","configuration":{"k":"#,
            odd,
            br#"},"userMessage":{"id":"m","text":"hello","language":"#,
            odd,
            br#"},"assistantMessage":{"id":"r"},"kind":"order","number":9007199254740993"#,
            &comma(last, true),
            br#"},"event":"unique.chat.external-module.chosen","createdAt":"#,
            odd,
            b"}",
        ]
        .concat();
        let event = source(0).1.reader.read(&HeaderMap::new(), &Bytes::from(body.clone()));
        let event = event.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body)));
        assert!(matches!(event.subject, Subject::ModuleChosen(_)), "{}", String::from_utf8_lossy(&body));
        assert_eq!((event.module(), event.assistant_message_id()), (Some("Test"), Some("r")));
        let wants = |number: i64| Interest {
            events: vec![NamePattern::Prefix("unique.".into())],
            fields: [("kind", "order".into()), ("number", number.into())]
                .into_iter()
                .map(|(path, value): (_, serde_json::Value)| (Path::new(path).unwrap(), vec![value]))
                .collect(),
            ..Interest::default()
        };
        let judge = |number| wants(number).judge(&"Test".into(), &Candidate::new(&event));
        assert_eq!(judge(9_007_199_254_740_993), Ok(()));
        assert!(judge(9_007_199_254_740_992).is_err());
    }
}

/// A modules.toml is read, or its mistakes are told, each with a place in it.
pub fn settings_are_read_or_refused(text: &str) {
    let Err(errors) = Settings::parse(text, "modules.toml") else { return };
    let told = errors.to_string();
    assert!(told.starts_with("modules.toml"), "{told}");
}

/// Bytes that are a completion's body, or none: an answer has something in it, and where a stream is cut into pieces makes no
/// difference.
pub fn a_completion_is_an_answer_or_an_error(body: &[u8], size: usize) {
    let whole = fuzzing::completion(body);
    if let Ok(completion) = &whole {
        let reason = completion.finish_reason.as_deref().unwrap_or_default();
        assert!(!completion.text.is_empty() || !reason.is_empty(), "an answer with nothing in it");
        assert!(!["null", "error"].contains(&reason), "{reason}");
    }
    let once = fuzzing::completion_in_pieces(body, body.len());
    assert_eq!(once, fuzzing::completion_in_pieces(body, size), "in pieces of {size}");
}

/// A stream as servers send it, with what differs between them.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The text of each piece.
    pub texts: Vec<String>,
    /// What comes before each piece: one of [`NOISE`].
    pub noise: Vec<u8>,
    /// The index of the choice.
    pub index: u8,
    /// How pieces are written; see [`Stream::write`].
    pub style: u8,
    /// What stands for no reason: one of [`NO_REASON`].
    pub no_reason: u8,
    /// How it ends: 0 with a reason and `[DONE]`, 1 with a reason, 2 with `[DONE]`, 3 with an error, 4 with nothing.
    pub end: u8,
}

/// What servers send in between.
pub const NOISE: [&str; 10] = [
    "",
    ": keep-alive\n\n",
    "data: null\n\n",
    "data:\n\n",
    "data: {}\n\n",
    "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    "id: 7\nretry: 100\n",
    "data: {\"choices\":[],\"usage\":null}\n\n",
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"Hmm\",\"content\":\"\"}}],\"usage\":{}}\n\n",
];

/// What servers write in the place of a reason to stop.
pub const NO_REASON: [&str; 4] = ["null", "\"\"", "\"null\"", "\"None\""];

impl Stream {
    /// The text of it all; none if it is no answer.
    fn text(&self) -> Option<String> {
        let text = self.texts.concat();
        match self.end % 5 {
            0 | 1 => Some(text),
            2 if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn write(&self) -> Vec<u8> {
        let mut stream = String::new();
        let no_reason = NO_REASON[usize::from(self.no_reason) % NO_REASON.len()];
        let index = self.index;
        for (place, text) in self.texts.iter().enumerate() {
            if let Some(noise) = self.noise.get(place) {
                stream.push_str(NOISE[usize::from(*noise) % NOISE.len()]);
            }
            let text = match self.style % 4 {
                // All but ASCII escaped, and cut in two between code units.
                1 => {
                    let units: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
                    let half = units.len() / 2;
                    let (first, second) = (units[..half].concat(), units[half..].concat());
                    let event = |text: &str| {
                        format!(
                            "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
                        )
                    };
                    stream.push_str(&(event(&first) + &event(&second)));
                    continue;
                }
                2 => serde_json::json!([{ "type": "thinking", "thinking": "x" }, { "type": "text", "text": text }]),
                _ => serde_json::json!(text),
            };
            let event = format!(
                "{{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":{text}}},\"finish_reason\":{no_reason}}}]}}"
            );
            let lines = if self.style % 4 == 3 { "\r\n\r\n" } else { "\n\n" };
            stream.push_str(&format!("data:{event}{lines}"));
        }
        let stop =
            format!("data: {{\"choices\":[{{\"index\":{index},\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n");
        let error = "data: {\"object\":\"error\",\"message\":\"out of memory\"}\n\ndata: [DONE]\n\n";
        stream.push_str(&match self.end % 5 {
            0 => stop + "data: [DONE]\n\n",
            1 => stop,
            2 => "data: [DONE]\n\n".to_owned(),
            3 => error.to_owned(),
            _ => String::new(),
        });
        stream.into_bytes()
    }
}

/// A stream is read as what it says, in pieces of any size; and cut off anywhere it is never Ok with less.
pub fn a_stream_is_never_half(stream: &Stream, size: usize) {
    let bytes = stream.write();
    let wanted = stream.text();
    let read = fuzzing::completion_in_pieces(&bytes, size);
    assert_eq!(read.as_ref().ok().map(|it| it.text.as_str()), wanted.as_deref(), "{stream:?}: {read:?}");
    for end in 0..bytes.len() {
        if let Ok(half) = fuzzing::completion_in_pieces(&bytes[..end], size) {
            assert_eq!(Some(half.text), wanted, "{stream:?} cut at {end}");
        }
    }
}

/// Where a stream of events is cut into pieces makes no difference, and no event is larger than it may be.
pub fn events_are_read_alike_in_any_pieces(stream: &[u8], size: usize) {
    const LIMIT: usize = 64;
    let events = fuzzing::events(stream, stream.len(), LIMIT);
    assert_eq!(events, fuzzing::events(stream, size, LIMIT), "in pieces of {size}");
    assert!(events.iter().flatten().all(|(name, data)| name.len() <= LIMIT * 3 && data.len() <= LIMIT));
}

/// One odd item of a list costs no more than itself.
pub fn an_odd_item_costs_only_itself(odd: &[u8]) {
    let (first, last) = (br#"{"id":"first","text":"a"}"#, br#"{"id":"last","text":"z"}"#);
    let list = [&b"["[..], first, b",", odd, b",", last, b"]"].concat();
    // What is no JSON between the two makes none of them all.
    if odd.trim_ascii().is_empty() || Value::read(&[&b"["[..], odd, b"]"].concat()).is_err() {
        return;
    }
    let hits = fuzzing::hits(&list).unwrap();
    let ids: Vec<_> = [hits.first(), hits.last()].into_iter().flatten().map(|hit| hit.id.as_str()).collect();
    assert_eq!(ids, ["first", "last"]);
    let page = [&b"{\"data\":"[..], &list, b"}"].concat();
    let messages = fuzzing::messages(&page).unwrap();
    let ids: Vec<_> = [messages.first(), messages.last()].into_iter().flatten().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, ["first", "last"]);
}

/// A value in a `.env` file arrives as it is written, or its line is refused, whatever stands in it; so does any file.
pub fn a_variable_arrives_as_written_or_not_at_all(value: &str) {
    let _ = modhost_config::fuzzing::dotenv(value);
    let read =
        |text: String| modhost_config::fuzzing::dotenv(&text).ok().and_then(|mut variables| variables.remove("A"));
    if !value.contains('\'') {
        let quoted = read(format!("A='{value}'\n"));
        assert!(quoted.as_ref().is_none_or(|it| *it == value.replace("\r\n", "\n")), "{value:?}: {quoted:?}");
    }
    if !value.contains(['\'', '"', '\\', '#', '\n', '\r']) {
        let plain = read(format!("A={value}\n"));
        assert!(plain.as_ref().is_none_or(|it| it == value.trim_matches([' ', '\t'])), "{value:?}: {plain:?}");
    }
}
