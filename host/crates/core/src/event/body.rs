//! The JSON of a signed body: the body itself, or the JSON that a form contains.
//!
//! The journal stores the signed body and the byte range of the payload in its JSON. So every later build must extract
//! the same JSON from a form.

use std::borrow::Cow;

use url::form_urlencoded;

/// The form field that contains JSON: GitHub's deliveries, Slack's buttons and dialogs.
pub const PAYLOAD: &str = "payload";

/// The format of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// JSON, or an unknown format.
    Json,
    /// A form whose field `payload` contains the JSON.
    FormWithPayload,
    /// Any other form. Its JSON is an object of its fields.
    Form,
}

/// Determines the format of a body. The content type is ignored, because signatures don't cover it.
///
/// No JSON text both begins with a letter and contains `=`, so the formats cannot be confused.
pub fn kind(raw: &[u8]) -> BodyKind {
    let is_form = raw.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_') && raw.contains(&b'=');
    if !is_form {
        return BodyKind::Json;
    }
    match form_urlencoded::parse(raw).filter(|(name, _)| name == PAYLOAD).count() {
        1 => BodyKind::FormWithPayload,
        _ => BodyKind::Form,
    }
}

/// Returns the JSON of a body. The result may be invalid JSON if the body is.
pub fn json(raw: &[u8]) -> Cow<'_, [u8]> {
    match kind(raw) {
        BodyKind::Json => raw.into(),
        BodyKind::FormWithPayload => {
            let payload = form_urlencoded::parse(raw).find(|(name, _)| name == PAYLOAD);
            payload.map_or_else(Vec::new, |(_, value)| value.into_owned().into_bytes()).into()
        }
        BodyKind::Form => {
            // Duplicate fields are kept: the reader decides which value to use.
            let fields =
                form_urlencoded::parse(raw).map(|(name, value)| format!("{}:{}", quoted(&name), quoted(&value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(",")).into_bytes().into()
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extracts_json_from_forms() {
        for (raw, kind_of, json_of) in [
            (r#"{"a":"b=c"}"#, BodyKind::Json, r#"{"a":"b=c"}"#),
            ("true", BodyKind::Json, "true"),
            ("hello", BodyKind::Json, "hello"),
            ("payload=%7B%22a%22%3A%22b+c%22%7D", BodyKind::FormWithPayload, r#"{"a":"b c"}"#),
            ("x=1&payload=[]", BodyKind::FormWithPayload, "[]"),
            ("payload=1&payload=2", BodyKind::Form, r#"{"payload":"1","payload":"2"}"#),
            (
                "command=%2Fweather&text=a%0A%22b%22&text=",
                BodyKind::Form,
                r#"{"command":"/weather","text":"a\n\"b\"","text":""}"#,
            ),
        ] {
            assert_eq!(kind(raw.as_bytes()), kind_of, "{raw}");
            assert_eq!(std::str::from_utf8(&json(raw.as_bytes())).unwrap(), json_of, "{raw}");
        }
    }
}
