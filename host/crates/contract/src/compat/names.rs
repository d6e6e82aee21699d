//! Names of interfaces with versions, as in a component: `modhost:module/search@0.1.0`.

use std::fmt;

use semver::Version;
use wasmparser::names::{ComponentName, ComponentNameKind};

/// The parsed name of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InterfaceName {
    /// The package without its version: `modhost:module`.
    pub package: String,
    /// The interface in the package: `search`.
    pub interface: String,
    /// The package's version, if the name contains one.
    pub version: Option<Version>,
}

impl InterfaceName {
    /// Parses the name of an import or export; `None` if it isn't the name of an interface (`handle`, `url=…`).
    pub fn parse(name: &str) -> Option<Self> {
        let name = ComponentName::new(name, 0).ok()?;
        let ComponentNameKind::Interface(id) = name.kind() else {
            return None;
        };
        Some(Self {
            package: format!("{}:{}", id.namespace(), id.package()),
            interface: id.projection().to_string(),
            version: id.version(None).ok().flatten(),
        })
    }

    /// Returns the name without its version.
    pub fn unversioned(&self) -> String {
        format!("{}/{}", self.package, self.interface)
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.package, self.interface, at(self.version.as_ref()))
    }
}

/// Formats a version as a suffix: `@0.1.0`, or nothing.
pub(super) fn at(version: Option<&Version>) -> String {
    version.map(|version| format!("@{version}")).unwrap_or_default()
}

/// Returns whether a component built against one version links with the other, by the rule of Wasmtime's linker: patch
/// versions of a 0.x version and minor versions of a later one are compatible; a pre-release is compatible only with
/// itself.
pub(super) fn compatible(built: &Version, served: &Version) -> bool {
    let prerelease = !built.pre.is_empty() || !served.pre.is_empty();
    if prerelease || (built.major == 0 && built.minor == 0) {
        return (built.major, built.minor, built.patch, &built.pre)
            == (served.major, served.minor, served.patch, &served.pre);
    }
    built.major == served.major && (built.major != 0 || built.minor == served.minor)
}

/// Formats the versions that are compatible with the given one: `0.1.x`, `1.x`, `0.2.0-rc.1`.
pub(super) fn track(version: &Version) -> String {
    match version {
        v if !v.pre.is_empty() || (v.major == 0 && v.minor == 0) => v.to_string(),
        v if v.major == 0 => format!("0.{}.x", v.minor),
        v => format!("{}.x", v.major),
    }
}

/// Returns a function's name without the component model's annotations: `[method]entry.update` becomes `entry.update`.
pub(super) fn plain(name: &str) -> String {
    match ComponentName::new(name, 0).as_ref().map(ComponentName::kind) {
        Ok(ComponentNameKind::Method(f) | ComponentNameKind::Static(f)) => format!("{}.{}", f.resource(), f.method()),
        Ok(ComponentNameKind::Constructor(resource)) => format!("{resource}.constructor"),
        _ => name.to_owned(),
    }
}
