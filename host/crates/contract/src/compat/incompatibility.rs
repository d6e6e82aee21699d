//! The reasons why a component is incompatible, as messages for the person who built it.

use std::borrow::Cow;
use std::fmt;

use bytesize::ByteSize;
use semver::Version;

use super::names::{at, track};
use super::world::{HTTP, PACKAGE, World};

/// Maximum number of problems to list. A component with more was built against something else.
const MAX_PROBLEMS: usize = 20;
/// Maximum number of differences of one type, or of names in one list.
const MAX_LISTED: usize = 12;
/// Maximum length of a line in characters. Only hostile components exceed it.
const MAX_LINE: usize = 1000;

/// The reason a file cannot be a module. The text is one line, or for [`World`](Self::World) a first line and one line
/// or more per problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incompatibility {
    /// The file is empty.
    Empty,
    /// The file is larger than the maximum.
    TooLarge {
        /// The size of the file in bytes.
        size: u64,
        /// The maximum in bytes.
        max_size: u64,
    },
    /// The file is not WebAssembly.
    NotWebAssembly(Lookalike),
    /// The file is a core module, without the interface types of a component.
    CoreModule,
    /// The file is truncated.
    Truncated {
        /// The size of the file in bytes.
        size: u64,
        /// The position in bytes where the last section would end.
        expected_size: u64,
    },
    /// The file begins like a component, but is invalid.
    Invalid {
        /// The validator's message.
        reason: String,
        /// The position in bytes.
        offset: u64,
    },
    /// The file is a component of another world.
    World {
        /// The version of `modhost:module` that it was built against, if known.
        built: Option<Version>,
        /// The problems, at least one.
        problems: Vec<Problem>,
    },
}

/// The probable format of a file that isn't WebAssembly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookalike {
    /// WebAssembly text format.
    Wat,
    /// A web page.
    Html,
    /// A Git LFS pointer, which Git stores in place of a large file.
    LfsPointer,
    /// A zip or gzip archive.
    Archive,
    /// A native program, or a component compiled ahead of time.
    Native,
    /// Text, with its beginning.
    Text(String),
    /// Any other format, with its first bytes.
    Other(Vec<u8>),
}

/// A difference between a component's world and the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A required function isn't exported.
    NoExport {
        /// The expected function, in WIT.
        expected: String,
        /// The actual exports, with their kinds.
        exports: Vec<String>,
    },
    /// The component imports interfaces of a package in a version that doesn't link with the host's.
    OtherVersion {
        /// The name of the package, without its version.
        package: String,
        /// The version that the component was built against.
        built: Option<Version>,
        /// The version that the host serves.
        served: Version,
        /// The imported interfaces.
        interfaces: Vec<String>,
    },
    /// The component imports interfaces that the host doesn't offer.
    NotOffered {
        /// The name of the package, without its version.
        package: String,
        /// The version that the component was built against.
        built: Option<Version>,
        /// The imported interfaces.
        interfaces: Vec<String>,
        /// The interfaces that the host offers from the same package.
        has: Vec<String>,
    },
    /// The component imports something that is not an interface of a package: a single function, a component.
    NoInterface {
        /// The kind of import: `function`, `component`.
        kind: &'static str,
        /// The name of the import.
        name: String,
    },
    /// The component imports functions or resources that the host's interface doesn't have.
    NotInInterface {
        /// `function` or `resource`.
        kind: &'static str,
        /// The interface.
        interface: String,
        /// The missing names.
        names: Vec<String>,
        /// The names of the same kind in the interface.
        has: Vec<String>,
    },
    /// A function has a different type.
    OtherFunction {
        /// The interface that it is imported from; `None` for an export.
        interface: Option<String>,
        /// The function's name.
        name: String,
        /// The host's signature, in WIT.
        expected: String,
        /// The component's signature, in WIT.
        found: String,
    },
    /// A named type is different.
    OtherType {
        /// WIT's keyword for the type: `record`.
        keyword: &'static str,
        /// The name of the type.
        name: String,
        /// The interface that defines it.
        interface: Option<String>,
        /// The differences, one line each.
        differences: Vec<String>,
        /// The functions that use the type, and so cannot be called.
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
                "the file has {}, more than the maximum of {} for a component: optimize it for size and strip it \
                 (`wasm-tools strip`)",
                bytes(*size),
                bytes(*max_size)
            ),
            Self::NotWebAssembly(lookalike) => write!(f, "the file is not WebAssembly: {lookalike}"),
            Self::CoreModule => f.write_str(
                "the file is a core module, not a component: build it for wasm32-wasip2, or, where the compiler has no \
                 such target, convert it to a component with `modhost componentize`",
            ),
            Self::Truncated { size, expected_size } => write!(
                f,
                "the file is truncated: it ends at byte {size}, but its contents extend to byte {expected_size} or \
                 beyond; it is still being written, or a copy was interrupted"
            ),
            Self::Invalid { reason, offset } => write!(
                f,
                "the file is not a valid component: {reason} (at byte {offset:#x}); it is damaged, or the tools that \
                 made it are older or newer than this host"
            ),
            Self::World { built, problems } => world(f, built.as_ref(), problems),
        }
    }
}

fn world(f: &mut fmt::Formatter<'_>, built: Option<&Version>, problems: &[Problem]) -> fmt::Result {
    let host = World::get();
    write!(f, "the component doesn't fit the world {} of this host:", host.name())?;
    for problem in problems.iter().take(MAX_PROBLEMS) {
        write!(f, "\n- {}", truncate_lines(&problem.to_string()))?;
    }
    if problems.len() > MAX_PROBLEMS {
        f.write_str("\n- and more")?;
    }
    if problems.iter().any(Problem::is_unknown) {
        write!(f, "\n{}", host.offered())?;
    }
    match built {
        Some(built) if problems.iter().any(Problem::is_of_another_copy) => {
            if built > host.version() {
                write!(f, "\nit was built against {PACKAGE}@{built}: run it on a host of that version")
            } else {
                write!(
                    f,
                    "\nit was built from other WIT files of {PACKAGE}@{built} than this host's: \
                     build it from the host's"
                )
            }
        }
        _ => Ok(()),
    }
}

impl Problem {
    /// Returns whether the component imports something from a package that the host doesn't have.
    fn is_unknown(&self) -> bool {
        match self {
            Self::NotOffered { has, .. } => has.is_empty(),
            Self::NoInterface { .. } => true,
            _ => false,
        }
    }

    /// Returns whether the problem shows that the component was built from WIT files with the same version, but other
    /// content.
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
                        "but a module can only send requests, with {}: build it without (componentize-js: `--disable \
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
                for difference in differences.iter().take(MAX_LISTED) {
                    write!(f, "\n    {difference}")?;
                }
                match differences.len().checked_sub(MAX_LISTED) {
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
        PACKAGE if built > served => write!(f, "build it against {package}@{served}, or use a newer host"),
        _ if package.starts_with("wasi:") && track == "0.2.x" => f.write_str("build it for WASI 0.2 (wasm32-wasip2)"),
        _ => write!(f, "build it against {package}@{served}"),
    }
}

impl fmt::Display for Lookalike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wat => f.write_str("it is WebAssembly text (WAT); convert it to a binary with `wasm-tools parse`"),
            Self::Html => f.write_str("it is a web page, probably the login or error page of a failed download"),
            Self::LfsPointer => f.write_str("it is a Git LFS pointer; fetch the file with `git lfs pull`"),
            Self::Archive => f.write_str("it is an archive; unpack it first"),
            Self::Native => f.write_str(
                "it is native code (ELF); for a component compiled ahead of time, use the .wasm file it was \
                 compiled from",
            ),
            Self::Text(beginning) => {
                write!(f, "it is text that begins with `{beginning}`; use the component built from it")
            }
            Self::Other(bytes) => {
                let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                write!(f, "it begins with the bytes {}, not with 00 61 73 6d", bytes.join(" "))
            }
        }
    }
}

/// Truncates long lines: a name may have a hundred thousand characters.
fn truncate_lines(text: &str) -> String {
    text.lines().map(|line| truncate(line, MAX_LINE)).collect::<Vec<_>>().join("\n")
}

/// Truncates a text to this many characters, and appends `…` if it was longer.
pub(super) fn truncate(text: &str, max_chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Formats names for a sentence: `a`, `b` and `c`.
fn list(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().take(MAX_LISTED).map(|name| format!("`{name}`")).collect();
    if let Some(more @ 1..) = names.len().checked_sub(MAX_LISTED) {
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

/// Formats a size for people: `48.2 KiB`.
fn bytes(size: u64) -> impl fmt::Display {
    ByteSize::b(size).display().iec()
}
