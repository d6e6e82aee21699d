//! "Did you mean …?"

/// Maximum number of known names to list. A file may define a thousand modules.
const MAX_LISTED: usize = 40;

/// Returns advice on an unknown name: the closest known name, if one is close, and the list of known names.
pub fn advice(written: &str, known: &[&str]) -> String {
    let mut list = known[..known.len().min(MAX_LISTED)].join(", ");
    if known.len() > MAX_LISTED {
        list = format!("{list} and {} more", known.len() - MAX_LISTED);
    }
    match suggest(written, known.iter().copied()) {
        Some(name) => format!("did you mean {name}? Expected one of: {list}"),
        None => format!("expected one of: {list}"),
    }
}

/// Returns the known name closest to the written one, or `None` if no name is close.
///
/// Distance is optimal string alignment, ignoring case.
pub fn suggest<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // At most one typo per three characters; beyond that it is a different word.
    let allowed = (written.chars().count() / 3).max(1);
    let names: Vec<&str> = names.into_iter().collect();
    // Whoever knows a module of a tenant's own file by its name there.
    let is_local = |name: &&&str| name.rsplit_once('/').is_some_and(|(_, local)| local == written);
    if let Some(name) = names.iter().find(is_local) {
        return Some(name);
    }
    names
        .into_iter()
        .map(|name| (strsim::osa_distance(&written.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_close_names_only() {
        let names = ["listen", "admin_listen", "data_dir"];
        assert_eq!(suggest("listn", names), Some("listen"));
        assert_eq!(suggest("Data_Dir", names), Some("data_dir"));
        assert_eq!(suggest("adminlisten", names), Some("admin_listen"));
        assert_eq!(suggest("lsiten", names), Some("listen"));
        assert_eq!(suggest("port", names), None);
        assert_eq!(suggest("x", ["y", "xx"]), Some("y"));
        assert_eq!(suggest("Assistant", ["Assistent", "acme/Assistant"]), Some("acme/Assistant"));
    }

    #[test]
    fn lists_at_most_forty_names() {
        let names: Vec<String> = (0..1000).map(|number| format!("module-{number:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = advice("modul-999", &names);
        assert!(text.starts_with("did you mean module-999? Expected one of: module-000, module-001"), "{text}");
        assert!(text.ends_with(", module-039 and 960 more"), "{text}");
        assert_eq!(advice("a", &["here", "there"]), "expected one of: here, there");
    }
}
