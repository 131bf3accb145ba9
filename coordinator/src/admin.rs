//! Local administration: new join codes and tokens, made in the data folder, also while the server runs.

use std::{fs, sync::Arc};

use anyhow::{Context as _, ensure};
use lull_shared::{
    credentials::{BearerToken, JoinCode, SecretHash},
    time::Clock,
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    config::{BackupArgs, Config, JoinCodeArgs, TokenArgs},
    model::{ApiToken, JoinCodeRecord},
    start, store,
    tls::Tls,
};

const NAME_CHARS_MAX: usize = 100;

/// Makes a join code and prints it alone.
///
/// # Errors
/// When the data folder cannot be written or an address is not `host:port`.
pub async fn join_code(
    config: &Config,
    clock: Arc<dyn Clock>,
    wanted: &JoinCodeArgs,
) -> anyhow::Result<()> {
    make_folder(config)?;
    let tls = Tls::open(&config.data_dir, &config.names, Arc::clone(&clock))?;
    let addresses = if wanted.name.is_empty() {
        start::recorded(&config.data_dir)
            .unwrap_or_else(|| start::outward(&config.names, config.listen))
    } else {
        wanted.name.clone()
    };
    let code = JoinCode::generate(tls.pin()?, addresses);
    let text = code.to_text();
    let readable: Result<JoinCode, _> = text.expose_secret().parse();
    readable.context("the join code would not be readable; give --name as host:port")?;
    let now = clock.now();
    let record = JoinCodeRecord {
        id: code.id,
        secret: SecretHash::of(&code.secret),
        uses: wanted.uses,
        used: 0,
        created_at: now,
        expires_at: now + wanted.ttl,
        last_used_at: None,
    };
    open(config)?.add_join_code(record).await?;
    print_alone(&text);
    Ok(())
}

/// Makes an API token and prints it alone.
///
/// # Errors
/// When the data folder cannot be written or the name is not one.
pub async fn token(
    config: &Config,
    clock: Arc<dyn Clock>,
    wanted: &TokenArgs,
) -> anyhow::Result<()> {
    make_folder(config)?;
    let name = wanted.name.as_deref().unwrap_or(wanted.role.name()).trim();
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    ensure!(
        fits && !name.chars().any(char::is_control),
        "a token's name has 1 to {NAME_CHARS_MAX} characters, none of control"
    );
    let token = BearerToken::generate_api();
    let BearerToken::Api(id, secret) = &token else { unreachable!("it was made as an API token") };
    let now = clock.now();
    let record = ApiToken {
        id: *id,
        name: name.to_owned(),
        role: wanted.role,
        weight: wanted.weight,
        secret: SecretHash::of(secret),
        created_at: now,
        expires_at: wanted.ttl.map(|ttl| now + ttl),
        last_used_at: None,
    };
    open(config)?.add_token(record).await?;
    print_alone(&token.to_text());
    Ok(())
}

/// Copies the database into a new file, whole and consistent, also while the server writes.
///
/// # Errors
/// When there is no database, the file exists already or cannot be written, or the copy is not sound.
pub async fn backup(config: &Config, wanted: &BackupArgs) -> anyhow::Result<()> {
    let (from, to) = (config.data_dir.join(store::DATABASE), wanted.file.clone());
    ensure!(from.exists(), "there is no database in {}", config.data_dir.display());
    ensure!(!to.exists(), "{} exists already; name a new file", to.display());
    let copied = tokio::task::spawn_blocking(move || {
        store::sqlite::backup::copy(&from, &to).map(|bytes| (bytes, to))
    });
    let (bytes, to) = copied.await?.context("could not copy the database")?;
    tracing::info!(path = %to.display(), bytes, "database copied");
    Ok(())
}

fn make_folder(config: &Config) -> anyhow::Result<()> {
    fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("could not make the data folder {}", config.data_dir.display()))
}

fn open(config: &Config) -> anyhow::Result<Arc<dyn store::Store>> {
    store::open(&config.data_dir).context("could not open the database")
}

#[expect(clippy::print_stdout, reason = "the one thing these commands are for")]
fn print_alone(secret: &SecretString) {
    println!("{}", secret.expose_secret());
}
