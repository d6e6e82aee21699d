//! JSON whose shape the platform leaves open.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// JSON whose shape the platform leaves open: kept as text until somebody wants to read it.
///
/// Make one with [`json!`](crate::json!), which this crate borrows from `serde_json`:
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
    /// Reads it as a type of your own, or as a `serde_json::Value`.
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

    /// The text itself.
    ///
    /// ```
    /// # use modhost_sdk::{Json, json};
    /// assert_eq!(Json::from(json!([1, 2])).as_str(), "[1,2]");
    /// ```
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Text the host vouches for.
    pub(crate) fn from_host(text: String) -> Self {
        Self(text)
    }

    /// What the host is given.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

impl Default for Json {
    /// `null`.
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
    /// As the value it stands for, not as text within text.
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
    fn is_nested_as_a_value() {
        let json = Json::from(serde_json::json!({ "a": [1, null] }));
        assert_eq!(serde_json::to_string(&[json]).unwrap(), r#"[{"a":[1,null]}]"#);
    }
}
