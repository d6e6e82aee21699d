//! Fuzz tests: no input causes a panic, a forged request is never accepted, and the work is proportional to the input.
//!
//! `PROPTEST_CASES=100000 cargo test --release --test fuzz` runs longer; `fuzz/` has the same properties for
//! cargo-fuzz.

mod properties;
mod senders;

use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;

use properties::{
    SOURCES, Stream, check_changed_body, check_changed_header, check_completion, check_dotenv_value, check_event,
    check_event_chunking, check_json_parser, check_settings, check_truncated_stream, check_unsigned_request,
    check_unusual_item, check_unusual_value,
};
use senders::{Sent, Writer, check_sent_value};

/// JSON with known keys and values of any kind, valid or not.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| serde_json::json!(number).to_string()),
        "[0-9]{1,400}",
        "-?[0-9]e[+-]?[0-9]{1,5}",
        ".{0,40}".prop_map(|text| serde_json::json!(text).to_string()),
        "(inf|nan|-?1e400|2026-01-01T00:00:00Z|9{20})".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        let key =
            "(id|event|event_id|type|payload|data|companyId|team_id|createdAt|webhookTimestamp|action|name|[a-c]{1,2})";
        let fields = vec((key, inner.clone()), 0..8).prop_map(|fields| {
            let fields: Vec<_> = fields.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{}}}", fields.join(","))
        });
        prop_oneof![vec(inner, 0..6).prop_map(|items| format!("[{}]", items.join(", "))), fields.clone(), fields]
    })
}

/// JSON as JavaScript, Python and Go write it: with lone surrogates, Python's `NaN`, numbers of any size (as Java
/// writes them), Go's escapes, duplicate keys, and any depth.
fn senders_json() -> impl Strategy<Value = String> {
    let string = vec(
        prop_oneof![
            "[a-z ]{0,5}",
            r"\\ud[89ab][0-9a-f]{2}",
            r"\\ud[c-f][0-9a-f]{2}",
            r"\\ud83d\\ude[0-9a-f]{2}",
            r"\\u00[0-9a-f]{2}",
            Just(r"\u003c\u2028".to_owned()),
            Just(r#"\"\\\/\b\f\n\r\t"#.to_owned()),
            "[\u{1}\t\u{7f}\u{85}\u{2028}\u{fffd}\u{1f600}é]{0,3}",
        ],
        0..6,
    );
    let string = string.prop_map(|parts| format!("\"{}\"", parts.concat()));
    let leaf = prop_oneof![
        string.clone(),
        "(null|true|false|NaN|Infinity|-Infinity|-0|-0\\.0|1e400|-1E\\+400|5e-324|1e21)",
        "-?[1-9][0-9]{0,40}(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,6})?",
        "[1-9][0-9]{300,600}",
        (1..400usize).prop_map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth))),
        (1..200usize).prop_map(|depth| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth))),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let key = prop_oneof![Just("\"a\"".to_owned()), Just(r#""\u0061""#.to_owned()), string.clone()];
        let fields = vec((key, inner.clone()), 0..6).prop_map(|fields| {
            let fields: Vec<_> = fields.into_iter().map(|(key, value)| format!("{key} :{value}")).collect();
            format!("{{ {} }}", fields.join(",\n"))
        });
        prop_oneof![vec(inner, 0..6).prop_map(|items| format!("[{}]", items.join(" , "))), fields]
    })
}

/// A value of a program in JavaScript, Python or Go.
fn sent() -> impl Strategy<Value = Sent> {
    // Lone surrogates, and pairs in both orders.
    let unit = prop_oneof![0..0x80u16, any::<u16>(), 0xd800..0xe000u16, Just(0xd83d), Just(0xde42)];
    let text = vec(unit, 0..8).boxed();
    let leaf = prop_oneof![
        Just(Sent::Null),
        any::<bool>().prop_map(Sent::Bool),
        any::<i64>().prop_map(|integer| Sent::Integer(integer.into())),
        any::<i128>().prop_map(Sent::Integer),
        prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::MIN), any::<f64>()].prop_map(Sent::Float),
        text.clone().prop_map(Sent::Text),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let known = "(a|id|name)".prop_map(|name| name.encode_utf16().collect::<Vec<_>>());
        let key = prop_oneof![known, text.clone()];
        prop_oneof![vec(inner.clone(), 0..6).prop_map(Sent::List), vec((key, inner), 0..6).prop_map(Sent::Object),]
    })
}

fn writer() -> impl Strategy<Value = Writer> {
    prop_oneof![Just(Writer::JavaScript), Just(Writer::Python), Just(Writer::Go)]
}

/// [`senders_json`] as bytes, some of them with invalid UTF-8, or truncated or modified.
fn odd_bytes() -> impl Strategy<Value = Vec<u8>> {
    let whole = senders_json().prop_map(String::into_bytes).boxed();
    let spoiled = (senders_json(), any::<usize>(), any::<u8>(), any::<bool>()).prop_map(|(json, place, byte, cut)| {
        let mut bytes = json.into_bytes();
        let place = place % bytes.len();
        if cut {
            bytes.truncate(place)
        } else {
            bytes[place] = byte
        }
        bytes
    });
    let not_utf8 = senders_json().prop_map(|json| json.replace('é', "\u{e000}").into_bytes()).prop_map(|mut bytes| {
        // Replaces the marker by a lone surrogate in CESU-8.
        for place in 0..bytes.len().saturating_sub(2) {
            if bytes[place..place + 3] == *"\u{e000}".as_bytes() {
                bytes[place..place + 3].copy_from_slice(b"\xed\xa0\xbd");
            }
        }
        bytes
    });
    prop_oneof![whole, spoiled, not_utf8]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..200), json().prop_map(String::into_bytes)]
}

/// A value for a signature header.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..200),
        "(v0=|v1=|v1,|v1a,|sha256=|t=[0-9]{1,20},v1=|sig:)?[0-9a-f]{0,140}".prop_map(String::into_bytes),
        "((v1|v1a|v2),[A-Za-z0-9+/]{0,90}={0,2} ?){0,20}".prop_map(String::into_bytes),
        Just(b"1767225600".to_vec()),
        "-?[0-9]{1,30}".prop_map(String::into_bytes),
    ]
}

/// A modules.toml with mistakes.
fn settings() -> impl Strategy<Value = String> {
    let shipped = include_str!("../../../modules.toml");
    let mistakes = vec((0..shipped.len(), 0..30usize, ".{0,12}"), 0..6);
    let changed = mistakes.prop_map(move |mistakes| {
        let mut text = shipped.to_owned();
        for (place, length, words) in mistakes {
            let start = text.floor_char_boundary(place);
            let end = text.floor_char_boundary(start + length);
            text.replace_range(start..end, &words);
        }
        text
    });
    let source = "(scheme|header|signed|secrets|tolerance|event|prefix|path|algorithm) = (\
         \"(hmac|slack|none|unique|discord|\\{body\\}|\\{header:x|env:S|-1s|body:a\\.b|header:)\"|[0-9]{1,30}|\\[\\]|\
         \\[\"env:S\", 7\\]|\\{ id = \"hash\", name = \\[\\] \\}|true)\n";
    let made = vec(source, 0..8).prop_map(|lines| format!("[[source]]\n{}", lines.concat()));
    prop_oneof![changed, made, ".{0,200}"]
}

/// JSON that JavaScript, Python and Go write but `serde_json` refuses.
fn odd_json() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        json(),
        Just(r#""half \ud83d""#.to_owned()),
        Just(r#""\ude42 other half""#.to_owned()),
        Just("NaN".to_owned()),
        Just("-Infinity".to_owned()),
        Just("1e400".to_owned()),
        Just("\"a\nb\"".to_owned()),
        (0..300usize).prop_map(|deep| format!("{}1{}", "[".repeat(deep), "]".repeat(deep))),
    ];
    let item = prop_oneof![
        leaf.clone(),
        vec(("(id|text|url|order|metadata|x)", leaf), 0..6).prop_map(|fields| {
            let fields: Vec<_> = fields.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{}}}", fields.join(","))
        }),
    ];
    let with_bytes = (item, prop::option::of((any::<prop::sample::Index>(), any::<u8>())));
    with_bytes.prop_map(|(text, change)| {
        let mut bytes = text.into_bytes();
        if let Some((place, byte)) = change.filter(|_| !bytes.is_empty()) {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes
    })
}

fn stream() -> impl Strategy<Value = Stream> {
    (vec(".{0,6}", 0..6), vec(any::<u8>(), 0..6), 0..3u8, any::<u8>(), any::<u8>(), any::<u8>())
        .prop_map(|(texts, noise, index, style, no_reason, end)| Stream { texts, noise, index, style, no_reason, end })
}

/// Valid and invalid lines of an event stream.
fn event_bytes() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n".to_vec()),
        Just(b"data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n".to_vec()),
        Just(b"data: [DONE]\n\n".to_vec()),
        Just(b"event: error\r\n".to_vec()),
        Just(b"data: \r".to_vec()),
        "(data|event|id|retry|error|)(:| :|)[a-z{}\\[\\]\":, ]{0,80}(\n|\r|\r\n|\n\n)".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..20),
    ];
    vec(line, 0..12).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn completion_is_an_answer_or_an_error(body in prop_oneof![event_bytes(), odd_json()], size in 1..40usize) {
        check_completion(&body, size);
    }

    #[test]
    fn dotenv_value_is_exact_or_refused(value in "([a-zA-Z0-9$@{}()=&!~^%. \\t\"'#\\\\\r\n-]|.){0,24}") {
        check_dotenv_value(&value);
    }

    #[test]
    fn truncated_stream_is_an_error(stream in stream(), size in 1..100usize) {
        check_truncated_stream(&stream, size);
    }

    #[test]
    fn event_chunking_makes_no_difference(bytes in event_bytes(), size in 1..40usize) {
        check_event_chunking(&bytes, size);
    }

    #[test]
    fn unusual_item_does_not_affect_others(bytes in odd_json()) {
        check_unusual_item(&bytes);
    }

    #[test]
    fn changed_body_is_refused(number in 0..SOURCES, body in body(), other in body()) {
        check_changed_body(number, &body, &other);
    }

    #[test]
    fn body_with_a_changed_bit_is_refused(number in 0..SOURCES, body in body(), place: usize, bit in 0..8u8) {
        let mut other = body.clone();
        match place.checked_rem(other.len()) {
            Some(place) => other[place] ^= 1 << bit,
            None => other.push(bit),
        }
        check_changed_body(number, &body, &other);
    }

    #[test]
    fn changed_header_is_refused(number in 0..SOURCES, place: usize, byte: u8) {
        check_changed_header(number, place, byte);
    }

    #[test]
    fn unsigned_request_is_refused(number in 0..SOURCES, values in vec(value(), 0..8), body in body()) {
        check_unsigned_request(number, &values, &body);
    }

    #[test]
    fn body_is_an_event_or_refused(number in 0..SOURCES, body in body()) {
        check_event(number, &body);
    }

    #[test]
    fn unusual_body_is_an_event_or_refused(number in 0..SOURCES, body in odd_bytes()) {
        check_event(number, &body);
    }

    #[test]
    fn json_parser_agrees_with_serde_json(text in prop_oneof![odd_bytes(), odd_json(), body()]) {
        check_json_parser(&text);
    }

    #[test]
    fn sent_values_are_read_exactly(sent in sent(), writer in writer()) {
        check_sent_value(&sent, writer);
    }

    #[test]
    fn unusual_value_does_not_affect_others(odd in odd_bytes()) {
        check_unusual_value(&odd);
    }

    #[test]
    fn settings_are_accepted_or_refused(text in settings()) {
        check_settings(&text);
    }
}

/// The size of the small stack in bytes, too little for one frame per nesting level.
const SMALL_STACK: usize = 256 << 10;

/// Runs on a small stack, so that recursion over the input's nesting overflows it.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(SMALL_STACK).spawn(run).unwrap().join().unwrap();
}

const MIB: usize = 1 << 20;

#[test]
fn deep_bodies_do_not_overflow_the_stack() {
    let (deep, objects) = (MIB / 2, MIB / 6);
    let lists = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
    let maps = format!("{}1{}", "{\"a\":".repeat(objects), "}".repeat(objects));
    let inside = format!(r#"{{"id":"1","event":"e","type":"e","payload":{lists},"data":{lists}}}"#);
    for body in [lists.clone(), maps, "[".repeat(MIB), "{\"a\":".repeat(objects), inside] {
        on_a_small_stack(move || {
            for number in 0..SOURCES {
                check_event(number, body.as_bytes());
            }
        });
    }
}

#[test]
fn large_bodies_make_small_events() {
    let keys: Vec<_> = (0..100_000).map(|number| format!("\"{number:x}\":0")).collect();
    let wide = format!(r#"{{"id":"1","event":"e","type":"e","payload":{{}},"data":{{}},{}}}"#, keys.join(","));
    let long = |what: &str| {
        let mut event = serde_json::json!({ "id": "1", "event": "e", "companyId": "c", "userId": "u", "payload": {} });
        event[what] = "x".repeat(MIB).into();
        event.to_string()
    };
    let digits = format!(r#"{{"id":{},"event":"e","createdAt":{},"payload":{{}}}}"#, "9".repeat(MIB), "9".repeat(900));
    on_a_small_stack(move || {
        let event = check_event(0, wide.as_bytes()).unwrap();
        assert_eq!((event.id.as_str(), event.payload()), ("1", "{}"));
        // A long id is replaced by its hash; an event with a long name is refused.
        let hashed = check_event(0, long("id").as_bytes()).unwrap();
        assert!(hashed.id.starts_with("sha256:"), "{}", hashed.id);
        for what in ["event", "companyId"] {
            assert!(check_event(0, long(what).as_bytes()).is_none(), "{what}");
        }
        // An invalid user is omitted.
        assert_eq!(check_event(0, long("userId").as_bytes()).unwrap().user_id, None);
        let event = check_event(0, digits.as_bytes()).unwrap();
        assert_eq!(event.created_at, None);
    });
}

/// Only a few signatures of a header are verified, however many it has.
#[test]
fn refuses_long_lists_of_signatures() {
    let many = [b"v1,AA== ".repeat(10_000), b"v1a,AA== ".repeat(10_000), b"t=1,".to_vec(), b"v1=00,".repeat(10_000)];
    for number in 0..SOURCES {
        for value in &many {
            check_unsigned_request(number, &vec![value.clone(); 6], b"{}");
        }
    }
}

#[test]
fn refuses_deep_and_wide_settings() {
    let wide: String = (0..20_000).map(|number| format!("k{number} = 1\n")).collect();
    let sources = "[[source]]\nscheme = 'hmac'\n".repeat(500);
    let signed = format!("[[source]]\nscheme = 'hmac'\nsigned = '{}'\n", "{body}".repeat(100_000));
    for text in ["[".repeat(MIB), format!("a = {}", "[".repeat(MIB)), "a.".repeat(MIB / 2), wide, sources, signed] {
        check_settings(&text);
    }
}
