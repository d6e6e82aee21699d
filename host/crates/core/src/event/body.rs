//! The JSON of a signed body: the body itself, or what a form carries.
//!
//! The journal keeps the body as it was signed, and with it where in its JSON the payload stands. So what is read out of a form
//! has to come out the same in every later build.

use std::borrow::Cow;

use url::form_urlencoded;

/// The field in which a form carries JSON: GitHub's deliveries, Slack's buttons and dialogs.
pub const PAYLOAD: &str = "payload";

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// JSON, or nothing that is known.
    Json,
    /// A form whose field `payload` holds the JSON.
    FormWithPayload,
    /// Any other form: an object of its fields stands for it.
    Form,
}

/// What a body is. Its content type isn't asked: nobody signs that.
///
/// No JSON begins with a letter and has a `=` in it: the two can't be taken for each other.
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

/// The JSON of a body, as far as it is any.
pub fn json(raw: &[u8]) -> Cow<'_, [u8]> {
    match kind(raw) {
        BodyKind::Json => raw.into(),
        BodyKind::FormWithPayload => {
            let payload = form_urlencoded::parse(raw).find(|(name, _)| name == PAYLOAD);
            payload.map_or_else(Vec::new, |(_, value)| value.into_owned().into_bytes()).into()
        }
        BodyKind::Form => {
            // A field that is there twice stays so: whoever looks for it has to decide.
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
    fn the_json_of_a_form_is_found() {
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
