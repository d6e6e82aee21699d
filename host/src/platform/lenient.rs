//! Readers of fields that don't always come as they are documented.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::platform;

/// Tokens; OpenAI's names in a completion, Unique's in a streamed one.
#[derive(Deserialize)]
pub(in crate::platform) struct Usage {
    #[serde(default, alias = "promptTokens", deserialize_with = "integer")]
    prompt_tokens: Option<u32>,
    #[serde(default, alias = "completionTokens", deserialize_with = "integer")]
    completion_tokens: Option<u32>,
}

impl Usage {
    /// What an answer cost; none if it doesn't say.
    pub(in crate::platform) fn into_usage(self) -> Option<platform::Usage> {
        if self.prompt_tokens.is_none() && self.completion_tokens.is_none() {
            return None;
        }
        Some(platform::Usage {
            prompt_tokens: self.prompt_tokens.unwrap_or_default(),
            completion_tokens: self.completion_tokens.unwrap_or_default(),
        })
    }
}

/// A list; null is an empty one.
pub(in crate::platform) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(field: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(field)?.unwrap_or_default())
}

/// A yes or no; null is no.
pub(in crate::platform) fn flag<'de, D: Deserializer<'de>>(field: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(field)?.unwrap_or_default())
}

/// An integer, as a number or as a string; what is neither, or doesn't fit, is none.
pub(in crate::platform) fn integer<'de, D: Deserializer<'de>, T: TryFrom<i64>>(
    field: D,
) -> Result<Option<T>, D::Error> {
    let integer = match Value::deserialize(field)? {
        // A cast of a float to an integer ends at the integer's limits.
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|float| float as i64)),
        Value::String(digits) => digits.trim().parse().ok(),
        _ => None,
    };
    Ok(integer.and_then(|integer| T::try_from(integer).ok()))
}

/// A text, or a number as one; anything else is none.
pub(in crate::platform) fn text<'de, D: Deserializer<'de>>(field: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(field)? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}
