//! "Did you mean …?"

/// How many known words are told; somebody may have a thousand modules.
const TOLD: usize = 40;

/// What to do about a word nobody knows: the one that was probably meant, and those there are.
pub(crate) fn advice(written: &str, known: &[&str]) -> String {
    let mut list = known[..known.len().min(TOLD)].join(", ");
    if known.len() > TOLD {
        list = format!("{list} and {} more", known.len() - TOLD);
    }
    match suggest(written, known.iter().copied()) {
        Some(name) => format!("did you mean {name}? The known ones are: {list}"),
        None => format!("the known ones are: {list}"),
    }
}

/// The name most like the one that was written, if one is like it at all.
pub(crate) fn suggest<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // One slip in three characters is a slip; more is another word.
    let allowed = (written.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (distance(&written.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many characters must be put in, taken out, changed or swapped with their neighbour to get from one word to the other
/// (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let changed = rows[i][j] + usize::from(a != b);
            let mut least = changed.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from[i - 1] == *b && to[j - 1] == *a {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_not_other_words() {
        let names = ["listen", "admin_listen", "data_dir"];
        assert_eq!(suggest("listn", names), Some("listen"));
        assert_eq!(suggest("Data_Dir", names), Some("data_dir"));
        assert_eq!(suggest("adminlisten", names), Some("admin_listen"));
        assert_eq!(suggest("lsiten", names), Some("listen"));
        assert_eq!(suggest("port", names), None);
        assert_eq!(suggest("x", ["y", "xx"]), Some("y"));
    }

    #[test]
    fn tells_some_of_many() {
        let names: Vec<String> = (0..1000).map(|number| format!("module-{number:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let told = advice("modul-999", &names);
        assert!(told.starts_with("did you mean module-999? The known ones are: module-000, module-001"), "{told}");
        assert!(told.ends_with(", module-039 and 960 more"), "{told}");
        assert_eq!(advice("a", &["here", "there"]), "the known ones are: here, there");
    }

    #[test]
    fn counts_changes() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!((distance("ab", "ba"), distance("Tset", "Test"), distance("abc", "cba")), (1, 1, 2));
        assert_eq!(distance("abc", "abc"), 0);
    }
}
