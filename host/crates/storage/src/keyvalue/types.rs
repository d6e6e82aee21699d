//! The types of the store's operations.

use std::time::SystemTime;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limits::{self, MAX_NAME, reject};
use modhost_core::event::Name;

/// The data of one module for one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Space {
    /// The tenant.
    pub tenant: Name,
    /// The module.
    pub module: Name,
}

/// A bucket of a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its space.
    pub space: Space,
    name: String,
}

impl Bucket {
    /// The name of a bucket that is opened without a name.
    pub const DEFAULT: &str = "default";

    /// Creates a bucket; an empty name stands for [`Bucket::DEFAULT`].
    ///
    /// # Errors
    ///
    /// If the name is too long.
    pub fn new(space: Space, name: String) -> super::Result<Self> {
        match name.len() {
            0 => Ok(Self { space, name: Self::DEFAULT.to_owned() }),
            1..=MAX_NAME => Ok(Self { space, name }),
            long => reject(format!("a bucket's name has {long} bytes; the maximum is {MAX_NAME}")),
        }
    }

    /// Returns the name of the bucket.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The version of a value, different for every value that is ever set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub(super) i64);

/// A value and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of the value.
    pub version: Version,
    /// The value.
    pub value: Value,
}

/// A value: any bytes. Serialized as text if it is UTF-8, otherwise as `{"hex": "…"}`, so that it is readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(pub Vec<u8>);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(&self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("hex", &hex::encode(&self.0))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Encoded {
            Text(String),
            Bytes { hex: String },
        }
        match Encoded::deserialize(deserializer)? {
            Encoded::Text(text) => Ok(Self(text.into_bytes())),
            Encoded::Bytes { hex } => hex::decode(hex).map(Self).map_err(D::Error::custom),
        }
    }
}

/// A change of a bucket.
#[derive(Clone, Debug)]
pub enum Change {
    /// Sets the values of keys unconditionally. For a repeated key, the last value counts.
    Set(Vec<(String, Vec<u8>)>),
    /// Removes keys and their values, if they exist.
    Delete(Vec<String>),
    /// Increments a number that is stored as decimal text; a missing value counts as 0.
    Increment {
        /// The key.
        key: String,
        /// The increment, which may be negative.
        delta: i64,
    },
    /// Sets the value of a key if its version has not changed (compare and swap).
    Swap {
        /// The key.
        key: String,
        /// The expected version; `None` if the key must not exist.
        expected: Option<Version>,
        /// The new value.
        value: Vec<u8>,
    },
}

impl Change {
    /// Returns the size of its keys and values, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Set(entries) => entries.iter().map(|(key, value)| key.len() + value.len()).sum(),
            Self::Delete(keys) => keys.iter().map(String::len).sum(),
            Self::Increment { key, .. } => key.len(),
            Self::Swap { key, value, .. } => key.len() + value.len(),
        }
    }
}

/// The result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The change was applied.
    Done,
    /// The number was incremented to this value.
    Counted(i64),
    /// Nothing was changed, because the version differs. Contains the current entry.
    Stale(Option<Entry>),
}

/// A key in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The key.
    pub key: String,
    /// The size of its value, in bytes.
    pub size: u64,
    /// When it was last changed.
    pub changed_at: SystemTime,
}

/// A bucket in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketTotals {
    /// Its name.
    pub name: String,
    /// The number of its keys.
    pub keys: u64,
    /// The size of its keys and values, in bytes.
    pub bytes: u64,
}

impl Change {
    /// Checks the number and size of its keys and values.
    ///
    /// # Errors
    ///
    /// If it exceeds a limit.
    pub fn check(&self) -> super::Result<()> {
        match self {
            Self::Set(entries) => {
                limits::check_batch(entries.len())?;
                entries.iter().try_for_each(|(key, value)| {
                    limits::check_key(key)?;
                    limits::check_value(key, value)
                })
            }
            Self::Delete(keys) => {
                limits::check_batch(keys.len())?;
                keys.iter().try_for_each(|key| limits::check_key(key))
            }
            Self::Increment { key, .. } => limits::check_key(key),
            Self::Swap { key, value, .. } => {
                limits::check_key(key)?;
                limits::check_value(key, value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serializes_text_as_text_and_other_bytes_as_hex() {
        for (bytes, written) in [(b"gr\xc3\xbcn".to_vec(), r#""grün""#), (vec![0xff, 0], r#"{"hex":"ff00"}"#)] {
            assert_eq!(serde_json::to_string(&Value(bytes.clone())).unwrap(), written);
            assert_eq!(serde_json::from_str::<Value>(written).unwrap(), Value(bytes));
        }
    }
}
