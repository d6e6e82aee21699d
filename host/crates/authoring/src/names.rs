//! What a module is called: on its platform, and where names have rules of their own.

/// What stands in a template for a module's names.
const MODULE: &str = "MyModule";
const PACKAGE: &str = "my-module";
const IDENTIFIER: &str = "my_module";

/// The longest name of a package; npm takes more, file systems with everything around it don't always.
const MAX_LENGTH: usize = 64;

/// Names that some language or its tools keep to themselves, as a package's.
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
    /// What the platform calls it.
    pub module: String,
    /// What its package is called, and its folder: lower-case words with dashes.
    pub package: String,
}

impl Names {
    /// The names of a module; that of the package is made from the module's if it isn't said.
    ///
    /// # Errors
    ///
    /// When one of them can't be, with what to do.
    pub fn new(module: &str, package: Option<&str>) -> Result<Self, String> {
        if module.trim().is_empty() {
            return Err("a module needs a name: the one it has on the platform".to_owned());
        }
        if module.trim() != module || module.chars().any(char::is_control) {
            return Err(format!(
                "{module:?} has spaces around it or control characters in it: no module is called that"
            ));
        }
        let made = package.is_none();
        let package = package.map_or_else(|| words(module), str::to_owned);
        match trouble(&package) {
            None => Ok(Self { module: module.to_owned(), package }),
            Some(trouble) if made => Err(format!(
                "no name for its package can be made from {module:?}: {trouble}. Give it one: --package NAME. The platform's \
                 name stays as it is"
            )),
            Some(trouble) => Err(format!("no package can be called {package:?}: {trouble}")),
        }
    }

    /// The package's name where a dash can't be.
    fn identifier(&self) -> String {
        self.package.replace('-', "_")
    }

    /// A template's text with these names in place of those that stand for them.
    pub(super) fn put_into(&self, text: &str) -> String {
        text.replace(MODULE, &self.module).replace(PACKAGE, &self.package).replace(IDENTIFIER, &self.identifier())
    }
}

/// What is wrong with the name of a package, in the strictest of the languages.
fn trouble(package: &str) -> Option<String> {
    if !package.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Some("it has to begin with a letter from a to z".to_owned());
    }
    if let Some(other) = package.chars().find(|it| !(it.is_ascii_lowercase() || it.is_ascii_digit() || *it == '-')) {
        return Some(format!("{other:?} is in it, and it may have lower-case letters from a to z, digits and dashes"));
    }
    if package.ends_with('-') || package.contains("--") {
        return Some("a dash stands between words".to_owned());
    }
    if package.len() > MAX_LENGTH {
        return Some(format!("it is longer than {MAX_LENGTH} characters"));
    }
    RESERVED.contains(&package).then(|| format!("\"{package}\" means something else to a compiler"))
}

/// `TravelDesk`, `Travel desk` and `travel_desk` as `travel-desk`.
fn words(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut words = String::new();
    for (place, &character) in characters.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| characters.get(before)).copied().unwrap_or(' ');
        let lower_follows = characters.get(place + 1).is_some_and(|next| next.is_lowercase());
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
    fn a_package_is_called_what_the_module_is() {
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
    fn names_that_cannot_be_are_told_with_a_way_out() {
        for (module, package, said) in [
            ("", None, "needs a name"),
            (" Mine", None, "spaces around it"),
            ("Übersetzer", None, "--package NAME"),
            ("日本", None, "begin with a letter"),
            ("Test", None, "\"test\" means something else"),
            ("2Fast", None, "begin with a letter"),
            ("Mine", Some("Mine"), "begin with a letter"),
            ("Mine", Some("my_module"), "'_' is in it"),
            ("Mine", Some("a--b"), "between words"),
        ] {
            let error = Names::new(module, package).unwrap_err();
            assert!(error.contains(said), "{module:?} {package:?}: {error}");
        }
        assert_eq!(Names::new("Übersetzer", Some("translator")).unwrap().package, "translator");
    }

    #[test]
    fn a_templates_words_become_the_names() {
        let names = Names::new("TravelDesk", None).unwrap();
        assert_eq!(names.put_into("MyModule, my-module/my_module.wasm"), "TravelDesk, travel-desk/travel_desk.wasm");
    }
}
