//! A component's world against the host's: what it imports must be offered, what the host calls must be there.

use std::collections::HashSet;

use semver::Version;
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType, ComponentItem};

use super::compare::{Comparison, Verdict};
use super::component_info::{ComponentInfo, Kind, clean, kind};
use super::incompatibility::Problem;
use super::names::{self, InterfaceName};
use super::wit_printer::WitPrinter;
use super::world::{Answer, Interface, PACKAGE, World};

/// All that keeps a component from fitting: what it imports first, what it exports next, the types of both last.
pub(super) fn problems(component_info: &ComponentInfo) -> Vec<Problem> {
    let world = World::get();
    let host = world.space();
    let mut guest = WitPrinter::new(&component_info.types);
    for (name, item) in &component_info.import_items {
        guest.learn(name, item);
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
        if check.has_enough() {
            break;
        }
        check.import(name, item);
    }
    for (name, item) in world.exports() {
        check.export(name, item, component_info);
    }
    check.finish()
}

/// How many problems are looked for: far more than anyone reads, and few enough that a component made of nothing
/// else is done with at once.
const ENOUGH: usize = 200;

struct Check<'a> {
    world: &'a World,
    host: &'a WitPrinter<'a>,
    guest: &'a WitPrinter<'a>,
    comparison: Comparison<'a>,
    problems: Vec<Problem>,
    /// Which function uses which differing type: the type's place, the function's interface and name.
    uses: Vec<(usize, Option<String>, String)>,
}

impl Check<'_> {
    fn has_enough(&self) -> bool {
        self.problems.len() + self.comparison.differing().len() >= ENOUGH
    }

    fn import(&mut self, name: &str, item: &ComponentItem) {
        match (kind(item), InterfaceName::parse(name)) {
            (Kind::Interface, Some(interface)) => self.interface(interface, item),
            (Kind::Type, _) if self.refers(item) => {}
            (Kind::Type, _) => self.problems.push(Problem::NoInterface { kind: "resource", name: clean(name) }),
            (kind, _) => self.problems.push(Problem::NoInterface { kind: kind.word(), name: clean(name) }),
        }
    }

    /// Whether an imported type is only another name for one of an imported interface. All are, but a resource of the
    /// world's own.
    fn refers(&self, item: &ComponentItem) -> bool {
        match item.ty {
            ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(id), .. } => {
                self.guest.resource(id).is_some_and(|named| named.home.is_some())
            }
            _ => true,
        }
    }

    fn interface(&mut self, asked: InterfaceName, item: &ComponentItem) {
        match self.world.answer(&asked) {
            Answer::Contract(offered) => self.contents(&asked, offered, item),
            Answer::Wasi => {}
            Answer::OtherVersion(served) => self.other_version(asked, served),
            Answer::OtherInterface(has) => self.not_offered(asked, has.into_iter().map(str::to_owned).collect()),
            Answer::Unknown => self.not_offered(asked, Vec::new()),
        }
    }

    fn other_version(&mut self, asked: InterfaceName, served: Version) {
        for problem in &mut self.problems {
            if let Problem::OtherVersion { package, built, interfaces, .. } = problem
                && (&*package, &*built) == (&asked.package, &asked.version)
            {
                return interfaces.push(clean(&asked.interface));
            }
        }
        self.problems.push(Problem::OtherVersion {
            package: asked.package,
            built: asked.version,
            served,
            interfaces: vec![clean(&asked.interface)],
        });
    }

    fn not_offered(&mut self, asked: InterfaceName, has: Vec<String>) {
        for problem in &mut self.problems {
            if let Problem::NotOffered { package, built, interfaces, .. } = problem
                && (&*package, &*built) == (&asked.package, &asked.version)
            {
                return interfaces.push(clean(&asked.interface));
            }
        }
        self.problems.push(Problem::NotOffered {
            package: clean(&asked.package),
            built: asked.version,
            interfaces: vec![clean(&asked.interface)],
            has,
        });
    }

    /// The functions and resources a component uses of an interface.
    fn contents(&mut self, asked: &InterfaceName, offered: &Interface, item: &ComponentItem) {
        let (Some(host), Some(guest)) = (self.host.instance(&offered.item), self.guest.instance(item)) else {
            return;
        };
        let (mut functions, mut resources) = (Vec::new(), Vec::new());
        for (name, item) in &guest.exports {
            let counterpart = host.exports.get(name);
            match item.ty {
                ComponentEntityType::Func(_) => match counterpart {
                    Some(host) => self.function(Some(asked), name, host, item),
                    None => functions.push(names::plain(name)),
                },
                ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(_), .. } if counterpart.is_none() => {
                    resources.push(name.clone());
                }
                // A value's type matters where a function uses it.
                _ => {}
            }
        }
        let has = |wanted: fn(&ComponentItem) -> bool| {
            host.exports.iter().filter(|(_, item)| wanted(item)).map(|(name, _)| names::plain(name)).collect::<Vec<_>>()
        };
        let interface = asked.to_string();
        // A resource that isn't there has no functions either: saying so once is enough.
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
                    .map(|export| format!("{} {}", export.kind.word(), export.name))
                    .collect();
                self.problems.push(Problem::NoExport { expected, exports });
            }
        }
    }

    fn function(&mut self, interface: Option<&InterfaceName>, name: &str, host: &ComponentItem, guest: &ComponentItem) {
        let (Some(host), Some(guest)) = (self.host.function(host), self.guest.function(guest)) else {
            return;
        };
        let Verdict { here, below } = self.comparison.function(host, guest);
        let plain = names::plain(name);
        if here {
            self.problems.push(Problem::OtherFunction {
                interface: interface.map(ToString::to_string),
                name: plain.clone(),
                expected: self.host.signature(name, host),
                found: self.guest.signature(name, guest),
            });
        }
        let interface = interface.map(|interface| interface.interface.clone());
        self.uses.extend(below.into_iter().map(|index| (index, interface.clone(), plain.clone())));
    }

    /// The functions that use a differing type, as WIT's `use` writes several names of an interface:
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
            // The types of another version differ; that they do is no news.
            self.problems.retain(|problem| !matches!(problem, Problem::OtherFunction { .. }));
            return self.problems;
        }
        for (index, ty) in self.comparison.differing().iter().enumerate() {
            self.problems.push(Problem::OtherType {
                keyword: ty.keyword,
                name: ty.named.name.clone(),
                interface: ty.named.home.clone(),
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
