//! What the module keeps from one event to the next: values under keys, on the host's disk.
//!
//! All of it is private to the module and the tenant of the event: for another tenant, the same module sees other values.
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
//! A write is on disk when the call returns, and stays, however the event ends: a delivery that fails takes nothing back.
//! When it starts again, reads and writes that were answered are answered as they were then, without being done again. So
//! an [`increment`](Store::increment) counts once for each event, even if the host is killed in the middle of it.
//!
//! Deliveries run side by side. What two of them may change at the same time wants [`Store::increment`],
//! [`Store::update`] or [`Store::compare_and_swap`], not a [`Store::get`] and a [`Store::set`].
//!
//! What there is room for is `limits.keyvalue` of the module in `modules.toml`. A call beyond it fails with
//! [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), and says what is full.

use std::collections::VecDeque;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::wasi::keyvalue::{atomics, batch, store as wit};
use crate::error::{Error, ErrorKind};

/// Values under keys: one of the module's buckets.
///
/// A key is any text of up to 1024 bytes, a value any bytes up to 1 MiB.
#[derive(Debug)]
pub struct Store {
    bucket: wit::Bucket,
}

impl Store {
    /// The module's default bucket.
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

    /// A bucket of its own name, for what should not share its keys with the rest. It is there as soon as something is
    /// set in it; a module may have a hundred.
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

    /// The bytes under a key; `None` if there are none.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.bucket.get(key).map_err(of("keyvalue.get"))
    }

    /// The text under a key; an error if it is something else.
    pub fn get_text(&self, key: &str) -> Result<Option<String>, Error> {
        let text = |bytes| {
            String::from_utf8(bytes).map_err(|_| unreadable(key, "text", "it has bytes that are no UTF-8".into()))
        };
        self.get(key)?.map(text).transpose()
    }

    /// What [`Store::set_json`] has put under a key; an error if it is something else.
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

    /// Puts bytes or text under a key, whatever stood there.
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

    /// Puts a value of a type of your own under a key, as JSON.
    pub fn set_json(&self, key: &str, value: &impl Serialize) -> Result<(), Error> {
        self.set(key, to_json("keyvalue.set", key, value)?)
    }

    /// Removes a key; nothing happens if it isn't there.
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        self.bucket.delete(key).map_err(of("keyvalue.delete"))
    }

    /// Whether something stands under a key.
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        self.bucket.exists(key).map_err(of("keyvalue.exists"))
    }

    /// All keys, in the order of their bytes. They are fetched a thousand at a time, so that a loop that ends early costs
    /// little.
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
        Keys { store: self, page: VecDeque::new(), next: Next::First }
    }

    /// What stands under several keys, in their order: one call rather than many. A thousand keys at the most.
    pub fn get_many<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let keys: Vec<String> = keys.into_iter().map(K::into).collect();
        let found = batch::get_many(&self.bucket, &keys).map_err(of("keyvalue.get-many"))?;
        Ok(found.into_iter().map(|found| found.map(|(_, value)| value)).collect())
    }

    /// Puts several values under their keys: all or, if it fails, none. A thousand at the most.
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

    /// Removes several keys: all or, if it fails, none. A thousand at the most.
    pub fn delete_many<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) -> Result<(), Error> {
        let keys: Vec<String> = keys.into_iter().map(K::into).collect();
        batch::delete_many(&self.bucket, &keys).map_err(of("keyvalue.delete-many"))
    }

    /// Counts the number under a key up, or down by less than 0, and returns what it is then. It starts at 0, and is kept
    /// as decimal text: `get_text` reads it.
    pub fn increment(&self, key: &str, by: i64) -> Result<i64, Error> {
        atomics::increment(&self.bucket, key, by).map_err(of("keyvalue.increment"))
    }

    /// Puts a value under a key if `expected` stands there, `None` for nothing; tells whether it did.
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
        let mut cas = self.look(key)?;
        loop {
            if current(&cas)?.as_deref() != expected {
                return Ok(false);
            }
            match swap(cas, value.as_ref())? {
                None => return Ok(true),
                // Set anew in between, maybe to the same.
                Some(later) => cas = later,
            }
        }
    }

    /// Changes what stands under a key, however many others do so at the same time, and returns what stands there then.
    /// `change` is called again if somebody else was faster.
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

    /// As [`Store::update`], for what [`Store::set_json`] sets.
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
        let mut cas = self.look(key)?;
        loop {
            let value = change(current(&cas)?)?;
            match swap(cas, &value)? {
                None => return Ok(value),
                Some(later) => cas = later,
            }
        }
    }

    fn look(&self, key: &str) -> Result<atomics::Cas, Error> {
        atomics::Cas::new(&self.bucket, key).map_err(of("keyvalue.cas.new"))
    }
}

/// The keys of a [`Store`], as [`Store::keys`] gives them. After an error there are no more.
#[derive(Debug)]
pub struct Keys<'a> {
    store: &'a Store,
    page: VecDeque<String>,
    next: Next,
}

#[derive(Debug)]
enum Next {
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
            let cursor = match std::mem::replace(&mut self.next, Next::None) {
                Next::First => None,
                Next::After(key) => Some(key),
                Next::None => return None,
            };
            match self.store.bucket.list_keys(cursor.as_deref()) {
                Ok(page) => {
                    self.page = page.keys.into();
                    self.next = page.cursor.map_or(Next::None, Next::After);
                }
                Err(error) => return Some(Err(of("keyvalue.list-keys")(error))),
            }
        }
    }
}

fn current(cas: &atomics::Cas) -> Result<Option<Vec<u8>>, Error> {
    cas.current().map_err(of("keyvalue.cas.current"))
}

/// Swaps; what stands there instead, if somebody else was faster.
fn swap(cas: atomics::Cas, value: &[u8]) -> Result<Option<atomics::Cas>, Error> {
    match atomics::swap(cas, value) {
        Ok(()) => Ok(None),
        Err(atomics::CasError::CasFailed(later)) => Ok(Some(later)),
        Err(atomics::CasError::StoreError(error)) => Err(of("keyvalue.swap")(error)),
    }
}

fn from_json<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| unreadable(key, "what the module expects", error.to_string()))
}

fn to_json(call: &'static str, key: &str, value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|error| Error::new(call, ErrorKind::Invalid(format!("the value for `{key}` makes no JSON: {error}"))))
}

fn unreadable(key: &str, wanted: &str, why: String) -> Error {
    let text = format!("what stands under `{key}` isn't {wanted}: {why}");
    Error::new("keyvalue.get", ErrorKind::Invalid(text))
}

/// Turns the standard's error into one that names the call, for `map_err`. It has no words for what may pass; the host
/// says so at the beginning of its text.
fn of(call: &'static str) -> impl Fn(wit::Error) -> Error {
    move |error| {
        let kind = match error {
            wit::Error::NoSuchStore => ErrorKind::NotFound("there is no such store".into()),
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
    fn what_may_pass_is_told_from_what_stays() {
        let error = |text: &str| of("keyvalue.set")(wit::Error::Other(text.into()));
        let down = error("unavailable: the disk is full");
        assert_eq!(down.to_string(), "keyvalue.set: unavailable: the disk is full");
        assert_eq!(down.retry(), Retry::Yes);
        assert_eq!(error("there is no room").retry(), Retry::No);
        assert_eq!(of("keyvalue.open")(wit::Error::AccessDenied).retry(), Retry::No);
    }

    #[test]
    fn a_value_of_another_kind_names_its_key() {
        let error = from_json::<u32>("limit", b"many").unwrap_err().to_string();
        assert!(error.contains("`limit`") && error.starts_with("keyvalue.get: "), "{error}");
    }
}
