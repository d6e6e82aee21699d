//! The imports, exports and sizes of a component, read from its bytes without compiling or running it.

use std::collections::BTreeSet;

use semver::Version;
use serde::Serialize;
use wasmparser::component_types::{ComponentEntityType, ComponentItem};
use wasmparser::types::Types;
use wasmparser::{
    BinaryReaderError, Instance, KnownCustom, Parser, Payload, ProducersSectionReader, ValidPayload, Validator,
    WasmFeatures,
};

use super::incompatibility::{Incompatibility, truncate};
use super::names::{self, InterfaceName};
use super::world::{PACKAGE, Resolution, World};

/// The default page size of a memory, as a power of two.
const PAGE_SIZE_LOG2: u32 = 16;
/// Maximum number of names to keep of each kind of a producers section, which may contain anything.
const MAX_PRODUCERS: usize = 16;
/// Maximum length of a displayed name, in characters.
const MAX_NAME: usize = 200;

/// The imports, exports, sizes and producers of a component.
pub struct ComponentInfo {
    /// The version of `modhost:module` that the component was built against; `None` if it imports nothing from that
    /// package.
    pub world: Option<Version>,
    /// The imports, in the component's order.
    pub imports: Vec<Import>,
    /// The exports, in the component's order.
    pub exports: Vec<Export>,
    /// The size of the component in bytes.
    pub size: u64,
    /// The sum of the initial sizes of all memories, in bytes.
    pub minimum_memory: u64,
    /// The sum of the initial sizes of all tables, in elements.
    pub minimum_table_elements: u64,
    /// The number of core instances in the component and its nested components. Each nested component counts once,
    /// however often it is instantiated.
    pub core_instances: u64,
    /// The languages and tools that produced it.
    pub producers: Producers,
    pub(super) types: Types,
    pub(super) import_items: Vec<(String, ComponentItem)>,
    pub(super) export_items: Vec<(String, ComponentItem)>,
}

/// An import of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Import {
    /// The name: `modhost:module/search@0.1.0`.
    pub name: String,
    /// The kind of the import.
    pub kind: Kind,
    /// The functions used, without the brackets of resource names: `entry.create`.
    pub functions: Vec<String>,
    /// The provider on this host.
    pub provider: Provider,
}

/// An export of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Export {
    /// The name.
    pub name: String,
    /// The kind of the export.
    pub kind: Kind,
}

/// The kind of an import or export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A function outside of an interface.
    Function,
    /// An interface, which the component model calls an instance.
    Interface,
    /// A type that other imports refer to.
    Type,
    /// A core module.
    Module,
    /// A component.
    Component,
    /// A value.
    Value,
}

impl Kind {
    /// Returns the kind as a noun for messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Interface => "interface",
            Self::Type => "type",
            Self::Module => "core module",
            Self::Component => "component",
            Self::Value => "value",
        }
    }
}

/// The provider of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The world of modules: a capability, or types.
    World,
    /// WASI, which every module may import.
    Wasi,
    /// Not available on this host.
    Nobody,
}

/// The producers of a component, from its producers sections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Producers {
    /// The source languages: `Rust`.
    pub languages: BTreeSet<String>,
    /// The tools with their versions: `rustc 1.95.0`.
    pub tools: BTreeSet<String>,
}

impl ComponentInfo {
    /// Reads a complete component.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Incompatibility> {
        let mut pass = Pass::default();
        let types = pass.validate(bytes).map_err(|error| invalid(error.message(), error.offset()))?;
        let types = types.ok_or_else(|| invalid("unexpected end of file", bytes.len()))?;
        let import_items = items(&pass.imports, |name| types.as_ref().component_item_for_import(name));
        let export_items = items(&pass.exports, |name| types.as_ref().component_item_for_export(name));
        Ok(Self {
            world: built_against(&import_items),
            imports: import_items.iter().map(|(name, item)| import(name, item, &types)).collect(),
            exports: export_items.iter().map(|(name, item)| Export { name: clean(name), kind: kind(item) }).collect(),
            size: bytes.len() as u64,
            minimum_memory: pass.minimum_memory,
            minimum_table_elements: pass.minimum_table_elements,
            core_instances: pass.core_instances,
            producers: pass.producers,
            types,
            import_items,
            export_items,
        })
    }
}

/// The results of one pass over a component and everything nested in it.
#[derive(Default)]
struct Pass {
    imports: Vec<String>,
    exports: Vec<String>,
    minimum_memory: u64,
    minimum_table_elements: u64,
    core_instances: u64,
    producers: Producers,
}

impl Pass {
    /// Validates everything except function bodies, which the compiler validates, and returns the types of the
    /// outermost component. All WebAssembly features are enabled here; the engine rejects unsupported ones with a
    /// specific error.
    fn validate(&mut self, bytes: &[u8]) -> Result<Option<Types>, BinaryReaderError> {
        let mut validator = Validator::new_with_features(WasmFeatures::all());
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            match validator.payload(&payload)? {
                ValidPayload::Parser(_) => depth += 1,
                ValidPayload::End(types) if depth == 0 => return Ok(Some(types)),
                ValidPayload::End(_) => depth -= 1,
                ValidPayload::Ok | ValidPayload::Func(..) => {}
            }
            self.collect(payload, depth)?;
        }
        Ok(None)
    }

    /// Collects the data that the validator doesn't keep. `depth` is the number of components and modules that enclose
    /// the section.
    fn collect(&mut self, payload: Payload<'_>, depth: usize) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    self.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    self.exports.push(export?.name.name.to_owned());
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory?;
                    let page = 1u64.checked_shl(memory.page_size_log2.unwrap_or(PAGE_SIZE_LOG2)).unwrap_or(u64::MAX);
                    self.minimum_memory = self.minimum_memory.saturating_add(memory.initial.saturating_mul(page));
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    self.minimum_table_elements = self.minimum_table_elements.saturating_add(table?.ty.initial);
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section {
                    self.core_instances += u64::from(matches!(instance?, Instance::Instantiate { .. }));
                }
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Producers(producers) = section.as_known() {
                    self.producers.add(producers);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Producers {
    /// Adds the names of one section. They are informational, so unreadable ones are skipped.
    fn add(&mut self, section: ProducersSectionReader<'_>) {
        for field in section.into_iter().map_while(Result::ok) {
            let names = match field.name {
                "language" => &mut self.languages,
                "processed-by" | "sdk" => &mut self.tools,
                _ => continue,
            };
            for value in field.values.into_iter().map_while(Result::ok) {
                if names.len() < MAX_PRODUCERS {
                    names.insert(clean(format!("{} {}", value.name, value.version).trim_end()));
                }
            }
        }
    }
}

fn invalid(reason: &str, offset: usize) -> Incompatibility {
    // Some of the validator's messages have several lines and columns.
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Incompatibility::Invalid { reason: clean(&reason), offset: offset as u64 }
}

fn items<'a>(names: &[String], find: impl Fn(&str) -> Option<&'a ComponentItem>) -> Vec<(String, ComponentItem)> {
    names.iter().filter_map(|name| Some((name.clone(), find(name)?.clone()))).collect()
}

/// Returns the newest version of the contract among the imports. A component composed of several may import more than
/// one version.
fn built_against(imports: &[(String, ComponentItem)]) -> Option<Version> {
    let names = imports.iter().filter_map(|(name, _)| InterfaceName::parse(name));
    names.filter(|name| name.package == PACKAGE).filter_map(|name| name.version).max()
}

fn import(name: &str, item: &ComponentItem, types: &Types) -> Import {
    let functions = match item.ty {
        ComponentEntityType::Instance(id) => {
            let exports = types[id].exports.iter();
            exports.filter(|(_, item)| kind(item) == Kind::Function).map(|(name, _)| names::plain(name)).collect()
        }
        _ => Vec::new(),
    };
    Import { name: clean(name), kind: kind(item), functions, provider: provider(name, item) }
}

fn provider(name: &str, item: &ComponentItem) -> Provider {
    match (kind(item), InterfaceName::parse(name)) {
        // A type that the world names, from an interface that is imported as well.
        (Kind::Type, _) => Provider::World,
        (Kind::Interface, Some(name)) => match World::get().resolve(&name) {
            Resolution::Contract(_) => Provider::World,
            Resolution::Wasi => Provider::Wasi,
            _ => Provider::Nobody,
        },
        _ => Provider::Nobody,
    }
}

pub(super) fn kind(item: &ComponentItem) -> Kind {
    match item.ty {
        ComponentEntityType::Func(_) => Kind::Function,
        ComponentEntityType::Instance(_) => Kind::Interface,
        ComponentEntityType::Type { .. } => Kind::Type,
        ComponentEntityType::Module(_) => Kind::Module,
        ComponentEntityType::Component(_) => Kind::Component,
        ComponentEntityType::Value(_) => Kind::Value,
    }
}

/// Makes text from an untrusted file safe for terminals and logs: replaces control characters and limits the length.
pub(super) fn clean(text: &str) -> String {
    truncate(text, MAX_NAME).replace(char::is_control, "\u{fffd}")
}
