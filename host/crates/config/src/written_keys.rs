//! The keys of a part of the settings that are in the file, and where they end. They distinguish a truncated file
//! from a complete one.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The keys of a part of the settings that are in the file, nested keys included.
///
/// All values are equal, because settings mean the same whether a default is in the file or not.
#[derive(Clone, Debug, Default)]
pub struct WrittenKeys {
    keys: BTreeSet<String>,
    /// The byte offset at which the last key ends.
    end: usize,
}

impl PartialEq for WrittenKeys {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl WrittenKeys {
    /// Returns the keys of a table.
    pub(super) fn of(text: &str, span: Range<usize>, table: &DeTable<'_>) -> Self {
        let mut written = Self { keys: BTreeSet::new(), end: span.end };
        written.add(text, "", table);
        written
    }

    /// Adds the keys of another table that belongs to the same part.
    pub(super) fn extend(&mut self, prefix: &str, other: Self) {
        self.keys.insert(prefix.to_owned());
        self.keys.extend(other.keys.into_iter().map(|key| format!("{prefix}.{key}")));
        self.end = self.end.max(other.end);
    }

    /// Whether keys are missing that were in the file before.
    pub(super) fn is_missing_keys_of(&self, before: &Self) -> bool {
        !before.keys.is_subset(&self.keys)
    }

    /// Returns the byte offset at which the last key ends.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    fn add(&mut self, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            self.add_value(text, &format!("{prefix}{}", key.get_ref()), value);
            self.end = self.end.max(key.span().end);
        }
    }

    /// Adds a key and its nested keys where the file can be cut between lines: tables with their own headers, and
    /// dotted keys. A value on one line, or in brackets, is either present or absent as a whole.
    fn add_value(&mut self, text: &str, key: &str, value: &Spanned<DeValue<'_>>) {
        self.end = self.end.max(value.span().end);
        self.keys.insert(key.to_owned());
        let is_inline = |value: &Spanned<DeValue<'_>>| {
            text.get(value.span()).is_some_and(|written| written.trim_start().starts_with('{'))
        };
        match value.get_ref() {
            DeValue::Table(table) if !is_inline(value) => self.add(text, &format!("{key}."), table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if matches!(item.get_ref(), DeValue::Table(_)) && !is_inline(item) {
                        self.add_value(text, &format!("{key}[{index}]"), item);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> WrittenKeys {
        let table = DeTable::parse(text).unwrap();
        WrittenKeys::of(text, table.span(), table.get_ref())
    }

    #[test]
    fn detects_truncated_table() {
        let whole = "a = 1\nb.c = { d = 1 }\nl = [{ x = 1 }]\n[t]\ne = 1\nf = 1\n[[h]]\ng = 1\n[[h]]\ng = 1\n";
        let all = written(whole);
        assert_eq!(all.end(), whole.trim_end().len());
        let lines: Vec<&str> = whole.lines().collect();
        for cut in 0..lines.len() {
            let cut = lines[..cut].join("\n");
            assert!(written(&cut).is_missing_keys_of(&all), "{cut}");
        }
        assert!(!written(whole).is_missing_keys_of(&all));
    }

    #[test]
    fn treats_inline_table_as_one_value() {
        let before = written("l = { a = 1, b = 2 }\nh = [{ a = 1 }, { a = 2 }]\n");
        assert!(!written("l = { a = 1 }\nh = []\n").is_missing_keys_of(&before));
    }
}
