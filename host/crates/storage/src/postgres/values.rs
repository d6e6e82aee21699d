//! The values of a statement's parameters, with their SQL types.

use tokio_postgres::types::{ToSql, Type};

/// A Rust type that is sent as one SQL type. Statements are sent with the types of their parameters, so that the server need
/// not be asked for them.
pub(crate) trait SqlType {
    /// Returns the SQL type.
    fn sql_type() -> Type;
}

macro_rules! sql_types {
    ($($rust:ty => $sql:ident),* $(,)?) => {
        $(impl SqlType for $rust {
            fn sql_type() -> Type {
                Type::$sql
            }
        })*
    };
}

sql_types! {
    bool => BOOL,
    i32 => INT4,
    i64 => INT8,
    str => TEXT,
    String => TEXT,
    [u8] => BYTEA,
    Vec<u8> => BYTEA,
    Vec<bool> => BOOL_ARRAY,
    Vec<i32> => INT4_ARRAY,
    Vec<i64> => INT8_ARRAY,
    Vec<Option<i64>> => INT8_ARRAY,
    Vec<&str> => TEXT_ARRAY,
    Vec<String> => TEXT_ARRAY,
    Vec<Option<&str>> => TEXT_ARRAY,
    Vec<Option<String>> => TEXT_ARRAY,
    Vec<&[u8]> => BYTEA_ARRAY,
    Vec<Vec<u8>> => BYTEA_ARRAY,
    Vec<Option<&[u8]>> => BYTEA_ARRAY,
    Vec<Option<Vec<u8>>> => BYTEA_ARRAY,
}

impl<T: SqlType + ?Sized> SqlType for &T {
    fn sql_type() -> Type {
        T::sql_type()
    }
}

impl<T: SqlType> SqlType for Option<T> {
    fn sql_type() -> Type {
        T::sql_type()
    }
}

/// A parameter of a statement.
pub(crate) type Value<'a> = (&'a (dyn ToSql + Sync), Type);

/// Returns a parameter with its type; see [`values!`].
pub(crate) fn value<T: SqlType + ToSql + Sync>(value: &T) -> Value<'_> {
    (value, T::sql_type())
}

/// The parameters of a statement: `values![name, &[1_u8][..], Some(7_i64)]`.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        &[$($crate::postgres::value(&$value)),*]
    };
}
pub(crate) use values;
