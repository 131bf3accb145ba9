//! Who may do what: workers' secrets, API tokens and join codes, all kept as hashes only.

use lull_shared::{
    credentials::{Role, SecretHash},
    ids::{JoinCodeId, TokenId, WorkerId},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use secrecy::SecretString;

use super::columns::{Col, RowExt as _};
use crate::{
    model::{ApiToken, JoinCodeRecord},
    store::StoreError,
};

pub(super) fn worker_secret(
    connection: &Connection,
    id: WorkerId,
) -> Result<Option<SecretHash>, StoreError> {
    let secret = connection
        .prepare_cached("select secret_hash from workers where id = ?1")?
        .query_row([Col(id)], secret_hash)
        .optional()?;
    Ok(secret)
}

pub(super) fn add_token(connection: &Connection, token: &ApiToken) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "insert into tokens (id, secret_hash, name, role, weight, created_at, expires_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            Col(token.id),
            token.secret.as_bytes(),
            token.name,
            token.role.name(),
            token.weight,
            Col(token.created_at),
            token.expires_at.map(Col),
        ])?;
    Ok(())
}

pub(super) fn token(connection: &Connection, id: TokenId) -> Result<Option<ApiToken>, StoreError> {
    let token = connection
        .prepare_cached("select * from tokens where id = ?1")?
        .query_row([Col(id)], |row| {
            Ok(ApiToken {
                id: row.col("id")?,
                name: row.get("name")?,
                role: row.word("role", |name| name.parse::<Role>().ok())?,
                weight: row.get("weight")?,
                secret: secret_hash(row)?,
                created_at: row.col("created_at")?,
                expires_at: row.col_opt("expires_at")?,
                last_used_at: row.col_opt("last_used_at")?,
            })
        })
        .optional()?;
    Ok(token)
}

pub(super) fn touch_token(
    connection: &Connection,
    id: TokenId,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("update tokens set last_used_at = ?2 where id = ?1")?
        .execute((Col(id), Col(now)))?;
    Ok(())
}

pub(super) fn add_join_code(
    connection: &Connection,
    code: &JoinCodeRecord,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "insert into join_codes (id, secret_hash, uses, used, created_at, expires_at)
             values (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            Col(code.id),
            code.secret.as_bytes(),
            code.uses,
            code.used,
            Col(code.created_at),
            Col(code.expires_at),
        ])?;
    Ok(())
}

pub(super) fn join_code(
    connection: &Connection,
    id: JoinCodeId,
) -> Result<Option<JoinCodeRecord>, StoreError> {
    let code = connection
        .prepare_cached("select * from join_codes where id = ?1")?
        .query_row([Col(id)], |row| {
            Ok(JoinCodeRecord {
                id: row.col("id")?,
                secret: secret_hash(row)?,
                uses: row.get("uses")?,
                used: row.get("used")?,
                created_at: row.col("created_at")?,
                expires_at: row.col("expires_at")?,
                last_used_at: row.col_opt("last_used_at")?,
            })
        })
        .optional()?;
    Ok(code)
}

/// Spends one use of a join code.
pub(super) fn spend_join_code(
    connection: &Connection,
    id: JoinCodeId,
    secret: &SecretString,
    now: Timestamp,
) -> Result<(), StoreError> {
    let code = join_code(connection, id)?.ok_or(StoreError::JoinRefused)?;
    if !code.secret.matches(secret) {
        return Err(StoreError::JoinRefused);
    }
    let spent = connection
        .prepare_cached(
            "update join_codes set used = used + 1, last_used_at = ?2
              where id = ?1 and used < uses and expires_at > ?2",
        )?
        .execute((Col(id), Col(now)))?;
    if spent == 1 { Ok(()) } else { Err(StoreError::JoinRefused) }
}

fn secret_hash(row: &Row<'_>) -> rusqlite::Result<SecretHash> {
    row.get("secret_hash").map(SecretHash::from_bytes)
}
