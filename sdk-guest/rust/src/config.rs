//! The module's settings: first those of the assistant the event comes from, then the `config` table of the module in
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

/// A setting as text: a text as it is, anything else as JSON. `None` if nobody set it.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// let greeting = config::get("greeting")?.unwrap_or_else(|| "Hello".into());
/// # Ok(())
/// # }
/// ```
pub fn get(key: &str) -> Result<Option<String>, Error> {
    wit::get(key).map_err(unreadable("config.get"))
}

/// A setting as a type of your own, which may be a number, a list, a table. `None` if nobody set it; an error that
/// names the setting if it is something else.
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
    get(key)?.map(|text| read(key, &text)).transpose()
}

/// All settings, as [`get`] gives them.
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
    let settings = wit::get_all().map_err(unreadable("config.get-all"))?;
    Ok(settings.into_iter().collect())
}

/// The host gives a text as it is and anything else as JSON, so a text such as `7` may be meant either way: what
/// fits the type wins.
fn read<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text)
        .or_else(|not_json| {
            let as_text = serde_json::from_value(text.into());
            // Of the two complaints, the one about what the value seems to be.
            as_text.map_err(|not_text| if not_json.is_data() { not_json } else { not_text })
        })
        .map_err(|error| {
            let text = format!("the setting `{key}` isn't what the module expects: {error}");
            Error::new("config.get", ErrorKind::Misconfigured(text))
        })
}

fn unreadable(call: &'static str) -> impl Fn(wit::Error) -> Error {
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
    fn a_setting_is_read_as_what_it_is_wanted_as() {
        assert_eq!(read::<u32>("k", "7"), Ok(7));
        assert_eq!(read::<String>("k", "7"), Ok("7".to_owned()));
        assert_eq!(read::<bool>("k", "true"), Ok(true));
        assert_eq!(read::<String>("k", "hello"), Ok("hello".to_owned()));
        assert_eq!(read::<Vec<u8>>("k", "[1,2]"), Ok(vec![1, 2]));
        assert_eq!(read::<Tone>("k", "very-formal"), Ok(Tone::VeryFormal));
    }

    #[test]
    fn a_misfit_names_the_setting_and_the_trouble() {
        let text = read::<u32>("limit", "many").unwrap_err().to_string();
        assert!(text.contains("`limit`") && text.contains("many"), "{text}");
        let text = read::<u32>("limit", "-1").unwrap_err().to_string();
        assert!(text.contains("-1"), "{text}");
        assert_eq!(read::<u32>("limit", "many").unwrap_err().retry(), crate::Retry::No);
    }
}
