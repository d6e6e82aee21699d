//! Fields by name.

use super::Value;

/// Selected fields of an object. Other fields are skipped, and of duplicate keys the last value is used.
pub struct Fields<'a>(Vec<(&'static str, Value<'a>)>);

impl<'a> Fields<'a> {
    /// Returns the fields with these names; `None` if the value is not an object.
    pub fn of(value: Value<'a>, names: &'static [&'static str]) -> Option<Self> {
        let mut fields: Vec<(&'static str, Value<'a>)> = Vec::with_capacity(names.len());
        for (key, value) in value.entries()? {
            let Some(name) = names.iter().find(|name| is_name(key, name)) else { continue };
            match fields.iter_mut().find(|(known, _)| known == name) {
                Some(field) => field.1 = value,
                None => fields.push((name, value)),
            }
        }
        Some(Self(fields))
    }

    /// Returns whether the field exists, even as null.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }

    /// Returns the value of a field; `None` if it is missing or null.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        let field = self.0.iter().find(|(known, _)| *known == name);
        field.map(|(_, value)| *value).filter(|value| !value.is_null())
    }

    /// Returns the value of the first of these fields that is not null.
    pub fn first(&self, names: &[&str]) -> Option<Value<'a>> {
        names.iter().find_map(|name| self.get(name))
    }

    /// Returns the [`Value::text_or_number`] of a field.
    pub fn text(&self, name: &str) -> Option<String> {
        Some(self.get(name)?.text_or_number()?.text.into_owned())
    }

    /// Returns the [`Value::integer`] of a field.
    pub fn integer<T: TryFrom<i64>>(&self, name: &str) -> Option<T> {
        self.get(name)?.integer()
    }
}

/// Returns whether a key equals this name, which must be ASCII without escapes.
fn is_name(key: Value<'_>, name: &str) -> bool {
    let Some(content) = key.content() else { return false };
    content == name.as_bytes() || (content.contains(&b'\\') && key.text().is_some_and(|key| key.text == name))
}
