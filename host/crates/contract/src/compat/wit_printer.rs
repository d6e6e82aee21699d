//! Prints the types of a component, or of the host's world, in WIT's syntax and with WIT's names.
//!
//! Both sides of a comparison are parsed by wasmparser rather than decoded to WIT. It validates its input, so nothing
//! of a hostile file is traversed before it is known to be valid, and it accepts exactly what Wasmtime accepts.

use std::collections::HashMap;

use wasmparser::PrimitiveValType;
use wasmparser::component_types::{
    AliasableResourceId, ComponentAnyTypeId, ComponentDefinedType, ComponentDefinedTypeId, ComponentEntityType,
    ComponentFuncType, ComponentInstanceType, ComponentItem, ComponentValType, ResourceId,
};
use wasmparser::names::{ComponentName, ComponentNameKind};
use wasmparser::types::Types;

use super::names::{self, InterfaceName};

/// Maximum length of a printed type in bytes. The contract's signatures are much shorter; those of a hostile component
/// may not be.
const MAX_LENGTH: usize = 600;

/// The types of one side of a comparison, with their names.
pub(super) struct WitPrinter<'a> {
    types: &'a Types,
    named: HashMap<ComponentDefinedTypeId, Named>,
    resources: HashMap<ResourceId, Named>,
}

/// The name of a type in WIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// The name in its interface: `query`.
    pub name: String,
    /// The interface that first defined it, without a version; `None` for a type that the world itself defines.
    pub interface: Option<String>,
}

/// The outermost level of a value's type.
pub(super) enum Shape<'a> {
    Primitive(PrimitiveValType),
    Defined(ComponentDefinedTypeId, &'a ComponentDefinedType),
}

impl<'a> WitPrinter<'a> {
    pub fn new(types: &'a Types) -> Self {
        Self { types, named: HashMap::new(), resources: HashMap::new() }
    }

    /// Adds the type names of an import or export. Items must be added in the order of their declaration, because later
    /// ones refer to earlier ones.
    pub fn add_names(&mut self, name: &str, item: &ComponentItem) {
        match &item.ty {
            ComponentEntityType::Instance(id) => {
                let interface = InterfaceName::parse(name).map_or_else(|| name.to_owned(), |name| name.unversioned());
                for (name, item) in &self.types[*id].exports {
                    self.add_name(name, Some(&interface), item);
                }
            }
            _ => self.add_name(name, None, item),
        }
    }

    fn add_name(&mut self, name: &str, interface: Option<&str>, item: &ComponentItem) {
        let ComponentEntityType::Type { referenced, created } = item.ty else {
            return;
        };
        let named = Named { name: name.to_owned(), interface: interface.map(str::to_owned) };
        match (referenced, created) {
            (ComponentAnyTypeId::Defined(referenced), ComponentAnyTypeId::Defined(created)) => {
                // `use types.{error}` renames a type; the first name is kept.
                let named = self.name_of(referenced).cloned().unwrap_or(named);
                self.named.entry(created).or_insert(named);
            }
            (_, ComponentAnyTypeId::Resource(created)) => {
                self.resources.entry(created.resource()).or_insert(named);
            }
            _ => {}
        }
    }

    /// Returns the name of a type, given any alias of it.
    pub fn name_of(&self, id: ComponentDefinedTypeId) -> Option<&Named> {
        self.aliases(id).find_map(|id| self.named.get(&id))
    }

    /// Resolves an alias. An interface that uses a type of another interface has an alias of it.
    pub fn origin(&self, id: ComponentDefinedTypeId) -> ComponentDefinedTypeId {
        self.aliases(id).last().unwrap_or(id)
    }

    fn aliases(&self, id: ComponentDefinedTypeId) -> impl Iterator<Item = ComponentDefinedTypeId> {
        std::iter::successors(Some(id), |id| self.types.peel_alias(*id))
    }

    /// Returns the name of a resource.
    pub fn resource(&self, id: AliasableResourceId) -> Option<&Named> {
        self.resources.get(&id.resource())
    }

    /// Returns the type of an instance.
    pub fn instance(&self, item: &ComponentItem) -> Option<&'a ComponentInstanceType> {
        match item.ty {
            ComponentEntityType::Instance(id) => Some(&self.types[id]),
            _ => None,
        }
    }

    /// Returns the type of a function.
    pub fn function(&self, item: &ComponentItem) -> Option<&'a ComponentFuncType> {
        match item.ty {
            ComponentEntityType::Func(id) => Some(&self.types[id]),
            _ => None,
        }
    }

    /// Returns the outermost level of a value's type. `type json = string` counts as a primitive, because such names
    /// don't distinguish types.
    pub fn shape(&self, ty: ComponentValType) -> Shape<'a> {
        match ty {
            ComponentValType::Primitive(primitive) => Shape::Primitive(primitive),
            ComponentValType::Type(id) => match &self.types[id] {
                ComponentDefinedType::Primitive(primitive) => Shape::Primitive(*primitive),
                defined => Shape::Defined(id, defined),
            },
        }
    }

    /// Prints a value's type: `result<list<hit>, error>`.
    pub fn value(&self, ty: ComponentValType) -> String {
        self.write(|writer| writer.value(ty))
    }

    /// Prints a function's signature: `search: func(query: query) -> result<list<hit>, error>`.
    pub fn signature(&self, name: &str, function: &ComponentFuncType) -> String {
        self.write(|writer| writer.signature(name, function))
    }

    fn write(&self, write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut writer = Writer { printer: self, out: String::new() };
        write(&mut writer);
        writer.out
    }
}

struct Writer<'a> {
    printer: &'a WitPrinter<'a>,
    out: String,
}

impl Writer<'_> {
    fn signature(&mut self, name: &str, function: &ComponentFuncType) {
        let parsed = ComponentName::new(name, 0).ok();
        let kind = parsed.as_ref().map(ComponentName::kind);
        // WIT omits the first parameter of a method and the result of a constructor.
        let (skipped, is_constructor) = match kind {
            Some(ComponentNameKind::Method(_)) => (1, false),
            Some(ComponentNameKind::Constructor(_)) => (0, true),
            _ => (0, false),
        };
        self.out.push_str(&names::plain(name));
        self.out.push_str(": ");
        if matches!(kind, Some(ComponentNameKind::Static(_))) {
            self.out.push_str("static ");
        }
        if function.async_ {
            self.out.push_str("async ");
        }
        self.out.push_str("func(");
        self.list(function.params.iter().skip(skipped), |writer, (name, ty)| {
            writer.out.push_str(name);
            writer.out.push_str(": ");
            writer.value(*ty);
        });
        self.out.push(')');
        if let (Some(result), false) = (function.result, is_constructor) {
            self.out.push_str(" -> ");
            self.value(result);
        }
    }

    fn value(&mut self, ty: ComponentValType) {
        match self.printer.shape(ty) {
            Shape::Primitive(primitive) => self.out.push_str(&primitive.to_string()),
            Shape::Defined(id, defined) => self.defined(id, defined),
        }
    }

    fn defined(&mut self, id: ComponentDefinedTypeId, defined: &ComponentDefinedType) {
        use ComponentDefinedType as Type;
        match defined {
            Type::Primitive(primitive) => self.out.push_str(&primitive.to_string()),
            Type::Record(_) | Type::Variant(_) | Type::Enum(_) | Type::Flags(_) => self.named(id, defined),
            Type::Tuple(tuple) => {
                self.out.push_str("tuple<");
                self.list(&tuple.types, |writer, ty| writer.value(*ty));
                self.out.push('>');
            }
            Type::List { element, .. } => self.generic("list", &[Some(*element)]),
            Type::FixedLengthList { element, length, .. } => {
                self.out.push_str("list<");
                self.value(*element);
                self.out.push_str(&format!(", {length}>"));
            }
            Type::Map { key, value, .. } => self.generic("map", &[Some(*key), Some(*value)]),
            Type::Option { ty, .. } => self.generic("option", &[Some(*ty)]),
            Type::Result { ok: None, err: None, .. } => self.out.push_str("result"),
            Type::Result { ok, err: None, .. } => self.generic("result", &[*ok]),
            Type::Result { ok, err, .. } => self.generic("result", &[*ok, *err]),
            Type::Own(id) => self.resource(*id),
            Type::Borrow(id) => {
                self.out.push_str("borrow<");
                self.resource(*id);
                self.out.push('>');
            }
            Type::Future { ty, .. } => self.asynchronous("future", *ty),
            Type::Stream { ty, .. } => self.asynchronous("stream", *ty),
        }
    }

    fn named(&mut self, id: ComponentDefinedTypeId, defined: &ComponentDefinedType) {
        match self.printer.name_of(id) {
            Some(named) => self.out.push_str(&named.name),
            None => self.out.push_str(&format!("(a nameless {})", keyword(defined))),
        }
    }

    fn resource(&mut self, id: AliasableResourceId) {
        self.out.push_str(self.printer.resource(id).map_or("(a nameless resource)", |named| &named.name));
    }

    fn generic(&mut self, keyword: &str, types: &[Option<ComponentValType>]) {
        self.out.push_str(keyword);
        self.out.push('<');
        self.list(types, |writer, ty| match ty {
            Some(ty) => writer.value(*ty),
            None => writer.out.push('_'),
        });
        self.out.push('>');
    }

    fn asynchronous(&mut self, keyword: &str, ty: Option<ComponentValType>) {
        match ty {
            Some(ty) => self.generic(keyword, &[Some(ty)]),
            None => self.out.push_str(keyword),
        }
    }

    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            if self.out.len() > MAX_LENGTH {
                self.out.push('…');
                return;
            }
            write(self, item);
        }
    }
}

/// Returns WIT's keyword for a kind of type.
pub(super) fn keyword(defined: &ComponentDefinedType) -> &'static str {
    match defined {
        ComponentDefinedType::Primitive(_) => "type",
        ComponentDefinedType::Record(_) => "record",
        ComponentDefinedType::Variant(_) => "variant",
        ComponentDefinedType::Enum(_) => "enum",
        ComponentDefinedType::Flags(_) => "flags",
        ComponentDefinedType::List { .. } | ComponentDefinedType::FixedLengthList { .. } => "list",
        ComponentDefinedType::Map { .. } => "map",
        ComponentDefinedType::Tuple(_) => "tuple",
        ComponentDefinedType::Option { .. } => "option",
        ComponentDefinedType::Result { .. } => "result",
        ComponentDefinedType::Own(_) | ComponentDefinedType::Borrow(_) => "resource",
        ComponentDefinedType::Future { .. } => "future",
        ComponentDefinedType::Stream { .. } => "stream",
    }
}
