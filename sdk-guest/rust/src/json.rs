//! JSON whose shape the platform doesn't define.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// JSON whose shape the platform doesn't define, kept as text until it is parsed.
///
/// Create it with [`json!`](crate::json!), which this crate re-exports from `serde_json`:
///
/// ```
/// use modhost_sdk::{Json, json};
///
/// let json = Json::from(json!({ "found": 3 }));
/// assert_eq!(json.as_str(), r#"{"found":3}"#);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// Deserializes the JSON into your own type, or into a `serde_json::Value`.
    ///
    /// ```
    /// use modhost_sdk::{Json, json};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Settings {
    ///     language: String,
    /// }
    ///
    /// let settings: Settings = Json::from(json!({ "language": "de" })).parse()?;
    /// assert_eq!(settings.language, "de");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }

    /// Returns the JSON text.
    ///
    /// ```
    /// # use modhost_sdk::{Json, json};
    /// assert_eq!(Json::from(json!([1, 2])).as_str(), "[1,2]");
    /// ```
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Wraps JSON text from the host, which has validated it.
    pub(crate) fn from_host(text: String) -> Self {
        Self(text)
    }

    /// Returns the JSON text to pass to the host.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

impl Default for Json {
    /// Returns `null`.
    fn default() -> Self {
        Self("null".to_owned())
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self(value.to_string())
    }
}

impl Serialize for Json {
    /// Serializes the JSON value, not a string that contains it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: Value = self.parse().map_err(serde::ser::Error::custom)?;
        value.serialize(serializer)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serializes_as_a_value() {
        let json = Json::from(serde_json::json!({ "a": [1, null] }));
        assert_eq!(serde_json::to_string(&[json]).unwrap(), r#"[{"a":[1,null]}]"#);
    }
}
