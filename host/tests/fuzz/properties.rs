//! The properties that the fuzz tests check. The tests of this target check them with inputs of proptest, the targets
//! in `fuzz/` with inputs of libFuzzer.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use modhost_config::Settings;
use modhost_config::source::EventFields;
use modhost_core::event::event_filter::{Candidate, EventFilter, ModuleId, NamePattern, Path};
use modhost_core::event::{Event, Subject};
use modhost_core::json::{Document, Value};
use modhost_core::secret::Secret;
use modhost_ingress::sources::schemes::{self, Outgoing, Request};
use modhost_ingress::sources::{Reader, Source, TenantResolver};
use modhost_platform::fuzzing;

/// The lines of a scheme in modules.toml, a secret, and the headers it reads.
struct Case {
    lines: &'static str,
    secret: &'static str,
    headers: &'static [&'static str],
    /// Whether the signature covers the body.
    signs: bool,
}

const CASES: [Case; 13] = [
    case("scheme = 'unique'", "usig_1", &["x-unique-signature", "x-unique-created-at"]),
    Case { signs: false, ..case("scheme = 'nexus'\nheader = 'x-secret'", "sesame", &["x-secret"]) },
    case("scheme = 'archivus'", "whk_1", &["x-archivus-signature"]),
    case("scheme = 'standard-webhooks'", "whsec_c2VzYW1l", &STANDARD),
    case("scheme = 'standard-webhooks'", "whsk_ERERERERERERERERERERERERERERERERERERERERERE=", &STANDARD),
    case("scheme = 'github'", "hush", &["x-hub-signature-256", "x-github-event", "x-github-delivery"]),
    case("scheme = 'stripe'", "whsec_1", &["stripe-signature"]),
    case("scheme = 'slack'", "hush", &["x-slack-signature", "x-slack-request-timestamp"]),
    case("scheme = 'shopify'", "hush", &["x-shopify-hmac-sha256", "x-shopify-topic", "x-shopify-event-id"]),
    case("scheme = 'linear'", "lin_wh_1", &["linear-signature", "linear-delivery"]),
    case(
        "scheme = 'discord'",
        "1111111111111111111111111111111111111111111111111111111111111111\
         d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737",
        &["x-signature-ed25519", "x-signature-timestamp"],
    ),
    case("scheme = 'hmac'\nheader = 'x-signature'", "hush", &["x-signature"]),
    case(
        "scheme = 'hmac'\nheader = 'x-signature'\nalgorithm = 'sha512'\nencoding = 'base64'\nprefix = 'sig:'\n\
         timestamp_header = 'x-time'\nsigned = '{timestamp}.{body}'",
        "hush",
        &["x-signature", "x-time"],
    ),
];

const STANDARD: [&str; 6] =
    ["svix-id", "svix-timestamp", "svix-signature", "webhook-id", "webhook-timestamp", "webhook-signature"];

/// The number of sources; see [`source`].
pub const SOURCES: usize = CASES.len();

/// The time of every check.
const NOW: Duration = Duration::from_secs(1_767_225_600);

const fn case(lines: &'static str, secret: &'static str, headers: &'static [&'static str]) -> Case {
    Case { lines, secret, headers, signs: true }
}

/// Returns a source; any number is valid.
fn source(number: usize) -> (&'static Case, &'static Source) {
    static ALL: LazyLock<Vec<Source>> = LazyLock::new(|| CASES.iter().map(make).collect());
    (&CASES[number % SOURCES], &ALL[number % SOURCES])
}

fn make(case: &Case) -> Source {
    let text = format!(
        "[[source]]\nname = 'in'\npath = '/in'\nsecrets = ['env:S']\n{}\n[[tenant]]\nname = 'default'\n\
         platform = {{ kind = 'unique', api_base = 'env:B', app_id = 'env:A', api_key = 'env:K' }}",
        case.lines
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
                owners: Default::default(),
                also: Default::default(),
            },
        },
        path: "/in".into(),
        keys: vec![scheme.key(&Secret::new(case.secret)).unwrap()],
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

/// A signed body is accepted; another body with the same signature isn't.
pub fn check_changed_body(number: usize, body: &[u8], other: &[u8]) {
    let (case, source) = source(number);
    let headers = signed(source, body);
    // Linear requires a timestamp in the body.
    if !case.lines.contains("linear") {
        assert!(takes(source, &headers, body), "{}", case.lines);
    }
    if case.signs && body != other {
        assert!(!takes(source, &headers, other), "{}", case.lines);
    }
}

/// A signed body is refused after one byte of its signature header was changed.
pub fn check_changed_header(number: usize, place: usize, byte: u8) {
    let (case, source) = source(number);
    let body = source.scheme.with_current_time(b"{}", now()).into_owned();
    let mut headers = signed(source, &body);
    assert!(takes(source, &headers, &body), "{}", case.lines);
    // Only the signature itself; the other headers may not be signed.
    let is_signature = |name: &&&str| name.contains("sig") || name.contains("hmac") || name.contains("secret");
    let names: Vec<_> = case.headers.iter().filter(|name| headers.contains_key(**name)).filter(is_signature).collect();
    let name = *names[place % names.len()];
    let mut value = headers[name].as_bytes().to_vec();
    let place = place % value.len();
    value[place] = byte;
    let Ok(changed) = HeaderValue::from_bytes(&value) else { return };
    if changed == headers[name] {
        return;
    }
    headers.insert(HeaderName::from_static(name), changed);
    assert!(!takes(source, &headers, &body), "{}: {headers:?}", case.lines);
}

/// Unsigned requests are refused, and so are all requests to a source without a secret.
pub fn check_unsigned_request(number: usize, values: &[Vec<u8>], body: &[u8]) {
    let (case, source) = source(number);
    let mut headers = HeaderMap::new();
    for (name, value) in case.headers.iter().cycle().zip(values) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    assert!(!takes(source, &headers, body), "{}: {headers:?}", case.lines);
    let request = Request { headers: &signed(source, body), body, now: now() };
    assert!(source.scheme.verify(&request, &[]).is_err(), "{}", case.lines);
}

/// A body results in an event of bounded size whose payload is a part of the body, or in no event.
pub fn check_event(number: usize, body: &[u8]) -> Option<Event> {
    let (case, source) = source(number);
    let body = Bytes::copy_from_slice(body);
    let mut headers = HeaderMap::new();
    for name in case.headers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("value"));
    }
    let request = Request { headers: &headers, body: &body, now: now() };
    let _ = source.scheme.challenge(&request);
    let _ = source.scheme.accepted_response(&request);
    let _ = source.scheme.with_current_time(&body, now());
    let event = source.reader.read(&headers, &body).ok()?;
    // The parts of an event that are stored and shown are short, however long the body is.
    let texts = [Some(&event.id), Some(&event.name), event.company_id.as_ref(), event.user_id.as_ref()];
    let longest = texts.into_iter().flatten().map(String::len).max().unwrap_or(0);
    assert!(longest <= 4096, "{longest} bytes");
    assert!(event.created_at.is_none_or(|time| time < 253_402_300_800), "{:?}", event.created_at);
    // The stored body is the original bytes; the module gets JSON that every parser accepts.
    assert_eq!(event.raw().as_ptr(), body.as_ptr());
    assert!(event.payload_range().end <= body.len() * 6 + 2);
    assert_strict(event.payload());
    // The journal restores the same event from the same bytes.
    let again = Event::new(event.header.clone(), body.clone(), event.payload_range());
    assert_eq!(
        (again.payload(), &again.subject, again.parse_error()),
        (event.payload(), &event.subject, event.parse_error())
    );
    Some(event)
}

/// Checks that the strictest JSON parser of a guest accepts a text, except for its depth.
fn assert_strict(json: &str) {
    serde_json::from_str::<serde::de::IgnoredAny>(json).unwrap_or_else(|error| panic!("{error}: {json:.200}"));
    if let Err(error) = serde_json::from_str::<serde_json::Value>(json) {
        assert!(error.to_string().contains("recursion limit"), "{error}: {json:.200}");
    }
}

/// JSON is parsed or refused. If serde_json parses it too, the values are equal; and parsed JSON is rewritten so that
/// serde_json accepts it.
pub fn check_json_parser(text: &[u8]) {
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
    // Strict JSON stays unchanged, and each field has the same value as in serde_json.
    assert_eq!(decoded, others);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&strict).unwrap(), others);
    let document = Document::new(value);
    for (key, field) in others.as_object().into_iter().flatten() {
        let found = document.find([key.as_str()]).unwrap().value;
        assert_eq!(found.text().map(|it| it.text.into_owned()), field.as_str().map(str::to_owned), "{key}");
        // serde_json rounds numbers with more digits than a double has, so they differ from the text.
        let is_exact = !(field.is_array() || field.is_object() || field.is_f64());
        assert!(!is_exact || found.equals(field), "{key}: {found:?} is not {field}");
    }
}

/// An unusual JSON value doesn't affect other fields: the module is found, its `match` conditions apply, and optional
/// fields with such a value are omitted.
pub fn check_unusual_value(odd: &[u8]) {
    // Without surrounding bytes: a byte order mark isn't part of a value.
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
        let wants = |number: i64| EventFilter {
            events: vec![NamePattern::Prefix("unique.".into())],
            fields: [("kind", "order".into()), ("number", number.into())]
                .into_iter()
                .map(|(path, value): (_, serde_json::Value)| (Path::new(path).unwrap(), vec![value]))
                .collect(),
            ..EventFilter::default()
        };
        let check = |number| wants(number).check(ModuleId::shared("Test"), &Candidate::new(&event));
        assert_eq!(check(9_007_199_254_740_993), Ok(()));
        assert!(check(9_007_199_254_740_992).is_err());
    }
}

/// A modules.toml is accepted, or refused with errors that have locations in it.
pub fn check_settings(text: &str) {
    let Err(errors) = Settings::parse(text, "modules.toml") else { return };
    let messages = errors.to_string();
    assert!(messages.starts_with("modules.toml"), "{messages}");
}

/// The body of a completion is an answer or an error: an answer isn't empty, and the chunking of a stream makes no
/// difference.
pub fn check_completion(body: &[u8], size: usize) {
    let whole = fuzzing::completion(body);
    if let Ok(completion) = &whole {
        let reason = completion.finish_reason.as_deref().unwrap_or_default();
        assert!(!completion.text.is_empty() || !reason.is_empty(), "an empty answer");
        assert!(!["null", "error"].contains(&reason), "{reason}");
    }
    let once = fuzzing::completion_in_pieces(body, body.len());
    assert_eq!(once, fuzzing::completion_in_pieces(body, size), "in chunks of {size} bytes");
}

/// A stream of a completion, with the variations between servers.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The text of each chunk.
    pub texts: Vec<String>,
    /// The lines before each chunk: indexes of [`NOISE`].
    pub noise: Vec<u8>,
    /// The index of the choice.
    pub index: u8,
    /// The JSON style of the chunks; see [`Stream::write`].
    pub style: u8,
    /// The value for a missing finish reason: an index of [`NO_REASON`].
    pub no_reason: u8,
    /// The end: 0 with a reason and `[DONE]`, 1 with a reason, 2 with `[DONE]`, 3 with an error, 4 with nothing.
    pub end: u8,
}

/// Lines that servers send between chunks.
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

/// Values that servers send for a missing finish reason.
pub const NO_REASON: [&str; 4] = ["null", "\"\"", "\"null\"", "\"None\""];

impl Stream {
    /// The whole text; `None` if it isn't an answer.
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
                // All non-ASCII text escaped, and split between UTF-16 code units.
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

/// A stream results in its text in chunks of any size; a truncated stream never succeeds with less.
pub fn check_truncated_stream(stream: &Stream, size: usize) {
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

/// The chunking of an event stream makes no difference, and no event exceeds the limit.
pub fn check_event_chunking(stream: &[u8], size: usize) {
    const LIMIT: usize = 64;
    let events = fuzzing::events(stream, stream.len(), LIMIT);
    assert_eq!(events, fuzzing::events(stream, size, LIMIT), "in chunks of {size} bytes");
    assert!(events.iter().flatten().all(|(name, data)| name.len() <= LIMIT * 3 && data.len() <= LIMIT));
}

/// An unusual item of a list doesn't affect the other items.
pub fn check_unusual_item(odd: &[u8]) {
    let (first, last) = (br#"{"id":"first","text":"a"}"#, br#"{"id":"last","text":"z"}"#);
    let list = [&b"["[..], first, b",", odd, b",", last, b"]"].concat();
    // If the item isn't JSON, the whole list isn't.
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

/// A value in a `.env` file is read exactly as it is written, or its line is refused. Any other content is handled too.
pub fn check_dotenv_value(value: &str) {
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
