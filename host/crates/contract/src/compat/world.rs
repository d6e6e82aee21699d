//! The world that this host serves, read from the WIT files that modules are built with, and the other interfaces it
//! offers.

use std::sync::OnceLock;

use anyhow::Context;
use semver::Version;
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType, ComponentItem, ComponentTypeId};
use wasmparser::types::Types;
use wasmparser::{Validator, WasmFeatures};

use super::names::{InterfaceName, compatible};
use super::wit_printer::WitPrinter;
use crate as contract;
pub(super) use crate::PACKAGE;
use crate::WORLD;

/// The package of WASI HTTP.
pub(super) const HTTP: &str = "wasi:http";

/// The interfaces of WASI 0.2 that every module may import: those implemented by `wasmtime-wasi` and
/// `wasmtime-wasi-http`. Importing one grants nothing: a module's file system is empty, its sockets can't connect, and
/// a module that sends HTTP requests is loaded only if its settings allow a destination.
pub(super) const WASI: [(&str, &[&str]); 7] = [
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stderr",
            "stdin",
            "stdout",
            "terminal-input",
            "terminal-output",
            "terminal-stderr",
            "terminal-stdin",
            "terminal-stdout",
        ],
    ),
    ("wasi:clocks", &["monotonic-clock", "wall-clock"]),
    ("wasi:filesystem", &["preopens", "types"]),
    (HTTP, &["outgoing-handler", "types"]),
    ("wasi:io", &["error", "poll", "streams"]),
    ("wasi:random", &["insecure", "insecure-seed", "random"]),
    (
        "wasi:sockets",
        &["instance-network", "ip-name-lookup", "network", "tcp", "tcp-create-socket", "udp", "udp-create-socket"],
    ),
];

/// The host's answer to the import of an interface.
pub(super) enum Resolution<'a> {
    /// An interface of the contract, or a standard one that the contract imports.
    Contract(&'a Interface),
    /// An interface of WASI.
    Wasi,
    /// The host has this package, but in a version that doesn't link with the requested one.
    OtherVersion(Version),
    /// The host has this package, but only these interfaces of it.
    OtherInterface(Vec<&'a str>),
    /// The host doesn't have this package.
    Unknown,
}

/// An interface of the host's world.
pub(super) struct Interface {
    pub name: InterfaceName,
    pub item: ComponentItem,
}

/// The host's world.
pub(super) struct World {
    types: Types,
    component: ComponentTypeId,
    interfaces: Vec<Interface>,
    version: Version,
}

impl World {
    /// Returns the world, which is parsed on first use.
    pub fn get() -> &'static Self {
        static HOST: OnceLock<World> = OnceLock::new();
        // The WIT is part of this program, so this fails in every test or never.
        HOST.get_or_init(|| Self::read().unwrap_or_else(|error| panic!("the WIT this host was built with: {error:#}")))
    }

    /// Parses the embedded files and encodes them as a component type, the form in which a component contains its own
    /// types.
    fn read() -> anyhow::Result<Self> {
        let (resolve, package) = contract::read()?;
        let version = resolve.packages[package].name.version.clone().context("the package has no version")?;

        let encoded = wit_component::encode(&resolve, package)?;
        let types = Validator::new_with_features(WasmFeatures::all()).validate_all(&encoded)?;
        let component = find_world(&types).with_context(|| format!("no world `{WORLD}`"))?;
        let interfaces = types[component]
            .imports
            .iter()
            .filter_map(|(name, item)| Some(Interface { name: InterfaceName::parse(name)?, item: item.clone() }))
            .collect();
        Ok(Self { types, component, interfaces, version })
    }

    /// Returns the version of the contract that this host serves.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Returns the world's full name: `modhost:module/module@0.1.0`.
    pub fn name(&self) -> String {
        format!("{PACKAGE}/{WORLD}@{}", self.version)
    }

    /// Returns a printer with the names of the world's types.
    pub fn printer(&self) -> WitPrinter<'_> {
        let mut printer = WitPrinter::new(&self.types);
        for (name, item) in &self.types[self.component].imports {
            printer.add_names(name, item);
        }
        printer
    }

    /// Returns the name and type of everything that a module must export.
    pub fn exports(&self) -> impl Iterator<Item = (&str, &ComponentItem)> {
        self.types[self.component].exports.iter().map(|(name, item)| (name.as_str(), item))
    }

    /// Returns the host's answer to the import of an interface.
    pub fn resolve(&self, requested: &InterfaceName) -> Resolution<'_> {
        let package: Vec<_> =
            self.interfaces.iter().filter(|interface| interface.name.package == requested.package).collect();
        if let Some(served) = package.first().and_then(|interface| interface.name.version.as_ref()) {
            if !requested.version.as_ref().is_some_and(|requested| compatible(requested, served)) {
                return Resolution::OtherVersion(served.clone());
            }
            return match package.iter().find(|interface| interface.name.interface == requested.interface) {
                Some(interface) => Resolution::Contract(interface),
                None => Resolution::OtherInterface(
                    package.iter().map(|interface| interface.name.interface.as_str()).collect(),
                ),
            };
        }
        match WASI.iter().find(|(package, _)| *package == requested.package) {
            Some(_) if !requested.version.as_ref().is_some_and(is_wasi_0_2) => {
                Resolution::OtherVersion(Version::new(0, 2, 0))
            }
            Some((_, interfaces)) if interfaces.contains(&requested.interface.as_str()) => Resolution::Wasi,
            Some((_, interfaces)) => Resolution::OtherInterface(interfaces.to_vec()),
            None => Resolution::Unknown,
        }
    }

    /// Returns a sentence that lists everything the host offers.
    pub fn offered(&self) -> String {
        let mut standard: Vec<_> =
            self.interfaces.iter().map(|interface| &interface.name).filter(|name| name.package != PACKAGE).collect();
        standard.sort_by_key(|name| name.to_string());
        let standard: Vec<_> = standard.iter().map(ToString::to_string).collect();
        let wasi: Vec<_> = WASI.iter().map(|(package, _)| package.trim_start_matches("wasi:")).collect();
        format!(
            "this host offers {PACKAGE}@{}, {} and, of WASI 0.2, {}",
            self.version,
            standard.join(", "),
            wasi.join(", ")
        )
    }
}

fn is_wasi_0_2(version: &Version) -> bool {
    compatible(version, &Version::new(0, 2, 0))
}

/// Finds the world in an encoded package. The package exports one component type for each interface and world. A
/// world's type contains the component type of its implementations, exported under the world's full name.
fn find_world(types: &Types) -> Option<ComponentTypeId> {
    let ComponentEntityType::Type { created: ComponentAnyTypeId::Component(wrapper), .. } =
        types.as_ref().component_item_for_export(WORLD)?.ty
    else {
        return None;
    };
    match types[wrapper].exports.values().next()?.ty {
        ComponentEntityType::Component(world) => Some(world),
        _ => None,
    }
}
