//! The world this host serves, read from the same WIT files that modules are built with, and what else it offers.

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

/// The package of WASI's HTTP.
pub(super) const HTTP: &str = "wasi:http";

/// The interfaces of WASI 0.2 every module may import: those that `wasmtime-wasi` and `wasmtime-wasi-http` implement. Being
/// linked grants nothing: a module's file system is empty, its sockets connect nowhere, and what sends requests is loaded
/// only if it may send them somewhere.
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

/// What the host says to the import of an interface.
pub(super) enum Answer<'a> {
    /// It is the contract's, or one of the standard ones the contract imports.
    Contract(&'a Interface),
    /// It is WASI's.
    Wasi,
    /// The host has it, at versions that don't link with the one asked for.
    OtherVersion(Version),
    /// The host has the package, but no such interface in it: these instead.
    OtherInterface(Vec<&'a str>),
    /// The host has nothing of that package.
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
    /// The world, read on first use.
    pub fn get() -> &'static Self {
        static HOST: OnceLock<World> = OnceLock::new();
        // What is read is part of this program: it fails in every test or never.
        HOST.get_or_init(|| Self::read().unwrap_or_else(|error| panic!("the WIT this host was built with: {error:#}")))
    }

    /// Reads the embedded files, and encodes them as a component's type, the form a component brings its own in.
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

    /// The version of the contract this host serves.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The world's full name: `modhost:module/module@0.1.0`.
    pub fn name(&self) -> String {
        format!("{PACKAGE}/{WORLD}@{}", self.version)
    }

    /// The types of the world, under their names.
    pub fn space(&self) -> WitPrinter<'_> {
        let mut space = WitPrinter::new(&self.types);
        for (name, item) in &self.types[self.component].imports {
            space.learn(name, item);
        }
        space
    }

    /// What a module must export: name and item.
    pub fn exports(&self) -> impl Iterator<Item = (&str, &ComponentItem)> {
        self.types[self.component].exports.iter().map(|(name, item)| (name.as_str(), item))
    }

    /// What the host says to the import of an interface.
    pub fn answer(&self, asked: &InterfaceName) -> Answer<'_> {
        let package: Vec<_> =
            self.interfaces.iter().filter(|interface| interface.name.package == asked.package).collect();
        if let Some(served) = package.first().and_then(|interface| interface.name.version.as_ref()) {
            if !asked.version.as_ref().is_some_and(|asked| compatible(asked, served)) {
                return Answer::OtherVersion(served.clone());
            }
            return match package.iter().find(|interface| interface.name.interface == asked.interface) {
                Some(interface) => Answer::Contract(interface),
                None => {
                    Answer::OtherInterface(package.iter().map(|interface| interface.name.interface.as_str()).collect())
                }
            };
        }
        match WASI.iter().find(|(package, _)| *package == asked.package) {
            Some(_) if !asked.version.as_ref().is_some_and(is_wasi_0_2) => Answer::OtherVersion(Version::new(0, 2, 0)),
            Some((_, interfaces)) if interfaces.contains(&asked.interface.as_str()) => Answer::Wasi,
            Some((_, interfaces)) => Answer::OtherInterface(interfaces.to_vec()),
            None => Answer::Unknown,
        }
    }

    /// All that is offered, in one sentence.
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

/// A package is encoded as one exported component type for each interface and world; a world's holds the component
/// type of whoever implements it, exported under the world's full name.
fn find_world(types: &Types) -> Option<ComponentTypeId> {
    let ComponentEntityType::Type { created: ComponentAnyTypeId::Component(holder), .. } =
        types.as_ref().component_item_for_export(WORLD)?.ty
    else {
        return None;
    };
    match types[holder].exports.values().next()?.ty {
        ComponentEntityType::Component(world) => Some(world),
        _ => None,
    }
}
