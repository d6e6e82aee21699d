//! Tool calls of a model, assembled from the pieces in which they arrive.

use std::collections::BTreeMap;

use modhost_core::json::{Fields, Value};

/// A tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// The id that the model gave it.
    pub id: String,
    /// The name of the tool.
    pub name: String,
    /// The arguments, JSON as text.
    pub arguments: String,
}

/// A piece of a tool call.
pub(super) struct ToolPiece {
    /// The index of the call.
    index: i64,
    call: ToolCall,
}

/// The overhead of a call besides its texts, in bytes.
const CALL_OVERHEAD: usize = 128;

/// The tool calls of an answer, by index.
#[derive(Debug, Default)]
pub(super) struct ToolCalls(BTreeMap<i64, ToolCall>);

impl ToolPiece {
    /// Parses a list of calls.
    pub(super) fn list(calls: Value<'_>) -> Vec<Self> {
        let calls = calls.list().unwrap_or_default();
        calls.into_iter().enumerate().filter_map(|(place, call)| Self::of(place, call)).collect()
    }

    fn of(place: usize, call: Value<'_>) -> Option<Self> {
        let fields = Fields::of(call, &["index", "id", "function", "name", "arguments", "input"])?;
        let index = fields.integer("index").or_else(|| i64::try_from(place).ok())?;
        let inner = fields.get("function").and_then(|it| Fields::of(it, &["name", "arguments"]));
        let function = inner.as_ref().unwrap_or(&fields);
        // Arguments are JSON as text, but some servers send the JSON itself.
        let arguments = function.first(&["arguments", "input"]);
        let arguments = arguments.map(|it| it.text().map_or_else(|| it.to_strict(), |text| text.text).into_owned());
        let call = ToolCall {
            id: fields.text("id").unwrap_or_default(),
            name: function.text("name").unwrap_or_default(),
            arguments: arguments.unwrap_or_default(),
        };
        (call != ToolCall::default()).then_some(Self { index, call })
    }

    /// Parses a single call, as older servers and other vendors send it.
    pub(super) fn single(function: Value<'_>) -> Option<Self> {
        Self::of(0, function)
    }
}

impl ToolCalls {
    /// Adds a piece. Returns its size in bytes.
    pub(super) fn add(&mut self, piece: ToolPiece) -> usize {
        let ToolPiece { index, call: ToolCall { id, name, arguments } } = piece;
        let mut cost = id.len() + name.len() + arguments.len();
        let call = self.0.entry(index).or_insert_with(|| {
            cost += CALL_OVERHEAD;
            ToolCall::default()
        });
        // Some servers repeat the id and the name with each piece of the arguments.
        if call.id != id {
            call.id.push_str(&id);
        }
        if call.name != name {
            call.name.push_str(&name);
        }
        call.arguments.push_str(&arguments);
        cost
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the calls in the order of their indexes.
    pub(super) fn into_list(self) -> Vec<ToolCall> {
        self.0.into_values().collect()
    }
}
