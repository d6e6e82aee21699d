//! Generates `docs/reference.md` from the WIT, and checks that the file is up to date.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use modhost_contract as contract;
use wit_parser::{Docs, Function, Handle, Interface, Param, Resolve, Type, TypeDef, TypeDefKind, TypeId, WorldItem};

const UPDATE: &str = "UPDATE_EXPECTED=1 cargo test --release --test languages reference";

const INTRODUCTION: &str = "\
# Reference

Every function that a module can call and every type that it receives, as defined by the contract between module and host: the
WIT package `modhost:module` in [`wit/`](../wit). The page on each language shows the names that its SDK uses.
`modhost bindings wit` writes the package to a folder.

This page is generated from the contract. Don't edit it. Edit the contract, then run:

```sh
UPDATE_EXPECTED=1 cargo test --release --test languages reference
```
";

#[test]
fn reference_matches_the_contract() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
    let text = reference();
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&file, text).unwrap();
        return;
    }
    let current = fs::read_to_string(&file).unwrap_or_default();
    let differs = current.lines().zip(text.lines()).position(|(current, expected)| current != expected);
    let line = differs.unwrap_or_else(|| current.lines().count().min(text.lines().count())) + 1;
    assert!(
        current == text,
        "docs/reference.md differs from wit/, starting at line {line}. Never change a released version of the contract: add a \
         new version beside it. If this version isn't released: {UPDATE}"
    );
}

fn reference() -> String {
    let (resolve, world) = contract::world(contract::WORLD).unwrap();
    let others: Vec<_> = resolve.packages[resolve.worlds[world].package.unwrap()].worlds.values().copied().collect();
    let others = others.into_iter().filter(|other| *other != world);
    let world = &resolve.worlds[world];
    let mut page = Page { resolve: &resolve, text: INTRODUCTION.to_owned() };
    page.line("\n## The world\n");
    page.docs(&world.docs);
    for item in world.exports.values() {
        if let WorldItem::Function(function) = item {
            page.function(function);
        }
    }
    page.line("### Imports\n\n| | |\n|---|---|");
    let imports = world.imports.values().filter_map(|item| match item {
        WorldItem::Interface { id, docs, .. } => Some((*id, docs)),
        _ => None,
    });
    let imports: Vec<_> = imports.into_iter().collect();
    for (id, docs) in &imports {
        let interface = &resolve.interfaces[*id];
        let about = docs.contents.as_ref().or(interface.docs.contents.as_ref());
        let name = page.name(interface);
        let link = anchor(&name);
        page.line(&format!("| [`{name}`](#{link}) | {} |", first_sentence(about.map_or("", String::as_str))));
    }
    for (id, docs) in imports {
        page.interface(&resolve.interfaces[id], docs);
    }
    page.line("## Other worlds\n");
    for other in others {
        let other = &resolve.worlds[other];
        page.line(&format!("### `{}`\n", other.name));
        page.docs(&other.docs);
    }
    page.text.truncate(page.text.trim_end().len());
    page.text + "\n"
}

/// The page, as generated so far.
struct Page<'r> {
    resolve: &'r Resolve,
    text: String,
}

impl Page<'_> {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").unwrap();
    }

    /// Writes a doc comment as paragraphs.
    fn docs(&mut self, docs: &Docs) {
        if let Some(text) = &docs.contents {
            self.line(&format!("{}\n", text.trim()));
        }
    }

    /// Returns an interface's name with its package and version.
    fn name(&self, interface: &Interface) -> String {
        self.resolve.id_of(self.resolve.interfaces.iter().find(|(_, it)| *it == interface).unwrap().0).unwrap()
    }

    fn interface(&mut self, interface: &Interface, import: &Docs) {
        let name = self.name(interface);
        self.line(&format!("\n## `{name}`\n"));
        self.docs(import);
        self.docs(&interface.docs);
        for (name, id) in &interface.types {
            self.type_definition(name, *id, interface);
        }
        for function in interface.functions.values().filter(|function| function.kind.resource().is_none()) {
            self.function(function);
        }
    }

    fn type_definition(&mut self, name: &str, id: TypeId, interface: &Interface) {
        let definition = &self.resolve.types[id];
        if let TypeDefKind::Type(Type::Id(other)) = definition.kind {
            let other = &self.resolve.types[other];
            // A type used from another interface is described there.
            if other.owner != definition.owner {
                return;
            }
        }
        self.line(&format!("### {} `{name}`\n", self.kind(definition)));
        self.docs(&definition.docs);
        match &definition.kind {
            TypeDefKind::Record(record) => {
                self.line("| field | type | |\n|---|---|---|");
                for field in &record.fields {
                    self.line(&format!(
                        "| `{}` | `{}` | {} |",
                        field.name,
                        self.type_name(&field.ty),
                        cell(&field.docs)
                    ));
                }
                self.line("");
            }
            TypeDefKind::Variant(variant) => {
                self.line("| case | with | |\n|---|---|---|");
                for case in &variant.cases {
                    let with = case.ty.as_ref().map(|ty| format!("`{}`", self.type_name(ty))).unwrap_or_default();
                    self.line(&format!("| `{}` | {with} | {} |", case.name, cell(&case.docs)));
                }
                self.line("");
            }
            TypeDefKind::Enum(cases) => {
                self.line("| case | |\n|---|---|");
                for case in &cases.cases {
                    self.line(&format!("| `{}` | {} |", case.name, cell(&case.docs)));
                }
                self.line("");
            }
            TypeDefKind::Resource => {
                for function in interface.functions.values().filter(|function| function.kind.resource() == Some(id)) {
                    self.function(function);
                }
            }
            TypeDefKind::Type(other) => self.line(&format!("Is `{}`.\n", self.type_name(other))),
            _ => {}
        }
    }

    fn kind(&self, definition: &TypeDef) -> &'static str {
        match definition.kind.as_str() {
            "record" => "Record",
            "variant" => "Variant",
            "enum" => "Enum",
            "resource" => "Resource",
            _ => "Type",
        }
    }

    /// Writes a function with its WIT signature.
    fn function(&mut self, function: &Function) {
        let resource = function.kind.resource().map(|id| self.resolve.types[id].name.clone().unwrap_or_default());
        let name = function.item_name();
        let title = resource.map_or_else(|| name.to_owned(), |resource| format!("{resource}.{name}"));
        let is_method = matches!(function.kind, wit_parser::FunctionKind::Method(_));
        let given = |param: &Param| format!("{}: {}", param.name, self.type_name(&param.ty));
        let params: Vec<_> = function.params.iter().skip(usize::from(is_method)).map(given).collect();
        let result = function.result.as_ref().map(|ty| format!(" -> {}", self.type_name(ty))).unwrap_or_default();
        let how = if matches!(function.kind, wit_parser::FunctionKind::Static(_)) { "static func" } else { "func" };
        let signature = format!("{name}: {how}({}){result}", params.join(", "));
        self.line(&format!("### `{title}`\n\n```wit\n{signature}\n```\n"));
        self.docs(&function.docs);
    }

    fn type_name(&self, ty: &Type) -> String {
        let Type::Id(id) = ty else {
            return match ty {
                Type::Bool => "bool",
                Type::U8 => "u8",
                Type::U16 => "u16",
                Type::U32 => "u32",
                Type::U64 => "u64",
                Type::S8 => "s8",
                Type::S16 => "s16",
                Type::S32 => "s32",
                Type::S64 => "s64",
                Type::F32 => "f32",
                Type::F64 => "f64",
                Type::Char => "char",
                Type::String => "string",
                other => panic!("the contract uses {other:?}, which this generator cannot print: add it"),
            }
            .to_owned();
        };
        let definition = &self.resolve.types[*id];
        if let Some(name) = &definition.name {
            return name.clone();
        }
        let optional = |ty: &Option<Type>| ty.as_ref().map(|ty| self.type_name(ty));
        match &definition.kind {
            TypeDefKind::Option(ty) => format!("option<{}>", self.type_name(ty)),
            TypeDefKind::List(ty) => format!("list<{}>", self.type_name(ty)),
            TypeDefKind::Tuple(tuple) => {
                format!("tuple<{}>", tuple.types.iter().map(|ty| self.type_name(ty)).collect::<Vec<_>>().join(", "))
            }
            TypeDefKind::Result(result) => match (optional(&result.ok), optional(&result.err)) {
                (Some(ok), Some(err)) => format!("result<{ok}, {err}>"),
                (None, Some(err)) => format!("result<_, {err}>"),
                (Some(ok), None) => format!("result<{ok}>"),
                (None, None) => "result".to_owned(),
            },
            TypeDefKind::Handle(Handle::Own(id)) => self.type_name(&Type::Id(*id)),
            TypeDefKind::Handle(Handle::Borrow(id)) => format!("borrow<{}>", self.type_name(&Type::Id(*id))),
            other => panic!("the contract uses {other:?}, which this generator cannot print: add it"),
        }
    }
}

/// Returns a doc comment as the text of a table cell.
fn cell(docs: &Docs) -> String {
    let text = docs.contents.as_deref().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn first_sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    text.split_inclusive(". ").next().unwrap_or_default().trim().to_owned()
}

/// Returns the anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|it| it.is_alphanumeric() || "-_ ".contains(*it));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}
