//! Conversions of the types in `types.wit` that several capabilities use.

use serde_json::Value;

pub(super) use super::bindings::modhost::module::types::{Error, Reference, Role};
use modhost_platform as platform;
use modhost_platform::{CallError, ErrorKind};

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error.kind {
            ErrorKind::Invalid => Self::Invalid(error.message),
            ErrorKind::Denied => Self::Denied(error.message),
            ErrorKind::NotFound => Self::NotFound(error.message),
            ErrorKind::RateLimited(after) => Self::RateLimited(after.map(whole_seconds)),
            ErrorKind::Unavailable => Self::Unavailable(error.message),
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Unsupported => Self::Unsupported(error.message),
        }
    }
}

/// Rounds up to whole seconds, so that no retry is early.
fn whole_seconds(time: std::time::Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

impl From<Reference> for platform::Reference {
    fn from(reference: Reference) -> Self {
        Self {
            name: reference.name,
            description: reference.description,
            url: reference.url,
            sequence_number: reference.sequence_number,
            original_index: reference.original_index,
            source_id: reference.source_id,
            source: reference.source,
        }
    }
}

impl From<platform::Reference> for Reference {
    fn from(reference: platform::Reference) -> Self {
        Self {
            name: reference.name,
            description: reference.description,
            url: reference.url,
            sequence_number: reference.sequence_number,
            original_index: reference.original_index,
            source_id: reference.source_id,
            source: reference.source,
        }
    }
}

impl From<Role> for platform::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::System => Self::System,
            Role::User => Self::User,
            Role::Assistant => Self::Assistant,
        }
    }
}

impl From<platform::Role> for Role {
    fn from(role: platform::Role) -> Self {
        match role {
            platform::Role::System => Self::System,
            platform::Role::User => Self::User,
            platform::Role::Assistant => Self::Assistant,
        }
    }
}

/// Maximum number of values in the JSON of one argument. A parsed value takes up to a hundred bytes of the host's
/// memory for as long as the call lasts, but only two or three bytes of the text, whose size is what the argument limit
/// counts.
const MAX_VALUES: usize = 100_000;

/// Checks the number of values in the JSON texts of one argument, all together.
///
/// # Errors
///
/// When there are more than [`MAX_VALUES`].
pub(super) fn check_values<'a>(what: &str, json: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
    match json.into_iter().map(values).sum::<usize>() {
        0..=MAX_VALUES => Ok(()),
        count => Err(Error::Invalid(format!("`{what}` has {count} values in JSON, and may have {MAX_VALUES}"))),
    }
}

/// Returns an upper bound of the number of values in a JSON text: one, plus one for each comma and opening bracket
/// outside a string.
fn values(json: &str) -> usize {
    let (mut values, mut in_string, mut escaped) = (1, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => values += 1,
            _ => {}
        }
    }
    values
}

/// Parses a `json` argument that must be an object. `what` is the name of the argument in error messages.
pub(super) fn object(what: &str, json: Option<String>) -> Result<Option<Value>, Error> {
    let Some(json) = json else { return Ok(None) };
    check_values(what, [json.as_str()])?;
    match serde_json::from_str::<Value>(&json) {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(_) => Err(Error::Invalid(format!("`{what}` has to be a JSON object"))),
        Err(error) => Err(Error::Invalid(format!("`{what}` is not JSON: {error}"))),
    }
}

pub(super) fn references<A, B: From<A>>(references: Vec<A>) -> Vec<B> {
    references.into_iter().map(B::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_no_values_in_strings() {
        for (text, many) in [("7", 1), (r#"{"a": [1, 2], "b": {}}"#, 6), (r#"{"a": "1,2[3\\\",{\\", "b": 4}"#, 3)] {
            assert_eq!(values(text), many, "{text}");
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn refuses_too_many_values() {
        let many = |count| Some(format!(r#"{{"a": [{}[]]}}"#, "[],".repeat(count)));
        assert!(object("details", many(1000)).is_ok());
        let Err(Error::Invalid(why)) = object("details", many(100_000)) else { panic!("accepted") };
        assert_eq!(why, "`details` has 200004 values in JSON, and may have 100000");
    }
}
