//! Why a component doesn't fit, in words for the person who built it.

use std::borrow::Cow;
use std::fmt;

use bytesize::ByteSize;
use semver::Version;

use super::names::{at, track};
use super::world::{HTTP, PACKAGE, World};

/// How many problems are told of at once: whoever has more has built against something else altogether.
const TOLD: usize = 20;
/// How many differences of one type, or names of one list, are told of.
const LISTED: usize = 12;
/// Where a line is cut off, in characters: longer than any that isn't made to be long.
const MAX_LINE: usize = 1000;

/// Why a file can't be a module. Its text is one line, or one line for each problem under a first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incompatibility {
    /// There is nothing in the file.
    Empty,
    /// The file is larger than a component may be. Both in bytes.
    TooLarge {
        /// What it has.
        size: u64,
        /// What it may have.
        max_size: u64,
    },
    /// The file is something else.
    NotWebAssembly(Lookalike),
    /// The file is a core module: the inside of a component, without the types of its interfaces.
    CoreModule,
    /// The file ends in the middle. Both in bytes.
    Truncated {
        /// What it has.
        size: u64,
        /// Where what it begins would end.
        goes_on_to: u64,
    },
    /// The file begins like a component, but isn't a valid one.
    Invalid {
        /// What is wrong, in the words of the validator.
        reason: String,
        /// Where, in bytes from the beginning.
        offset: u64,
    },
    /// It is a component, of another world than the host's.
    World {
        /// The version of `modhost:module` it was built against, where it tells.
        built: Option<Version>,
        /// What doesn't fit, at least one.
        problems: Vec<Problem>,
    },
}

/// What a file that isn't WebAssembly looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookalike {
    /// WebAssembly's text form.
    Wat,
    /// A web page.
    Html,
    /// What Git keeps in place of a large file.
    LfsPointer,
    /// A zip or gzip archive.
    Archive,
    /// A native program, or a component compiled ahead of time.
    Native,
    /// Text; how it begins.
    Text(String),
    /// Anything else; its first bytes.
    Other(Vec<u8>),
}

/// One thing in which a component's world isn't the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A function the world asks for isn't exported.
    NoExport {
        /// The function as it should be, in WIT.
        expected: String,
        /// What is exported instead.
        exports: Vec<String>,
    },
    /// The interfaces of a package are imported at a version that doesn't link with the host's.
    OtherVersion {
        /// The package, without its version.
        package: String,
        /// The version the component was built against.
        built: Option<Version>,
        /// The version the host serves.
        served: Version,
        /// The interfaces that are imported of it.
        interfaces: Vec<String>,
    },
    /// Interfaces are imported that the host doesn't offer.
    NotOffered {
        /// The package, without its version.
        package: String,
        /// The version the component was built against.
        built: Option<Version>,
        /// The interfaces that are imported of it.
        interfaces: Vec<String>,
        /// The interfaces the host has of that package.
        has: Vec<String>,
    },
    /// Something is imported that no interface of another package could be: a function on its own, a component.
    NoInterface {
        /// What kind of thing: `function`, `component`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A function or resource is imported that the host's interface doesn't have.
    NotInInterface {
        /// `function` or `resource`.
        kind: &'static str,
        /// The interface.
        interface: String,
        /// The names that it lacks.
        names: Vec<String>,
        /// The names of that kind that it has.
        has: Vec<String>,
    },
    /// A function has another type.
    OtherFunction {
        /// The interface it is imported from; none for an export.
        interface: Option<String>,
        /// The function's name.
        name: String,
        /// How the host has it, in WIT.
        expected: String,
        /// How the component has it, in WIT.
        found: String,
    },
    /// A named type is another one.
    OtherType {
        /// WIT's word for its kind: `record`.
        keyword: &'static str,
        /// Its name.
        name: String,
        /// The interface it is defined in.
        interface: Option<String>,
        /// What differs.
        differences: Vec<String>,
        /// The functions that can't be called for it.
        used_by: Vec<String>,
    },
}

impl std::error::Error for Incompatibility {}

impl fmt::Display for Incompatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the file is empty: its build failed, or is still writing it"),
            Self::TooLarge { size, max_size } => write!(
                f,
                "the file has {}, more than the {} a component may have: build it optimised for size and strip it \
                 (`wasm-tools strip`)",
                bytes(*size),
                bytes(*max_size)
            ),
            Self::NotWebAssembly(lookalike) => write!(f, "the file is not WebAssembly: {lookalike}"),
            Self::CoreModule => f.write_str(
                "the file is a core module, not a component: build it for wasm32-wasip2, or, where the compiler has no \
                 such target, make a component of it with `modhost componentize`",
            ),
            Self::Truncated { size, goes_on_to } => write!(
                f,
                "the file is cut short: it ends at byte {size}, but its contents go on to byte {goes_on_to} at least; it \
                 is still being written, or a copy of it broke off"
            ),
            Self::Invalid { reason, offset } => write!(
                f,
                "the file is not a valid component: {reason} (at byte {offset:#x}); it is damaged, or the tools that made \
                 it are older or newer than this host"
            ),
            Self::World { built, problems } => world(f, built.as_ref(), problems),
        }
    }
}

fn world(f: &mut fmt::Formatter<'_>, built: Option<&Version>, problems: &[Problem]) -> fmt::Result {
    let host = World::get();
    write!(f, "the component doesn't fit the world {} of this host:", host.name())?;
    for problem in problems.iter().take(TOLD) {
        write!(f, "\n- {}", cut(&problem.to_string()))?;
    }
    if problems.len() > TOLD {
        f.write_str("\n- and more")?;
    }
    if problems.iter().any(Problem::is_unknown) {
        write!(f, "\n{}", host.offered())?;
    }
    match built {
        Some(built) if problems.iter().any(Problem::is_of_another_copy) => {
            if built > host.version() {
                write!(f, "\nit was built against {PACKAGE}@{built}: a host of that version has what it needs")
            } else {
                write!(f, "\nit was built with other files of {PACKAGE}@{built} than this host's: build it with those")
            }
        }
        _ => Ok(()),
    }
}

impl Problem {
    /// Whether it asks for something of which the host has never heard.
    fn is_unknown(&self) -> bool {
        match self {
            Self::NotOffered { has, .. } => has.is_empty(),
            Self::NoInterface { .. } => true,
            _ => false,
        }
    }

    /// Whether it can only come from WIT files of the right name with another content.
    fn is_of_another_copy(&self) -> bool {
        match self {
            Self::NotInInterface { interface, .. } => interface.starts_with(PACKAGE),
            Self::NotOffered { package, .. } => package == PACKAGE,
            Self::OtherFunction { .. } | Self::OtherType { .. } => true,
            _ => false,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoExport { expected, exports } => {
                write!(f, "it doesn't export `{expected}`; it exports {}", list(exports))
            }
            Self::OtherVersion { package, built, served, interfaces } => {
                other_version(f, package, built.as_ref(), served, interfaces)
            }
            Self::NotOffered { package, built, interfaces, has } => {
                write!(f, "it imports {} of {package}{}, ", list(interfaces), at(built.as_ref()))?;
                match package.as_str() {
                    HTTP => write!(
                        f,
                        "and a module sends requests only, by {}: build it without (componentize-js: `--disable \
                         fetch-event`)",
                        list(has)
                    ),
                    _ if has.is_empty() => f.write_str("which this host doesn't offer"),
                    _ => write!(f, "which this host doesn't offer; of that package it has {}", list(has)),
                }
            }
            Self::NoInterface { kind, name } => write!(
                f,
                "it imports the {kind} `{name}`, which belongs to no package; a module imports interfaces only"
            ),
            Self::NotInInterface { kind, interface, names, has } => {
                let has = if has.is_empty() { format!("no {kind}s") } else { list(has) };
                write!(f, "it imports the {kind}{} {} of {interface}, which has {has}", plural(names), list(names))
            }
            Self::OtherFunction { interface, name, expected, found } => {
                match interface {
                    Some(interface) => write!(f, "`{name}` of {interface} has another type:")?,
                    None => write!(f, "its `{name}` has another type:")?,
                }
                write!(f, "\n    expected  {expected}\n    found     {found}")
            }
            Self::OtherType { keyword, name, interface, differences, used_by } => {
                write!(f, "{keyword} `{name}`")?;
                if let Some(interface) = interface {
                    write!(f, " of {interface}")?;
                }
                write!(f, " differs from the host's, so {} can't be called:", list(used_by))?;
                for difference in differences.iter().take(LISTED) {
                    write!(f, "\n    {difference}")?;
                }
                match differences.len().checked_sub(LISTED) {
                    Some(more @ 1..) => write!(f, "\n    and {more} more"),
                    _ => Ok(()),
                }
            }
        }
    }
}

fn other_version(
    f: &mut fmt::Formatter<'_>,
    package: &str,
    built: Option<&Version>,
    served: &Version,
    interfaces: &[String],
) -> fmt::Result {
    let track = track(served);
    let Some(built) = built else {
        return write!(f, "it imports {} of {package} without a version; this host serves {track}", list(interfaces));
    };
    write!(f, "it was built against {package}@{built} (for {}); this host serves {track}: ", list(interfaces))?;
    match package {
        PACKAGE if built > served => write!(f, "build it against {package}@{served}, or take a newer host"),
        _ if package.starts_with("wasi:") && track == "0.2.x" => f.write_str("build it for WASI 0.2 (wasm32-wasip2)"),
        _ => write!(f, "build it against {package}@{served}"),
    }
}

impl fmt::Display for Lookalike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wat => {
                f.write_str("it is WebAssembly's text form (WAT), which `wasm-tools parse` turns into the binary one")
            }
            Self::Html => f.write_str("it is a web page; a download that ended at a login or an error looks like this"),
            Self::LfsPointer => {
                f.write_str("it is a Git LFS pointer in place of the file, which `git lfs pull` fetches")
            }
            Self::Archive => f.write_str("it is an archive, which has to be unpacked first"),
            Self::Native => f.write_str(
                "it is native code (ELF); of a component compiled ahead of time, give the .wasm it was made from",
            ),
            Self::Text(beginning) => {
                write!(f, "it is text that begins with `{beginning}`; give the component built from it")
            }
            Self::Other(bytes) => {
                let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                write!(f, "it begins with the bytes {}, not with 00 61 73 6d", bytes.join(" "))
            }
        }
    }
}

/// A text with its longest lines cut off: names may have a hundred thousand characters.
fn cut(text: &str) -> String {
    text.lines().map(|line| truncate(line, MAX_LINE)).collect::<Vec<_>>().join("\n")
}

/// Returns a text of at most this many characters; `…` follows where it was cut.
pub(super) fn truncate(text: &str, max_chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Names in a sentence: `a`, `b` and `c`.
fn list(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().take(LISTED).map(|name| format!("`{name}`")).collect();
    if let Some(more @ 1..) = names.len().checked_sub(LISTED) {
        return format!("{} and {more} more", quoted.join(", "));
    }
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

fn plural(names: &[String]) -> &'static str {
    if names.len() == 1 { "" } else { "s" }
}

/// A size as people read it: `48.2 KiB`.
fn bytes(size: u64) -> impl fmt::Display {
    ByteSize::b(size).display().iec()
}
