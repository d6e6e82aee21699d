//! A key-value store for values that the module keeps between events, on the host's disk.
//!
//! All values are private to the module and the event's tenant: the same module, running for another tenant, has other
//! values.
//!
//! ```no_run
//! # use modhost_sdk::prelude::*;
//! # fn example(event: &ModuleChosen) -> Result<()> {
//! let store = Store::open()?;
//! let asked = store.increment("questions", 1)?;
//! if store.get_text("greeted")?.is_none() {
//!     store.set("greeted", &event.chat_id)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A write is on disk when the call returns, and it stays, however the delivery ends: a failed delivery rolls nothing
//! back. In a retry, reads and writes that an earlier attempt completed are answered from the call log and not
//! repeated. So an [`increment`](Store::increment) counts once per event, even if the host crashes during the call.
//!
//! Deliveries run concurrently. For a value that two deliveries may change at the same time, use [`Store::increment`],
//! [`Store::update`] or [`Store::compare_and_swap`], not [`Store::get`] followed by [`Store::set`].
//!
//! `limits.keyvalue` in the module's entry in `modules.toml` limits the storage. A call that exceeds it fails with
//! [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), and names the limit.

use std::collections::VecDeque;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::wasi::keyvalue::{atomics, batch, store as wit};
use crate::error::{Error, ErrorKind};

/// A bucket of the module's key-value store.
///
/// A key is any text of up to 1024 bytes, a value any bytes of up to 1 MiB.
#[derive(Debug)]
pub struct Store {
    bucket: wit::Bucket,
}

impl Store {
    /// Opens the module's default bucket.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let last = Store::open()?.get_text("last-question")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open() -> Result<Self, Error> {
        Self::named("")
    }

    /// Opens the bucket with this name, which has its own keys. Setting a value creates the bucket. A module may have
    /// up to 100 buckets.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let drafts = Store::named("drafts")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn named(name: &str) -> Result<Self, Error> {
        let bucket = wit::open(name).map_err(of("keyvalue.open"))?;
        Ok(Self { bucket })
    }

    /// Returns the bytes of a key, or `None` if the key doesn't exist.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.bucket.get(key).map_err(of("keyvalue.get"))
    }

    /// Returns the text of a key.
    ///
    /// # Errors
    ///
    /// If the value isn't UTF-8.
    pub fn get_text(&self, key: &str) -> Result<Option<String>, Error> {
        let text = |bytes| String::from_utf8(bytes).map_err(|_| unreadable(key, "it is not UTF-8".into()));
        self.get(key)?.map(text).transpose()
    }

    /// Returns a value that [`Store::set_json`] stored.
    ///
    /// # Errors
    ///
    /// If the value isn't JSON, or doesn't fit the type.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// #[derive(serde::Serialize, serde::Deserialize, Default)]
    /// struct Preferences {
    ///     short_answers: bool,
    /// }
    ///
    /// let store = Store::open()?;
    /// let mut preferences: Preferences = store.get_json("preferences")?.unwrap_or_default();
    /// preferences.short_answers = true;
    /// store.set_json("preferences", &preferences)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.get(key)?.map(|bytes| from_json(key, &bytes)).transpose()
    }

    /// Sets a key to bytes or text, and overwrites any old value.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// Store::open()?.set("last-question", "What about expenses?")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.bucket.set(key, value.as_ref()).map_err(of("keyvalue.set"))
    }

    /// Sets a key to a value of your own type, serialized as JSON.
    pub fn set_json(&self, key: &str, value: &impl Serialize) -> Result<(), Error> {
        self.set(key, to_json("keyvalue.set", key, value)?)
    }

    /// Deletes a key. Does nothing if the key doesn't exist.
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        self.bucket.delete(key).map_err(of("keyvalue.delete"))
    }

    /// Returns whether a key exists.
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        self.bucket.exists(key).map_err(of("keyvalue.exists"))
    }

    /// Iterates over all keys, in byte order. Fetches a thousand keys at a time, so a loop that ends early is cheap.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let store = Store::named("drafts")?;
    /// for key in store.keys() {
    ///     store.delete(&key?)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn keys(&self) -> Keys<'_> {
        Keys { store: self, page: VecDeque::new(), next: NextPage::First }
    }

    /// Returns the values of several keys in one call, in the order of the keys. At most a thousand keys.
    pub fn get_many<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let keys: Vec<String> = keys.into_iter().map(K::into).collect();
        let found = batch::get_many(&self.bucket, &keys).map_err(of("keyvalue.get-many"))?;
        Ok(found.into_iter().map(|found| found.map(|(_, value)| value)).collect())
    }

    /// Sets several keys atomically. At most a thousand keys.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// Store::open()?.set_many([("first", "Ada"), ("last", "Lovelace")])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_many<K: Into<String>, V: Into<Vec<u8>>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), Error> {
        let entries: Vec<(String, Vec<u8>)> =
            entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        batch::set_many(&self.bucket, &entries).map_err(of("keyvalue.set-many"))
    }

    /// Deletes several keys atomically. At most a thousand keys.
    pub fn delete_many<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) -> Result<(), Error> {
        let keys: Vec<String> = keys.into_iter().map(K::into).collect();
        batch::delete_many(&self.bucket, &keys).map_err(of("keyvalue.delete-many"))
    }

    /// Adds `by`, which may be negative, to the number of a key, and returns the new number. A missing key counts as 0.
    /// The number is stored as decimal text, which `get_text` reads.
    pub fn increment(&self, key: &str, by: i64) -> Result<i64, Error> {
        atomics::increment(&self.bucket, key, by).map_err(of("keyvalue.increment"))
    }

    /// Sets a key if its current value is `expected` (`None`: the key doesn't exist). Returns whether it was set.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let first = Store::open()?.compare_and_swap("greeted", None, "yes")?;
    /// if first {
    ///     messages::show("Welcome!")?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn compare_and_swap(&self, key: &str, expected: Option<&[u8]>, value: impl AsRef<[u8]>) -> Result<bool, Error> {
        let mut cas = self.cas(key)?;
        loop {
            if current(&cas)?.as_deref() != expected {
                return Ok(false);
            }
            match swap(cas, value.as_ref())? {
                None => return Ok(true),
                // Set by another delivery in the meantime, maybe to the same value.
                Some(later) => cas = later,
            }
        }
    }

    /// Changes the value of a key atomically, and returns the new value. Calls `change` again if another delivery
    /// changed the value in the meantime.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// Store::open()?.update("log", |log| [log.unwrap_or_default(), b"asked\n".to_vec()].concat())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn update(&self, key: &str, mut change: impl FnMut(Option<Vec<u8>>) -> Vec<u8>) -> Result<Vec<u8>, Error> {
        self.try_update(key, |bytes| Ok(change(bytes)))
    }

    /// Like [`Store::update`], for values stored by [`Store::set_json`].
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(question: String) -> Result<()> {
    /// let recent: Vec<String> = Store::open()?.update_json("recent", |recent: Option<Vec<String>>| {
    ///     let mut recent = recent.unwrap_or_default();
    ///     recent.insert(0, question.clone());
    ///     recent.truncate(5);
    ///     recent
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn update_json<T: DeserializeOwned + Serialize>(
        &self,
        key: &str,
        mut change: impl FnMut(Option<T>) -> T,
    ) -> Result<T, Error> {
        let bytes = self.try_update(key, |bytes| {
            let before = bytes.map(|bytes| from_json(key, &bytes)).transpose()?;
            to_json("keyvalue.swap", key, &change(before))
        })?;
        from_json(key, &bytes)
    }

    fn try_update(
        &self,
        key: &str,
        mut change: impl FnMut(Option<Vec<u8>>) -> Result<Vec<u8>, Error>,
    ) -> Result<Vec<u8>, Error> {
        let mut cas = self.cas(key)?;
        loop {
            let value = change(current(&cas)?)?;
            match swap(cas, &value)? {
                None => return Ok(value),
                Some(later) => cas = later,
            }
        }
    }

    fn cas(&self, key: &str) -> Result<atomics::Cas, Error> {
        atomics::Cas::new(&self.bucket, key).map_err(of("keyvalue.cas.new"))
    }
}

/// An iterator over the keys of a [`Store`], from [`Store::keys`]. It ends after an error.
#[derive(Debug)]
pub struct Keys<'a> {
    store: &'a Store,
    page: VecDeque<String>,
    next: NextPage,
}

/// The page of keys to fetch next.
#[derive(Debug)]
enum NextPage {
    First,
    After(String),
    None,
}

impl Iterator for Keys<'_> {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(key) = self.page.pop_front() {
                return Some(Ok(key));
            }
            let cursor = match std::mem::replace(&mut self.next, NextPage::None) {
                NextPage::First => None,
                NextPage::After(key) => Some(key),
                NextPage::None => return None,
            };
            match self.store.bucket.list_keys(cursor.as_deref()) {
                Ok(page) => {
                    self.page = page.keys.into();
                    self.next = page.cursor.map_or(NextPage::None, NextPage::After);
                }
                Err(error) => return Some(Err(of("keyvalue.list-keys")(error))),
            }
        }
    }
}

fn current(cas: &atomics::Cas) -> Result<Option<Vec<u8>>, Error> {
    cas.current().map_err(of("keyvalue.cas.current"))
}

/// Swaps the value. Returns a new handle if another delivery changed the value in the meantime.
fn swap(cas: atomics::Cas, value: &[u8]) -> Result<Option<atomics::Cas>, Error> {
    match atomics::swap(cas, value) {
        Ok(()) => Ok(None),
        Err(atomics::CasError::CasFailed(later)) => Ok(Some(later)),
        Err(atomics::CasError::StoreError(error)) => Err(of("keyvalue.swap")(error)),
    }
}

fn from_json<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| unreadable(key, error.to_string()))
}

fn to_json(call: &'static str, key: &str, value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| {
        Error::new(call, ErrorKind::Invalid(format!("cannot serialize the value of `{key}` as JSON: {error}")))
    })
}

fn unreadable(key: &str, why: String) -> Error {
    let text = format!("cannot read the value of `{key}`: {why}");
    Error::new("keyvalue.get", ErrorKind::Invalid(text))
}

/// Converts the error of `wasi:keyvalue` into one that names the call, for `map_err`. `wasi:keyvalue` has no case for
/// temporary errors, so the host marks them with a prefix in the text.
fn of(call: &'static str) -> impl Fn(wit::Error) -> Error {
    move |error| {
        let kind = match error {
            wit::Error::NoSuchStore => ErrorKind::NotFound("no such store".into()),
            wit::Error::AccessDenied => ErrorKind::Denied("the module may not use this store".into()),
            wit::Error::Other(text) => match text.strip_prefix("unavailable: ") {
                Some(text) => ErrorKind::Unavailable(text.to_owned()),
                None => ErrorKind::Invalid(text),
            },
        };
        Error::new(call, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Retry;

    #[test]
    fn distinguishes_temporary_from_permanent_errors() {
        let error = |text: &str| of("keyvalue.set")(wit::Error::Other(text.into()));
        let down = error("unavailable: the disk is full");
        assert_eq!(down.to_string(), "keyvalue.set: unavailable: the disk is full");
        assert_eq!(down.retry(), Retry::Yes);
        assert_eq!(error("the store is full").retry(), Retry::No);
        assert_eq!(of("keyvalue.open")(wit::Error::AccessDenied).retry(), Retry::No);
    }

    #[test]
    fn type_mismatch_names_the_key() {
        let error = from_json::<u32>("limit", b"many").unwrap_err().to_string();
        assert!(error.contains("`limit`") && error.starts_with("keyvalue.get: "), "{error}");
    }
}
