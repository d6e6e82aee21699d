//! Compares a component's world with the host's: the host must offer all imports, and the component must have the
//! exports that the host calls.

use std::collections::HashSet;

use semver::Version;
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType, ComponentItem};

use super::compare::{Comparison, Verdict};
use super::component_info::{ComponentInfo, Kind, clean, kind};
use super::incompatibility::Problem;
use super::names::{self, InterfaceName};
use super::wit_printer::WitPrinter;
use super::world::{Interface, PACKAGE, Resolution, World};

/// Returns all problems: of imports first, then of exports, then of the types used by either.
pub(super) fn problems(component_info: &ComponentInfo) -> Vec<Problem> {
    let world = World::get();
    let host = world.printer();
    let mut guest = WitPrinter::new(&component_info.types);
    for (name, item) in &component_info.import_items {
        guest.add_names(name, item);
    }
    let mut check = Check {
        world,
        host: &host,
        guest: &guest,
        comparison: Comparison::new(&host, &guest),
        problems: Vec::new(),
        uses: Vec::new(),
    };
    for (name, item) in &component_info.import_items {
        if check.is_full() {
            break;
        }
        check.import(name, item);
    }
    for (name, item) in world.exports() {
        check.export(name, item, component_info);
    }
    check.finish()
}

/// Maximum number of problems to collect: far more than anyone reads, and few enough to bound the work for a hostile
/// component.
const MAX_PROBLEMS: usize = 200;

struct Check<'a> {
    world: &'a World,
    host: &'a WitPrinter<'a>,
    guest: &'a WitPrinter<'a>,
    comparison: Comparison<'a>,
    problems: Vec<Problem>,
    /// The uses of differing types: the index of the type, the function's interface, and the function's name.
    uses: Vec<(usize, Option<String>, String)>,
}

impl Check<'_> {
    fn is_full(&self) -> bool {
        self.problems.len() + self.comparison.differing().len() >= MAX_PROBLEMS
    }

    fn import(&mut self, name: &str, item: &ComponentItem) {
        match (kind(item), InterfaceName::parse(name)) {
            (Kind::Interface, Some(interface)) => self.interface(interface, item),
            (Kind::Type, _) if self.is_alias(item) => {}
            (Kind::Type, _) => self.problems.push(Problem::NoInterface { kind: "resource", name: clean(name) }),
            (kind, _) => self.problems.push(Problem::NoInterface { kind: kind.noun(), name: clean(name) }),
        }
    }

    /// Returns whether an imported type is an alias of a type in an imported interface. All are, except for a resource
    /// that the world itself defines.
    fn is_alias(&self, item: &ComponentItem) -> bool {
        match item.ty {
            ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(id), .. } => {
                self.guest.resource(id).is_some_and(|named| named.interface.is_some())
            }
            _ => true,
        }
    }

    fn interface(&mut self, requested: InterfaceName, item: &ComponentItem) {
        match self.world.resolve(&requested) {
            Resolution::Contract(offered) => self.contents(&requested, offered, item),
            Resolution::Wasi => {}
            Resolution::OtherVersion(served) => self.other_version(requested, served),
            Resolution::OtherInterface(has) => {
                self.not_offered(requested, has.into_iter().map(str::to_owned).collect())
            }
            Resolution::Unknown => self.not_offered(requested, Vec::new()),
        }
    }

    fn other_version(&mut self, requested: InterfaceName, served: Version) {
        for problem in &mut self.problems {
            if let Problem::OtherVersion { package, built, interfaces, .. } = problem
                && (&*package, &*built) == (&requested.package, &requested.version)
            {
                return interfaces.push(clean(&requested.interface));
            }
        }
        self.problems.push(Problem::OtherVersion {
            package: requested.package,
            built: requested.version,
            served,
            interfaces: vec![clean(&requested.interface)],
        });
    }

    fn not_offered(&mut self, requested: InterfaceName, has: Vec<String>) {
        for problem in &mut self.problems {
            if let Problem::NotOffered { package, built, interfaces, .. } = problem
                && (&*package, &*built) == (&requested.package, &requested.version)
            {
                return interfaces.push(clean(&requested.interface));
            }
        }
        self.problems.push(Problem::NotOffered {
            package: clean(&requested.package),
            built: requested.version,
            interfaces: vec![clean(&requested.interface)],
            has,
        });
    }

    /// Checks the functions and resources that a component uses of an interface.
    fn contents(&mut self, requested: &InterfaceName, offered: &Interface, item: &ComponentItem) {
        let (Some(host), Some(guest)) = (self.host.instance(&offered.item), self.guest.instance(item)) else {
            return;
        };
        let (mut functions, mut resources) = (Vec::new(), Vec::new());
        for (name, item) in &guest.exports {
            let counterpart = host.exports.get(name);
            match item.ty {
                ComponentEntityType::Func(_) => match counterpart {
                    Some(host) => self.function(Some(requested), name, host, item),
                    None => functions.push(names::plain(name)),
                },
                ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(_), .. } if counterpart.is_none() => {
                    resources.push(name.clone());
                }
                // Other types are compared where a function uses them.
                _ => {}
            }
        }
        let has = |wanted: fn(&ComponentItem) -> bool| {
            host.exports.iter().filter(|(_, item)| wanted(item)).map(|(name, _)| names::plain(name)).collect::<Vec<_>>()
        };
        let interface = requested.to_string();
        // A missing resource is reported once, without its functions.
        let missing: HashSet<_> = resources.iter().map(String::as_str).collect();
        functions.retain(|function| !function.split_once('.').is_some_and(|(resource, _)| missing.contains(resource)));
        if !resources.is_empty() {
            let has = has(is_resource);
            self.problems.push(Problem::NotInInterface {
                kind: "resource",
                interface: interface.clone(),
                names: resources,
                has,
            });
        }
        if !functions.is_empty() {
            let has = has(|item| kind(item) == Kind::Function);
            self.problems.push(Problem::NotInInterface { kind: "function", interface, names: functions, has });
        }
    }

    fn export(&mut self, name: &str, host: &ComponentItem, component_info: &ComponentInfo) {
        match component_info.export_items.iter().find(|(export, _)| export == name) {
            Some((_, guest)) if kind(guest) == Kind::Function => self.function(None, name, host, guest),
            _ => {
                let expected =
                    self.host.function(host).map(|function| self.host.signature(name, function)).unwrap_or_default();
                let exports = component_info
                    .exports
                    .iter()
                    .map(|export| format!("{} {}", export.kind.noun(), export.name))
                    .collect();
                self.problems.push(Problem::NoExport { expected, exports });
            }
        }
    }

    fn function(&mut self, interface: Option<&InterfaceName>, name: &str, host: &ComponentItem, guest: &ComponentItem) {
        let (Some(host), Some(guest)) = (self.host.function(host), self.guest.function(guest)) else {
            return;
        };
        let Verdict { differs, differing_types } = self.comparison.function(host, guest);
        let plain = names::plain(name);
        if differs {
            self.problems.push(Problem::OtherFunction {
                interface: interface.map(ToString::to_string),
                name: plain.clone(),
                expected: self.host.signature(name, host),
                found: self.guest.signature(name, guest),
            });
        }
        let interface = interface.map(|interface| interface.interface.clone());
        self.uses.extend(differing_types.into_iter().map(|index| (index, interface.clone(), plain.clone())));
    }

    /// Returns the functions that use a differing type, several of one interface in the notation of WIT's `use`:
    /// `messages.{create, modify}`.
    fn users(&self, index: usize) -> Vec<String> {
        let uses: Vec<_> = self.uses.iter().filter(|(used, ..)| *used == index).collect();
        uses.chunk_by(|(_, one, _), (_, other, _)| one == other)
            .map(|uses| {
                let names: Vec<_> = uses.iter().map(|(.., name)| name.as_str()).collect();
                match (&uses[0].1, names.as_slice()) {
                    (None, names) => names.join(", "),
                    (Some(interface), [name]) => format!("{interface}.{name}"),
                    (Some(interface), names) => format!("{interface}.{{{}}}", names.join(", ")),
                }
            })
            .collect()
    }

    fn finish(mut self) -> Vec<Problem> {
        let other_contract =
            |problem: &Problem| matches!(problem, Problem::OtherVersion { package, .. } if package == PACKAGE);
        if self.problems.iter().any(other_contract) {
            // Another version has different types, so function types add nothing to the report.
            self.problems.retain(|problem| !matches!(problem, Problem::OtherFunction { .. }));
            return self.problems;
        }
        for (index, ty) in self.comparison.differing().iter().enumerate() {
            self.problems.push(Problem::OtherType {
                keyword: ty.keyword,
                name: ty.named.name.clone(),
                interface: ty.named.interface.clone(),
                differences: ty.differences.clone(),
                used_by: self.users(index),
            });
        }
        self.problems
    }
}

fn is_resource(item: &ComponentItem) -> bool {
    matches!(item.ty, ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(_), .. })
}
