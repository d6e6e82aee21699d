//! The module's settings: first those of the assistant that sent the event, then the module's `config` table in
//! `modules.toml`.
//!
//! ```toml
//! [[module]]
//! name   = "DemoApp"
//! config = { greeting = "Hello", limit = 3 }
//! ```
//!
//! ```no_run
//! # use modhost_sdk::prelude::*;
//! # fn example() -> Result<()> {
//! let greeting = config::get("greeting")?.unwrap_or_else(|| "Good day".into());
//! let limit = config::parse("limit")?.unwrap_or(5);
//! let hits = Search::new("parental leave").limit(limit).run()?;
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::bindings::wasi::config::store as wit;
use crate::error::{Error, ErrorKind};

/// Returns a setting as text: a string unchanged, any other value as JSON. `None` if it isn't set.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// let greeting = config::get("greeting")?.unwrap_or_else(|| "Hello".into());
/// # Ok(())
/// # }
/// ```
pub fn get(key: &str) -> Result<Option<String>, Error> {
    wit::get(key).map_err(config_error("config.get"))
}

/// Returns a setting, deserialized into your own type, such as a number, a list or a table. `None` if it isn't set.
///
/// # Errors
///
/// If the value doesn't fit the type. The error names the setting.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// #[derive(serde::Deserialize)]
/// #[serde(rename_all = "kebab-case")]
/// enum Tone {
///     Formal,
///     Friendly,
/// }
///
/// let limit: u32 = config::parse("limit")?.unwrap_or(3);
/// let scopes: Vec<String> = config::parse("scopes")?.unwrap_or_default();
/// let tone = config::parse("tone")?.unwrap_or(Tone::Friendly);
/// # Ok(())
/// # }
/// ```
pub fn parse<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    get(key)?.map(|text| deserialize(key, &text)).transpose()
}

/// Returns all settings, as [`get`] returns them.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// for (key, value) in config::all()? {
///     debug!("{key} = {value}");
/// }
/// # Ok(())
/// # }
/// ```
pub fn all() -> Result<BTreeMap<String, String>, Error> {
    let settings = wit::get_all().map_err(config_error("config.get-all"))?;
    Ok(settings.into_iter().collect())
}

/// Deserializes a setting. The host returns strings unchanged and all other values as JSON, so a text such as `7` is
/// ambiguous: this tries JSON first, then the plain string.
fn deserialize<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text)
        .or_else(|not_json| {
            let as_text = serde_json::from_value(text.into());
            // Of the two errors, report the one that fits the apparent kind of the value.
            as_text.map_err(|not_text| if not_json.is_data() { not_json } else { not_text })
        })
        .map_err(|error| {
            let text = format!("invalid setting `{key}`: {error}");
            Error::new("config.get", ErrorKind::Misconfigured(text))
        })
}

fn config_error(call: &'static str) -> impl Fn(wit::Error) -> Error {
    move |error| match error {
        wit::Error::Upstream(text) | wit::Error::Io(text) => Error::new(call, ErrorKind::Unavailable(text)),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    enum Tone {
        VeryFormal,
    }

    #[test]
    fn deserializes_setting_into_the_requested_type() {
        assert_eq!(deserialize::<u32>("k", "7"), Ok(7));
        assert_eq!(deserialize::<String>("k", "7"), Ok("7".to_owned()));
        assert_eq!(deserialize::<bool>("k", "true"), Ok(true));
        assert_eq!(deserialize::<String>("k", "hello"), Ok("hello".to_owned()));
        assert_eq!(deserialize::<Vec<u8>>("k", "[1,2]"), Ok(vec![1, 2]));
        assert_eq!(deserialize::<Tone>("k", "very-formal"), Ok(Tone::VeryFormal));
    }

    #[test]
    fn type_mismatch_names_the_setting_and_the_value() {
        let text = deserialize::<u32>("limit", "many").unwrap_err().to_string();
        assert!(text.contains("`limit`") && text.contains("many"), "{text}");
        let text = deserialize::<u32>("limit", "-1").unwrap_err().to_string();
        assert!(text.contains("-1"), "{text}");
        assert_eq!(deserialize::<u32>("limit", "many").unwrap_err().retry(), crate::Retry::No);
    }
}
