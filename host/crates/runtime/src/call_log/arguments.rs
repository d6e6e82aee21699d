//! The arguments of a call, as they are recorded and compared.
//!
//! Arguments are recorded as JSON that people can read. Large ones would be stored twice: the value of a key is in the
//! key-value store, too, and a long prompt is sent to a model. So in arguments above [`MAX_RECORDED`], each long text is
//! recorded as its size, its beginning and a digest, by which replay recognizes it. Everything else stays as it is.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use modhost_core::text::prefix;

/// The size up to which arguments are recorded whole, in bytes of JSON.
///
/// This and the next two constants are part of the recorded format: with others, a delivery that was begun before
/// wouldn't recognize its large calls.
const MAX_RECORDED: usize = 64 * 1024;

/// The length up to which a text is recorded whole in larger arguments, in bytes of JSON.
const MAX_TEXT: usize = 1024;

/// The length of the beginning of a text that is recorded with its digest, in bytes.
const BEGINNING: usize = 256;

/// The typical upper bound of recorded arguments, in bytes.
const USUAL: usize = 512;

/// The arguments of a requested call.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    /// The arguments as JSON, without white space.
    json: Vec<u8>,
    /// What is recorded instead, if they are large.
    shortened: Option<Vec<u8>>,
}

/// A long text in recorded arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongText {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256 digest, in hexadecimal digits.
    pub sha256: String,
    /// Its beginning.
    pub beginning: String,
}

/// The JSON object in the place of a long text.
#[derive(Serialize, Deserialize)]
struct Recorded {
    #[serde(rename = "modhost:text")]
    text: LongText,
}

impl Arguments {
    /// Serializes arguments.
    ///
    /// # Errors
    ///
    /// When they can't be written as JSON.
    pub(super) fn new(arguments: &impl Serialize) -> serde_json::Result<Self> {
        let mut json = Vec::with_capacity(USUAL);
        serde_json::to_writer(&mut json, arguments)?;
        let shortened = shorten(&json)?;
        Ok(Self { json, shortened })
    }

    /// Returns the complete arguments as JSON.
    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }

    /// Returns what is recorded.
    pub(super) fn recorded(&self) -> &[u8] {
        self.shortened.as_deref().unwrap_or(&self.json)
    }

    /// Returns whether a call with these recorded arguments is the same. Earlier versions of the host recorded large
    /// arguments whole.
    pub(super) fn is_recorded_as(&self, recorded: &[u8]) -> bool {
        recorded == self.recorded() || (self.shortened.is_some() && recorded == self.json)
    }

    /// Returns whether a call with these recorded arguments is the same, as values: the fields of objects may have
    /// another order.
    pub(super) fn equal(&self, recorded: &Value) -> bool {
        let is = |json: &[u8]| serde_json::from_slice::<Value>(json).is_ok_and(|own| own == *recorded);
        is(&self.json) || self.shortened.as_deref().is_some_and(is)
    }
}

/// Returns arguments as the call log records them.
pub fn as_recorded(arguments: &Value) -> Value {
    let shortened = Arguments::new(arguments).ok().and_then(|arguments| arguments.shortened);
    shortened.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_else(|| arguments.clone())
}

/// Replaces each long text in recorded arguments, for people to read.
pub fn replace_long_texts(arguments: &mut Value, replacement: &impl Fn(LongText) -> String) {
    if let Ok(Recorded { text }) = Recorded::deserialize(&*arguments) {
        *arguments = replacement(text).into();
        return;
    }
    match arguments {
        Value::Array(items) => items.iter_mut().for_each(|item| replace_long_texts(item, replacement)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace_long_texts(field, replacement)),
        _ => {}
    }
}

/// Replaces the long texts in large arguments; none if there is nothing to replace.
fn shorten(json: &[u8]) -> serde_json::Result<Option<Vec<u8>>> {
    if json.len() <= MAX_RECORDED {
        return Ok(None);
    }
    let (mut shortened, mut copied) = (Vec::new(), 0);
    for string in strings(json).filter(|string| string.len() > MAX_TEXT) {
        // The name of a field has to be a text.
        if json.get(string.end) == Some(&b':') {
            continue;
        }
        let text: String = serde_json::from_slice(&json[string.clone()])?;
        let sha256 = hex::encode(Sha256::digest(&text));
        let text = LongText { bytes: text.len() as u64, sha256, beginning: prefix(&text, BEGINNING).to_owned() };
        shortened.extend_from_slice(&json[copied..string.start]);
        serde_json::to_writer(&mut shortened, &Recorded { text })?;
        copied = string.end;
    }
    if copied == 0 {
        return Ok(None);
    }
    shortened.extend_from_slice(&json[copied..]);
    Ok(Some(shortened))
}

/// Returns the positions of the strings in JSON, with their quotes.
fn strings(json: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + json[from..].iter().position(|byte| *byte == b'"')?;
        let mut end = start + 1;
        loop {
            end += json.get(end..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            if json[end] == b'"' {
                break;
            }
            end += 2;
        }
        from = end + 1;
        Some(start..from)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn arguments(value: &Value) -> Arguments {
        Arguments::new(value).unwrap()
    }

    fn parsed(json: &[u8]) -> Value {
        serde_json::from_slice(json).unwrap()
    }

    /// Returns arguments that are large enough for a text to be shortened.
    fn large(value: &Value) -> Value {
        json!([value, "x".repeat(MAX_RECORDED)])
    }

    #[test]
    fn small_arguments_are_recorded_whole() {
        let value = json!({ "bucket": "default", "entries": [["key", "v".repeat(MAX_RECORDED - 100)]] });
        let arguments = arguments(&value);
        assert_eq!(arguments.recorded(), arguments.json());
        assert_eq!(parsed(arguments.recorded()), value);
    }

    #[test]
    fn large_value_is_recorded_as_digest_with_a_readable_beginning() {
        let text = "ä\"".repeat(1 << 19);
        let arguments = arguments(&json!({ "bucket": "default", "entries": [["key", text], ["other", "short"]] }));
        let digest = json!({ "modhost:text": {
            "bytes": 3 << 19,
            "sha256": hex::encode(Sha256::digest(&text)),
            "beginning": prefix(&text, BEGINNING),
        } });
        let recorded = json!({ "bucket": "default", "entries": [["key", digest], ["other", "short"]] });
        assert_eq!(parsed(arguments.recorded()), recorded);
        let mut shown = recorded;
        replace_long_texts(&mut shown, &|text| format!("{} bytes", text.bytes));
        assert_eq!(shown, json!({ "bucket": "default", "entries": [["key", "1572864 bytes"], ["other", "short"]] }));
    }

    /// This text is in existing journals: after a change, no delivery would find its recorded large call.
    #[test]
    fn keeps_the_recorded_format_byte_for_byte() {
        let arguments = arguments(&json!(["a".repeat(MAX_RECORDED), 1]));
        let expected = format!(
            "[{{\"modhost:text\":{{\"bytes\":65536,\
             \"sha256\":\"bf718b6f653bebc184e1479f1935b8da974d701b893afcf49e701f3e2f9f9c5a\",\
             \"beginning\":\"{}\"}}}},1]",
            "a".repeat(256)
        );
        assert_eq!(std::str::from_utf8(arguments.recorded()).unwrap(), expected);
    }

    #[test]
    fn name_of_a_field_stays() {
        let name = "n".repeat(2 * MAX_TEXT);
        let value = large(&json!({ name.clone(): 1 }));
        assert_eq!(parsed(arguments(&value).recorded())[0], json!({ name: 1 }));
    }

    #[test]
    fn whole_arguments_of_an_earlier_version_match() {
        let arguments = arguments(&large(&json!(7)));
        let other = super::tests::arguments(&large(&json!(8)));
        assert!(arguments.is_recorded_as(arguments.json()) && arguments.is_recorded_as(arguments.recorded()));
        assert!(!arguments.is_recorded_as(other.json()) && !arguments.is_recorded_as(other.recorded()));
    }

    /// JSON with texts of all lengths and with characters that JSON escapes.
    fn any_json() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[a-c\"\\\\\u{0}\n/:{},äß€😀]{0,12}",
            ("[a-c\"\\\\\u{0}:ä😀]{1,4}", 200_usize..900).prop_map(|(part, times)| part.repeat(times)),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((text.clone(), inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// What is recorded is JSON in which only long texts differ, and two calls match if and only if their arguments
        /// are the same.
        #[test]
        fn matches_exactly_the_same_arguments(one in any_json(), other in any_json()) {
            for (one, other) in [(large(&one), large(&other)), (one, other)] {
                let [first, second] = [&one, &other].map(arguments);
                prop_assert!(first.is_recorded_as(first.recorded()));
                prop_assert!(first.equal(&parsed(first.recorded())) && first.equal(&one));
                prop_assert_eq!(first.is_recorded_as(second.recorded()), one == other);
                prop_assert_eq!(first.is_recorded_as(second.json()), one == other);
                prop_assert_eq!(first.equal(&parsed(second.recorded())), one == other);
                prop_assert_eq!(as_recorded(&one), parsed(first.recorded()));
                let mut restored = parsed(first.recorded());
                let mut texts = Vec::new();
                long_texts(&one, first.shortened.is_some(), &mut texts);
                let texts = std::cell::RefCell::new(texts);
                replace_long_texts(&mut restored, &|recorded| {
                    let mut texts = texts.borrow_mut();
                    let position = texts.iter().position(|text| digest(text) == recorded).expect("a long text");
                    texts.swap_remove(position)
                });
                prop_assert_eq!(restored, one);
                prop_assert!(texts.borrow().is_empty());
            }
        }
    }

    fn digest(text: &str) -> LongText {
        let sha256 = hex::encode(Sha256::digest(text));
        LongText { bytes: text.len() as u64, sha256, beginning: prefix(text, BEGINNING).to_owned() }
    }

    fn long_texts(value: &Value, are_recorded_as_digests: bool, texts: &mut Vec<String>) {
        match value {
            Value::String(text) if are_recorded_as_digests && serde_json::to_string(text).unwrap().len() > MAX_TEXT => {
                texts.push(text.clone());
            }
            Value::Array(items) => items.iter().for_each(|item| long_texts(item, are_recorded_as_digests, texts)),
            Value::Object(fields) => {
                fields.values().for_each(|field| long_texts(field, are_recorded_as_digests, texts));
            }
            _ => {}
        }
    }
}
