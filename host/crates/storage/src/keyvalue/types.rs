//! The store's vocabulary.

use std::time::SystemTime;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limits::{self, MAX_NAME, refuse};
use modhost_core::event::Name;

/// Whose values they are.
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
    /// Whose it is.
    pub space: Space,
    name: String,
}

impl Bucket {
    /// The name a bucket has that is opened without one.
    pub const DEFAULT: &str = "default";

    /// The bucket of a name; no name is [`Bucket::DEFAULT`].
    ///
    /// # Errors
    ///
    /// When the name is too long.
    pub fn new(space: Space, name: String) -> super::Result<Self> {
        match name.len() {
            0 => Ok(Self { space, name: Self::DEFAULT.to_owned() }),
            1..=MAX_NAME => Ok(Self { space, name }),
            long => refuse(format!("a bucket's name has {long} bytes, and may have {MAX_NAME}")),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Tells a value of a key from every other it had or will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub(super) i64);

/// What stands under a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which of the key's values it is.
    pub version: Version,
    /// The value.
    pub value: Value,
}

/// A value: any bytes. Written down as text where it is text, `{"hex": "…"}` otherwise, so that people can read it.
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
        enum Written {
            Text(String),
            Bytes { hex: String },
        }
        match Written::deserialize(deserializer)? {
            Written::Text(text) => Ok(Self(text.into_bytes())),
            Written::Bytes { hex } => hex::decode(hex).map(Self).map_err(D::Error::custom),
        }
    }
}

/// A change of a bucket.
#[derive(Clone, Debug)]
pub enum Change {
    /// Values are put under keys, whatever stood there; of several under one key the last stays.
    Set(Vec<(String, Vec<u8>)>),
    /// Keys are removed with what stands under them, where anything does.
    Delete(Vec<String>),
    /// A number, in decimal text, is counted up; where nothing stands, from 0.
    Increment {
        /// Its key.
        key: String,
        /// By so much; down, where it is below 0.
        delta: i64,
    },
    /// A value is put under a key if what stands there is still the same.
    Swap {
        /// The key.
        key: String,
        /// What is to stand there; none: nothing.
        expected: Option<Version>,
        /// The value.
        value: Vec<u8>,
    },
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is done.
    Done,
    /// It was counted up, to this.
    Counted(i64),
    /// Nothing was changed: this stands there by now.
    Stale(Option<Entry>),
}

/// A key, for whoever lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The key.
    pub key: String,
    /// How large its value is, in bytes.
    pub size: u64,
    /// When it was last changed.
    pub changed_at: SystemTime,
}

/// A bucket, for whoever lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketTotals {
    /// Its name.
    pub name: String,
    /// How many keys it has.
    pub keys: u64,
    /// How large they and their values are together, in bytes.
    pub bytes: u64,
}

impl Change {
    /// Refuses keys and values that are too large, and too many of them.
    ///
    /// # Errors
    ///
    /// Which one it is, and what may be.
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
    fn a_value_is_written_as_people_read_it() {
        for (bytes, written) in [(b"gr\xc3\xbcn".to_vec(), r#""grün""#), (vec![0xff, 0], r#"{"hex":"ff00"}"#)] {
            assert_eq!(serde_json::to_string(&Value(bytes.clone())).unwrap(), written);
            assert_eq!(serde_json::from_str::<Value>(written).unwrap(), Value(bytes));
        }
    }
}
