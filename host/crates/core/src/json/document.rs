//! Value lookup by path.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::{SyntaxError, Value};

/// A value with lookup by path. Each object and list is scanned once, however many paths lead through it.
pub struct Document<'a> {
    root: Value<'a>,
    /// Keyed by the address of the container.
    members: RefCell<HashMap<usize, Rc<Members<'a>>>>,
}

/// The value at a path.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// The value. Of duplicate keys it is the last one, as in JavaScript, Python and Go.
    pub value: Value<'a>,
    /// Whether a key on the path occurs with different values: another parser may use another one.
    pub is_ambiguous: bool,
}

enum Members<'a> {
    Object(HashMap<Cow<'a, str>, Found<'a>>),
    List(Vec<Value<'a>>),
}

impl<'a> Document<'a> {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// See [`Value::read`].
    pub fn read(text: &'a [u8]) -> Result<Self, SyntaxError> {
        Value::read(text).map(Self::new)
    }

    /// Creates a document with this value as the root of all paths.
    pub fn new(root: Value<'a>) -> Self {
        Self { root, members: RefCell::default() }
    }

    /// Returns the root value.
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// Returns the value at a path of keys; in a list, the key is the position, counted from 0.
    pub fn find<'k>(&self, path: impl IntoIterator<Item = &'k str>) -> Option<Found<'a>> {
        let mut found = Found { value: self.root, is_ambiguous: false };
        for key in path {
            match &*self.members_of(found.value)? {
                Members::Object(members) => {
                    let member = members.get(key)?;
                    found = Found { value: member.value, is_ambiguous: found.is_ambiguous || member.is_ambiguous };
                }
                Members::List(items) => found.value = *items.get(key.parse::<usize>().ok()?)?,
            }
        }
        Some(found)
    }

    fn members_of(&self, value: Value<'a>) -> Option<Rc<Members<'a>>> {
        let address = value.as_bytes().as_ptr().addr();
        if let Some(members) = self.members.borrow().get(&address) {
            return Some(members.clone());
        }
        let members = Rc::new(Members::of(value)?);
        self.members.borrow_mut().insert(address, members.clone());
        Some(members)
    }
}

impl<'a> Members<'a> {
    /// Returns the members of an object or a list.
    fn of(value: Value<'a>) -> Option<Self> {
        if let Some(items) = value.items() {
            return Some(Self::List(items.collect()));
        }
        let mut members: HashMap<_, Found<'_>> = HashMap::new();
        for (key, value) in value.entries()? {
            let Some(key) = key.text() else { continue };
            members
                .entry(key.text)
                .and_modify(|known| {
                    let is_ambiguous = known.is_ambiguous || known.value != value;
                    *known = Found { value, is_ambiguous };
                })
                .or_insert(Found { value, is_ambiguous: false });
        }
        Some(Self::Object(members))
    }
}
