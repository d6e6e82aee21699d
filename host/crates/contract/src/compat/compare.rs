//! Compares the types of functions, and lists the differences.
//!
//! Types are compared by structure, as Wasmtime does when it links: names of fields and cases are significant, names of
//! types and parameters are not. A difference inside a named type is reported once, for the type.

use std::collections::{BTreeSet, HashMap};

use wasmparser::component_types::{
    AliasableResourceId, ComponentDefinedType, ComponentDefinedTypeId, ComponentFuncType, ComponentValType,
};

use super::wit_printer::{Named, Shape, WitPrinter, keyword};

/// A comparison of a component's functions with the host's.
pub(super) struct Comparison<'a> {
    host: &'a WitPrinter<'a>,
    guest: &'a WitPrinter<'a>,
    /// The pairs of named types compared so far, with the indices of the differing types in each.
    compared: HashMap<(ComponentDefinedTypeId, ComponentDefinedTypeId), BTreeSet<usize>>,
    differing: Vec<DifferingType>,
}

/// A named type that differs between component and host.
pub(super) struct DifferingType {
    pub keyword: &'static str,
    pub named: Named,
    /// The differences, one line each.
    pub differences: Vec<String>,
}

/// The result of a comparison.
#[derive(Default)]
pub(super) struct Verdict {
    /// Whether the types differ outside of named types.
    pub differs: bool,
    /// The indices in [`Comparison::differing`] of the named types inside that differ.
    pub differing_types: BTreeSet<usize>,
}

impl Verdict {
    fn differs(differs: bool) -> Self {
        Self { differs, differing_types: BTreeSet::new() }
    }

    fn and(mut self, other: Self) -> Self {
        self.differs |= other.differs;
        self.differing_types.extend(other.differing_types);
        self
    }
}

/// A field, a case or a flag, with its type, if any.
type Member<'a> = (&'a str, Option<ComponentValType>);

impl<'a> Comparison<'a> {
    pub fn new(host: &'a WitPrinter<'a>, guest: &'a WitPrinter<'a>) -> Self {
        Self { host, guest, compared: HashMap::new(), differing: Vec::new() }
    }

    /// Returns the named types that differ.
    pub fn differing(&self) -> &[DifferingType] {
        &self.differing
    }

    /// Compares a function of the host with the component's function of the same name.
    pub fn function(&mut self, host: &ComponentFuncType, guest: &ComponentFuncType) -> Verdict {
        if host.async_ != guest.async_ || host.params.len() != guest.params.len() {
            return Verdict::differs(true);
        }
        let parameters = host.params.iter().zip(&guest.params).map(|((_, host), (_, guest))| (*host, *guest));
        self.all(parameters).and(self.optional(host.result, guest.result))
    }

    fn all(&mut self, pairs: impl Iterator<Item = (ComponentValType, ComponentValType)>) -> Verdict {
        pairs.fold(Verdict::default(), |verdict, (host, guest)| verdict.and(self.value(host, guest)))
    }

    fn optional(&mut self, host: Option<ComponentValType>, guest: Option<ComponentValType>) -> Verdict {
        match (host, guest) {
            (Some(host), Some(guest)) => self.value(host, guest),
            (host, guest) => Verdict::differs(host.is_some() != guest.is_some()),
        }
    }

    fn value(&mut self, host: ComponentValType, guest: ComponentValType) -> Verdict {
        match (self.host.shape(host), self.guest.shape(guest)) {
            (Shape::Primitive(host), Shape::Primitive(guest)) => Verdict::differs(host != guest),
            (Shape::Defined(host, h), Shape::Defined(guest, g)) => self.defined((host, h), (guest, g)),
            _ => Verdict::differs(true),
        }
    }

    fn defined(
        &mut self,
        (host_id, host): (ComponentDefinedTypeId, &ComponentDefinedType),
        (guest_id, guest): (ComponentDefinedTypeId, &ComponentDefinedType),
    ) -> Verdict {
        use ComponentDefinedType as Type;
        match (host, guest) {
            (Type::List { element: host, .. }, Type::List { element: guest, .. })
            | (Type::Option { ty: host, .. }, Type::Option { ty: guest, .. }) => self.value(*host, *guest),
            (
                Type::FixedLengthList { element: host, length, .. },
                Type::FixedLengthList { element: guest, length: found, .. },
            ) => Verdict::differs(length != found).and(self.value(*host, *guest)),
            (Type::Map { key: hk, value: hv, .. }, Type::Map { key: gk, value: gv, .. }) => {
                self.all([(*hk, *gk), (*hv, *gv)].into_iter())
            }
            (Type::Result { ok: ho, err: he, .. }, Type::Result { ok: go, err: ge, .. }) => {
                self.optional(*ho, *go).and(self.optional(*he, *ge))
            }
            (Type::Future { ty: host, .. }, Type::Future { ty: guest, .. })
            | (Type::Stream { ty: host, .. }, Type::Stream { ty: guest, .. }) => self.optional(*host, *guest),
            (Type::Tuple(host), Type::Tuple(guest)) => {
                let pairs = host.types.iter().copied().zip(guest.types.iter().copied());
                Verdict::differs(host.types.len() != guest.types.len()).and(self.all(pairs))
            }
            (Type::Own(host), Type::Own(guest)) | (Type::Borrow(host), Type::Borrow(guest)) => {
                self.resource(*host, *guest)
            }
            _ => match (members(host), members(guest)) {
                (Some(hosts), Some(guests)) => self.named((host_id, host, &hosts), (guest_id, guest, &guests)),
                _ => Verdict::differs(true),
            },
        }
    }

    fn resource(&self, host: AliasableResourceId, guest: AliasableResourceId) -> Verdict {
        Verdict::differs(self.host.resource(host) != self.guest.resource(guest))
    }

    fn named(
        &mut self,
        (host_id, host, hosts): (ComponentDefinedTypeId, &ComponentDefinedType, &[Member<'_>]),
        (guest_id, guest, guests): (ComponentDefinedTypeId, &ComponentDefinedType, &[Member<'_>]),
    ) -> Verdict {
        let pair = (self.host.origin(host_id), self.guest.origin(guest_id));
        if let Some(differing_types) = self.compared.get(&pair) {
            return Verdict { differs: false, differing_types: differing_types.clone() };
        }
        let (mut differing_types, mut differences) = (BTreeSet::new(), Vec::new());
        if keyword(host) == keyword(guest) {
            (differing_types, differences) = self.members(member_kind(host), hosts, guests);
        } else {
            differences.push(format!("expected `{}`, found `{}`", keyword(host), keyword(guest)));
        }
        if !differences.is_empty() {
            // All types of the contract have names. A difference in a nameless one is reported for the function that
            // uses it.
            let Some(named) = self.host.name_of(host_id).cloned() else {
                return Verdict { differs: true, differing_types };
            };
            differing_types.insert(self.differing.len());
            self.differing.push(DifferingType { keyword: keyword(host), named, differences });
        }
        self.compared.insert(pair, differing_types.clone());
        Verdict { differs: false, differing_types }
    }

    fn members(&mut self, kind: &str, hosts: &[Member<'_>], guests: &[Member<'_>]) -> (BTreeSet<usize>, Vec<String>) {
        let (mut differing_types, mut differences) = (BTreeSet::new(), Vec::new());
        let by_name: HashMap<_, _> = guests.iter().copied().collect();
        for (name, host) in hosts {
            let Some(guest) = by_name.get(name) else {
                differences.push(format!("{kind} `{}` is missing", member(self.host, kind, name, *host)));
                continue;
            };
            let verdict = self.optional(*host, *guest);
            differing_types.extend(verdict.differing_types);
            if verdict.differs {
                let (expected, found) = (member_type(self.host, *host), member_type(self.guest, *guest));
                differences.push(format!("{kind} `{name}`: expected {expected}, found {found}"));
            }
        }
        for (name, guest) in guests {
            if !hosts.iter().any(|(host, _)| host == name) {
                differences.push(format!("{kind} `{}` is unknown to the host", member(self.guest, kind, name, *guest)));
            }
        }
        if differences.is_empty() && !hosts.iter().map(|(name, _)| name).eq(guests.iter().map(|(name, _)| name)) {
            let order = |members: &[Member<'_>]| members.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            differences.push(format!(
                "the {kind}s are in another order: expected {}, found {}",
                order(hosts),
                order(guests)
            ));
        }
        (differing_types, differences)
    }
}

/// Returns the members of a record, variant, enum or flags type; `None` for other types.
fn members(defined: &ComponentDefinedType) -> Option<Vec<Member<'_>>> {
    Some(match defined {
        ComponentDefinedType::Record(record) => {
            record.fields.iter().map(|(name, ty)| (name.as_str(), Some(*ty))).collect()
        }
        ComponentDefinedType::Variant(variant) => {
            variant.cases.iter().map(|(name, case)| (name.as_str(), case.ty)).collect()
        }
        ComponentDefinedType::Enum(names) | ComponentDefinedType::Flags(names) => {
            names.iter().map(|name| (name.as_str(), None)).collect()
        }
        _ => return None,
    })
}

fn member_kind(defined: &ComponentDefinedType) -> &'static str {
    match defined {
        ComponentDefinedType::Record(_) => "field",
        ComponentDefinedType::Flags(_) => "flag",
        _ => "case",
    }
}

/// Formats a member in WIT: `limit: option<u32>`, `invalid(string)`, `timeout`.
fn member(printer: &WitPrinter<'_>, kind: &str, name: &str, ty: Option<ComponentValType>) -> String {
    match ty {
        None => name.to_owned(),
        Some(ty) if kind == "field" => format!("{name}: {}", printer.value(ty)),
        Some(ty) => format!("{name}({})", printer.value(ty)),
    }
}

/// Formats the type of a member for a sentence.
fn member_type(printer: &WitPrinter<'_>, ty: Option<ComponentValType>) -> String {
    ty.map_or_else(|| "nothing".to_owned(), |ty| format!("`{}`", printer.value(ty)))
}
