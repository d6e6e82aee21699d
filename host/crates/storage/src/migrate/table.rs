//! How the rows of a table are read from SQLite, and written to PostgreSQL.

use rusqlite::types::ValueRef;

/// A table to move.
pub(super) struct Table {
    /// Its name in PostgreSQL.
    pub(super) name: &'static str,
    /// Its columns in PostgreSQL.
    pub(super) columns: &'static [Column],
    /// The query for the rows in SQLite, in a fixed order. Its columns are those in PostgreSQL, unless `convert` makes them so.
    pub(super) select: &'static str,
    /// Completes a row that was read.
    pub(super) convert: fn(&mut Vec<Cell>),
}

/// A column in PostgreSQL.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Whether it is a part of the primary key.
    pub(super) is_key: bool,
}

/// The type of a column in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `boolean`; 0 or 1 in SQLite.
    Bool,
    /// `integer`.
    Int,
    /// `bigint`.
    Long,
    /// `timestamptz`; milliseconds since 1970 in SQLite.
    Time,
    /// `text`.
    Text,
    /// `bytea`; blob or text in SQLite.
    Bytes,
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Long(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Cell {
    /// Reads a value of SQLite.
    pub(super) fn read(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Long(number),
            ValueRef::Real(number) => Self::Text(number.to_string()), // no table has any
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Self::Bytes(bytes.to_vec()),
        }
    }

    /// Returns the size in bytes, for the size of a batch.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Long(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Returns the length of a text or of bytes; 0 for other values.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Null | Self::Long(_) => 0,
            Self::Text(_) | Self::Bytes(_) => self.size(),
        }
    }

    /// Returns a text; empty if it is none.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    /// Makes the value one of a column.
    fn fit(&mut self, kind: Kind) {
        match (kind, std::mem::replace(self, Self::Null)) {
            (Kind::Bytes, Self::Text(text)) => *self = Self::Bytes(text.into_bytes()),
            // PostgreSQL stores no NUL in a text.
            (Kind::Text, Self::Text(text)) if text.contains('\0') => *self = Self::Text(text.replace('\0', "\u{fffd}")),
            (_, value) => *self = value,
        }
    }
}

impl Table {
    /// Makes a row that was read one of this table.
    pub(super) fn complete(&self, row: &mut Vec<Cell>) {
        (self.convert)(row);
        for (cell, column) in row.iter_mut().zip(self.columns) {
            cell.fit(column.kind);
        }
    }

    /// Returns the statement that inserts rows, with an array for each column.
    pub(super) fn insert_sql(&self) -> String {
        let names = self.join(", ", |column, _| column.name.to_owned());
        let values = self.join(", ", |column, index| column.kind.to_postgres(&format!("c{index}")));
        format!(
            "INSERT INTO {} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {}",
            self.name,
            self.unnest(|_| true, "")
        )
    }

    /// Returns the query for the rows with some keys, with an array for each column of the key, in the order of the keys.
    pub(super) fn look_up_sql(&self) -> String {
        let values = self.join(", ", |column, _| column.kind.read_sql(column.name));
        let keys = self.columns.iter().enumerate().filter(|(_, column)| column.is_key);
        let same: Vec<String> = keys
            .map(|(index, column)| format!("t.{} = {}", column.name, column.kind.to_postgres(&format!("c{index}"))))
            .collect();
        format!(
            "SELECT {values} FROM {} JOIN {} t ON {} ORDER BY place",
            self.unnest(|column| column.is_key, ", place"),
            self.name,
            same.join(" AND ")
        )
    }

    /// Returns the arrays of some columns as a table `u`, whose columns are `c` and the number of the column.
    fn unnest(&self, is_included: impl Fn(&Column) -> bool, and: &str) -> String {
        let included = || self.columns.iter().enumerate().filter(|(_, column)| is_included(column));
        let arrays: Vec<String> = included()
            .enumerate()
            .map(|(place, (_, column))| format!("${}::{}[]", place + 1, column.kind.array()))
            .collect();
        let names: Vec<String> = included().map(|(index, _)| format!("c{index}")).collect();
        let ordinality = if and.is_empty() { "" } else { " WITH ORDINALITY" };
        format!("unnest({}){ordinality} AS u({}{and})", arrays.join(", "), names.join(", "))
    }

    fn join(&self, separator: &str, part: impl Fn(&Column, usize) -> String) -> String {
        let parts: Vec<String> = self.columns.iter().enumerate().map(|(index, column)| part(column, index)).collect();
        parts.join(separator)
    }
}

impl Kind {
    /// Returns the type in which values of this kind are sent and read.
    fn array(self) -> &'static str {
        match self {
            Self::Bool | Self::Int | Self::Long | Self::Time => "bigint",
            Self::Text => "text",
            Self::Bytes => "bytea",
        }
    }

    /// Returns the expression that makes a value that was sent one of the column.
    fn to_postgres(self, value: &str) -> String {
        match self {
            Self::Bool => format!("({value} <> 0)"),
            Self::Int => format!("{value}::integer"),
            Self::Time => format!("(timestamptz 'epoch' + {value} * interval '1 millisecond')"),
            Self::Long | Self::Text | Self::Bytes => value.to_owned(),
        }
    }

    /// Returns the expression that reads a column as it was sent.
    fn read_sql(self, column: &str) -> String {
        match self {
            Self::Bool => format!("t.{column}::integer::bigint"),
            Self::Int => format!("t.{column}::bigint"),
            Self::Time => format!("(extract(epoch FROM t.{column}) * 1000)::bigint"),
            Self::Long | Self::Text | Self::Bytes => format!("t.{column}"),
        }
    }
}

/// A column of the primary key.
pub(super) const fn key(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, is_key: true }
}

/// A column that is not in the primary key.
pub(super) const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, is_key: false }
}

/// For tables whose rows are the same in PostgreSQL.
pub(super) fn unchanged(_: &mut Vec<Cell>) {}
