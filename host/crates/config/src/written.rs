//! Which keys of a part of the settings are written down, and where they end: what tells a file that was cut from a whole one.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The keys of a part of the settings that stand in the file, those of its tables included.
///
/// Two are always equal: settings mean the same whether a default is written down or not.
#[derive(Clone, Debug, Default)]
pub struct Written {
    keys: BTreeSet<String>,
    /// Where the last of them ends, in bytes from the beginning of the file.
    end: usize,
}

impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Written {
    /// What is written of a table.
    pub(super) fn of(text: &str, span: Range<usize>, table: &DeTable<'_>) -> Self {
        let mut written = Self { keys: BTreeSet::new(), end: span.end };
        written.add(text, "", table);
        written
    }

    /// Whether keys are missing that stood there before.
    pub(super) fn lacks_any_of(&self, before: &Self) -> bool {
        !before.keys.is_subset(&self.keys)
    }

    /// Where the last key ends, in bytes from the beginning of the file.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    fn add(&mut self, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            self.add_value(text, &format!("{prefix}{}", key.get_ref()), value);
            self.end = self.end.max(key.span().end);
        }
    }

    /// What can be cut between two lines is taken apart: tables under headers of their own and dotted keys. A value on one line,
    /// or in brackets, is there as a whole or not at all.
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

    fn written(text: &str) -> Written {
        let table = DeTable::parse(text).unwrap();
        Written::of(text, table.span(), table.get_ref())
    }

    #[test]
    fn a_table_that_is_cut_lacks_keys() {
        let whole = "a = 1\nb.c = { d = 1 }\nl = [{ x = 1 }]\n[t]\ne = 1\nf = 1\n[[h]]\ng = 1\n[[h]]\ng = 1\n";
        let all = written(whole);
        assert_eq!(all.end(), whole.trim_end().len());
        let lines: Vec<&str> = whole.lines().collect();
        for cut in 0..lines.len() {
            let cut = lines[..cut].join("\n");
            assert!(written(&cut).lacks_any_of(&all), "{cut}");
        }
        assert!(!written(whole).lacks_any_of(&all));
    }

    #[test]
    fn what_stands_in_braces_is_one_value() {
        let before = written("l = { a = 1, b = 2 }\nh = [{ a = 1 }, { a = 2 }]\n");
        assert!(!written("l = { a = 1 }\nh = []\n").lacks_any_of(&before));
    }
}
