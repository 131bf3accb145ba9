//! How values are kept in columns, and read back.

use std::fmt;

use lull_shared::{
    ids::{Digest, JobId, JoinCodeId, TokenId, WorkerId},
    output::Stream,
    time::Timestamp,
    workers::SandboxLevel,
};
use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, Type, ValueRef},
};
use serde::{Serialize, de::DeserializeOwned};

/// A value of ours as a column keeps it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Col<T>(pub(super) T);

macro_rules! id_column {
    ($($id:ty),+) => {$(
        impl ToSql for Col<$id> {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.0.as_uuid().as_bytes())))
            }
        }

        impl FromSql for Col<$id> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let bytes = <[u8; 16]>::column_result(value)?;
                Ok(Self(<$id>::from_uuid(uuid::Uuid::from_bytes(bytes))))
            }
        }
    )+};
}

id_column!(JobId, WorkerId, TokenId, JoinCodeId);

impl ToSql for Col<Digest> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.0.as_bytes())))
    }
}

impl FromSql for Col<Digest> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 32]>::column_result(value).map(|bytes| Self(Digest::from_bytes(bytes)))
    }
}

impl ToSql for Col<Timestamp> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_millis().into())
    }
}

impl FromSql for Col<Timestamp> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(|millis| Self(Timestamp::from_millis(millis)))
    }
}

impl ToSql for Col<SandboxLevel> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((self.0 as i64).into())
    }
}

impl FromSql for Col<SandboxLevel> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = i64::column_result(value)?;
        let level = SandboxLevel::ALL.into_iter().find(|level| *level as i64 == number);
        level.map(Self).ok_or(FromSqlError::OutOfRange(number))
    }
}

impl ToSql for Col<Stream> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((self.0 as i64).into())
    }
}

impl FromSql for Col<Stream> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = i64::column_result(value)?;
        let stream = Stream::ALL.into_iter().find(|stream| *stream as i64 == number);
        stream.map(Self).ok_or(FromSqlError::OutOfRange(number))
    }
}

/// A value that is kept in its JSON form: a list, a map, or the word of an enum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let failed =
            |error: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
        let mut text = serde_json::to_string(&self.0).map_err(failed)?;
        if text.starts_with('"') {
            text = serde_json::from_str(&text).map_err(failed)?;
        }
        Ok(text.into())
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        let read = if text.starts_with(['[', '{']) {
            serde_json::from_str(text)
        } else {
            serde_json::from_value(serde_json::Value::String(text.to_owned()))
        };
        read.map(Self).map_err(|error| FromSqlError::Other(error.into()))
    }
}

/// Reads columns by name.
pub(super) trait RowExt {
    /// One of our own values.
    fn col<T>(&self, name: &str) -> rusqlite::Result<T>
    where
        Col<T>: FromSql;

    /// One of our own values, or null.
    fn col_opt<T>(&self, name: &str) -> rusqlite::Result<Option<T>>
    where
        Col<T>: FromSql;

    /// A value kept as JSON.
    fn json<T: DeserializeOwned>(&self, name: &str) -> rusqlite::Result<T>;

    /// A word that a function of its type reads.
    fn word<T>(&self, name: &str, read: fn(&str) -> Option<T>) -> rusqlite::Result<T>;
}

impl RowExt for Row<'_> {
    fn col<T>(&self, name: &str) -> rusqlite::Result<T>
    where
        Col<T>: FromSql,
    {
        self.get::<_, Col<T>>(name).map(|column| column.0)
    }

    fn col_opt<T>(&self, name: &str) -> rusqlite::Result<Option<T>>
    where
        Col<T>: FromSql,
    {
        self.get::<_, Option<Col<T>>>(name).map(|column| column.map(|column| column.0))
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> rusqlite::Result<T> {
        self.get::<_, Json<T>>(name).map(|column| column.0)
    }

    fn word<T>(&self, name: &str, read: fn(&str) -> Option<T>) -> rusqlite::Result<T> {
        let index = self.as_ref().column_index(name)?;
        let text = self.get_ref(index)?.as_str()?;
        read(text).ok_or_else(|| {
            let unknown = Unknown(name.to_owned());
            rusqlite::Error::FromSqlConversionFailure(index, Type::Text, unknown.into())
        })
    }
}

#[derive(Debug)]
struct Unknown(String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {} holds a word that is not known", self.0)
    }
}

impl std::error::Error for Unknown {}
