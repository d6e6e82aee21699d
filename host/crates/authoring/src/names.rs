//! The names of a module: on its platform, and where names are restricted.

/// The placeholders for a module's names in a template.
const MODULE: &str = "MyModule";
const PACKAGE: &str = "my-module";
const IDENTIFIER: &str = "my_module";

/// Maximum length of a package name in bytes. npm allows more, but with longer names paths may exceed the limits of
/// file systems.
const MAX_LENGTH: usize = 64;

/// Package names that are reserved by a language or its tools.
const RESERVED: [&str; 67] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "internal",
    "let",
    "loop",
    "macro",
    "main",
    "match",
    "mod",
    "modhost",
    "modhost-sdk",
    "move",
    "mut",
    "node-modules",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "sdk",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "vendor",
    "virtual",
    "where",
    "while",
    "wit",
    "yield",
];

/// The names of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The name on the platform.
    pub module: String,
    /// The name of the package and its folder: lower-case words with dashes.
    pub package: String,
}

impl Names {
    /// Creates the names of a module. If no package name is given, it is derived from the module's name.
    ///
    /// # Errors
    ///
    /// Returns a message with advice if a name is invalid.
    pub fn new(module: &str, package: Option<&str>) -> Result<Self, String> {
        if module.trim().is_empty() {
            return Err("a module needs a name: the one it has on the platform".to_owned());
        }
        if module.trim() != module || module.chars().any(char::is_control) {
            return Err(format!(
                "{module:?} is not a valid module name: it has leading or trailing white space, or control characters"
            ));
        }
        let is_derived = package.is_none();
        let package = package.map_or_else(|| kebab_case(module), str::to_owned);
        match problem(&package) {
            None => Ok(Self { module: module.to_owned(), package }),
            Some(problem) if is_derived => Err(format!(
                "cannot derive a package name from {module:?}: {problem}. Choose one with --package NAME; the name on \
                 the platform stays {module:?}"
            )),
            Some(problem) => Err(format!("{package:?} is not a valid package name: {problem}")),
        }
    }

    /// Returns the package name with underscores, for languages whose identifiers can't contain dashes.
    fn identifier(&self) -> String {
        self.package.replace('-', "_")
    }

    /// Replaces the placeholders in a template's text by these names.
    pub(super) fn substitute(&self, text: &str) -> String {
        text.replace(MODULE, &self.module).replace(PACKAGE, &self.package).replace(IDENTIFIER, &self.identifier())
    }
}

/// Returns the problem with a package name by the rules of the strictest language; `None` if it is valid.
fn problem(package: &str) -> Option<String> {
    if !package.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Some("it must begin with a letter from a to z".to_owned());
    }
    if let Some(other) = package.chars().find(|it| !(it.is_ascii_lowercase() || it.is_ascii_digit() || *it == '-')) {
        return Some(format!(
            "it contains {other:?}; only lower-case letters from a to z, digits and dashes are allowed"
        ));
    }
    if package.ends_with('-') || package.contains("--") {
        return Some("dashes are only allowed between words".to_owned());
    }
    if package.len() > MAX_LENGTH {
        return Some(format!("it is longer than {MAX_LENGTH} characters"));
    }
    RESERVED.contains(&package).then(|| format!("\"{package}\" is reserved by a language or its tools"))
}

/// Converts a name to a package name: `TravelDesk`, `Travel desk` and `travel_desk` become `travel-desk`.
fn kebab_case(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut words = String::new();
    for (index, &character) in characters.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| characters.get(before)).copied().unwrap_or(' ');
        let lower_follows = characters.get(index + 1).is_some_and(|next| next.is_lowercase());
        let begins = character.is_uppercase()
            && (before.is_lowercase() || before.is_numeric() || (before.is_uppercase() && lower_follows));
        if !character.is_alphanumeric() {
            words.push('-');
            continue;
        }
        if begins {
            words.push('-');
        }
        words.extend(character.to_lowercase());
    }
    words.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_the_package_name_from_the_module_name() {
        for (module, package) in [
            ("Mine", "mine"),
            ("TravelDesk", "travel-desk"),
            ("Travel desk (new)", "travel-desk-new"),
            ("HTTPRelay2Go", "http-relay2-go"),
            ("already-so_named", "already-so-named"),
        ] {
            assert_eq!(Names::new(module, None).unwrap().package, package);
        }
    }

    #[test]
    fn rejects_invalid_names_with_advice() {
        for (module, package, expected) in [
            ("", None, "needs a name"),
            (" Mine", None, "leading or trailing"),
            ("Übersetzer", None, "--package NAME"),
            ("日本", None, "begin with a letter"),
            ("Test", None, "\"test\" is reserved"),
            ("2Fast", None, "begin with a letter"),
            ("Mine", Some("Mine"), "begin with a letter"),
            ("Mine", Some("my_module"), "contains '_'"),
            ("Mine", Some("a--b"), "between words"),
        ] {
            let error = Names::new(module, package).unwrap_err();
            assert!(error.contains(expected), "{module:?} {package:?}: {error}");
        }
        assert_eq!(Names::new("Übersetzer", Some("translator")).unwrap().package, "translator");
    }

    #[test]
    fn replaces_placeholders_in_templates() {
        let names = Names::new("TravelDesk", None).unwrap();
        assert_eq!(names.substitute("MyModule, my-module/my_module.wasm"), "TravelDesk, travel-desk/travel_desk.wasm");
    }
}
