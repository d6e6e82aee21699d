//! "Did you mean …?"

/// What to do about a word nobody knows: the one that was probably meant, and those there are.
pub(crate) fn advice(written: &str, known: &[&str]) -> String {
    let list = known.join(", ");
    match nearest(written, known.iter().copied()) {
        Some(name) => format!("did you mean {name}? The known ones are: {list}"),
        None => format!("the known ones are: {list}"),
    }
}

/// The name most like the one that was written, if one is like it at all.
fn nearest<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // One slip in three characters is a slip; more is another word.
    let allowed = (written.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (distance(&written.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many characters must be put in, taken out or changed to get from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_not_other_words() {
        let names = ["listen", "admin_listen", "data_dir"];
        assert_eq!(nearest("listn", names), Some("listen"));
        assert_eq!(nearest("Data_Dir", names), Some("data_dir"));
        assert_eq!(nearest("adminlisten", names), Some("admin_listen"));
        assert_eq!(nearest("port", names), None);
        assert_eq!(nearest("x", ["y", "xx"]), Some("y"));
    }

    #[test]
    fn counts_changes() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
