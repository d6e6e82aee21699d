//! What a component is made of, read from its bytes: nothing is compiled, nothing of it runs.

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
use super::world::{Answer, PACKAGE, World};

/// The page size of a memory that doesn't say another, as a power of two.
const PAGE_SIZE_LOG2: u32 = 16;
/// How many names of each kind are kept of a producers section, which may hold anything.
const MAX_PRODUCERS: usize = 16;
/// How long a name may be, in characters, to be shown whole.
const MAX_NAME: usize = 200;

/// What a component is made of.
pub struct ComponentInfo {
    /// The version of `modhost:module` it was built against; none if it imports nothing of that package.
    pub world: Option<Version>,
    /// What it needs, in the order it says so.
    pub imports: Vec<Import>,
    /// What it gives.
    pub exports: Vec<Export>,
    /// Its size in bytes.
    pub size: u64,
    /// The memory it takes before it runs, in bytes: the first sizes of all its memories.
    pub minimum_memory: u64,
    /// The elements of tables it takes before it runs: the first sizes of all its tables.
    pub minimum_table_elements: u64,
    /// How many core instances its components make, each counted once however often it is made itself.
    pub core_instances: u64,
    /// Who made it.
    pub producers: Producers,
    pub(super) types: Types,
    pub(super) import_items: Vec<(String, ComponentItem)>,
    pub(super) export_items: Vec<(String, ComponentItem)>,
}

/// Something a component imports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Import {
    /// Its name: `modhost:module/search@0.1.0`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The functions it uses of it, without their resource's brackets: `entry.create`.
    pub functions: Vec<String>,
    /// Who on the host's side provides it.
    pub provider: Provider,
}

/// Something a component exports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What an import or export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A function on its own.
    Function,
    /// An interface: an instance, in the component model's word.
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
    /// The kind in a sentence.
    pub fn word(self) -> &'static str {
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

/// Who provides an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The world of modules: a capability, or types.
    World,
    /// WASI, which every module may import.
    Wasi,
    /// Nobody on this host.
    Nobody,
}

/// Who made a component, as its producers sections say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Producers {
    /// What it was written in: `Rust`.
    pub languages: BTreeSet<String>,
    /// What it was built with, with versions: `rustc 1.95.0`.
    pub tools: BTreeSet<String>,
}

impl ComponentInfo {
    /// Reads a whole component.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Incompatibility> {
        let mut pass = Pass::default();
        let types = pass.over(bytes).map_err(|error| invalid(error.message(), error.offset()))?;
        let types = types.ok_or_else(|| invalid("it has no end", bytes.len()))?;
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

/// One pass over the bytes, component and everything nested in it.
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
    /// Validates everything but the bodies of functions, which is the compiler's business, and answers with the types
    /// of the outermost component. Every feature is allowed: what the engine doesn't run, it refuses by name.
    fn over(&mut self, bytes: &[u8]) -> Result<Option<Types>, BinaryReaderError> {
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
            self.note(payload, depth)?;
        }
        Ok(None)
    }

    /// Keeps what the validator doesn't. `depth` is how many components and modules enclose the payload's section.
    fn note(&mut self, payload: Payload<'_>, depth: usize) -> Result<(), BinaryReaderError> {
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
    /// Adds what one section says. It is for people only, so what can't be read of it is left out.
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
    // The validator lays some of its messages out in columns and lines.
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Incompatibility::Invalid { reason: clean(&reason), offset: offset as u64 }
}

fn items<'a>(names: &[String], find: impl Fn(&str) -> Option<&'a ComponentItem>) -> Vec<(String, ComponentItem)> {
    names.iter().filter_map(|name| Some((name.clone(), find(name)?.clone()))).collect()
}

/// The newest version of the contract among the imports; those made of several components may have more than one.
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
        // A type the world itself names, out of an interface that is imported too.
        (Kind::Type, _) => Provider::World,
        (Kind::Interface, Some(name)) => match World::get().answer(&name) {
            Answer::Contract(_) => Provider::World,
            Answer::Wasi => Provider::Wasi,
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

/// Text of a file nobody vouches for, fit for a terminal and a log: without control characters, and not endless.
pub(super) fn clean(text: &str) -> String {
    truncate(text, MAX_NAME).replace(char::is_control, "\u{fffd}")
}
