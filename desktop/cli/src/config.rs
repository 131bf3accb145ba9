//! Which coordinator is meant and who asks: the environment first, then what `lull login` stored.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use directories::ProjectDirs;
use lull_shared::client::{Client, Trust};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// What `lull login` stored.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    /// Address of the coordinator.
    pub(crate) url: String,
    /// The token.
    pub(crate) token: SecretString,
    /// The coordinator's CA; absent when the computer's own ones vouch for it.
    pub(crate) ca_pem: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LoginFile {
    url: String,
    token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_pem: Option<String>,
}

/// What the environment says.
#[derive(Clone, Debug, Default)]
struct Environment {
    url: Option<String>,
    token: Option<SecretString>,
    ca_pem: Option<String>,
}

/// A client for the coordinator that is meant, signed in.
pub(crate) fn client() -> anyhow::Result<Client> {
    let environment = Environment {
        url: variable("LULL_URL"),
        token: variable("LULL_TOKEN").map(SecretString::from),
        ca_pem: match variable("LULL_CA") {
            Some(path) => Some(read_ca(Path::new(&path))?),
            None => None,
        },
    };
    let login = resolve(environment, stored()?)?;
    Ok(Client::new(&[&login.url], trust(login.ca_pem))?.with_token(login.token))
}

/// By what the coordinator proves itself: its own CA, or else those of this computer.
pub(crate) fn trust(ca_pem: Option<String>) -> Trust {
    ca_pem.map_or(Trust::System, Trust::CaPem)
}

/// Settles address, token and CA. A stored token and CA belong to the stored address and go nowhere else.
fn resolve(environment: Environment, stored: Option<Login>) -> anyhow::Result<Login> {
    let stored = stored
        .filter(|login| environment.url.as_ref().is_none_or(|url| same_address(url, &login.url)));
    let Some(url) = environment.url.or_else(|| stored.as_ref().map(|login| login.url.clone()))
    else {
        bail!("you are not signed in: run `lull login`, or set LULL_URL, LULL_TOKEN and LULL_CA");
    };
    let Some(token) =
        environment.token.or_else(|| stored.as_ref().map(|login| login.token.clone()))
    else {
        bail!("there is no token for {url}: run `lull login --url {url}`, or set LULL_TOKEN");
    };
    let ca_pem = environment.ca_pem.or_else(|| stored.and_then(|login| login.ca_pem));
    Ok(Login { url, token, ca_pem })
}

fn same_address(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

/// Reads a CA certificate.
pub(crate) fn read_ca(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path)
        .with_context(|| format!("could not read the CA certificate {}", path.display()))
}

/// What `lull login` stored, if anything.
pub(crate) fn stored() -> anyhow::Result<Option<Login>> {
    let path = login_path()?;
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("could not read {}", path.display()));
        }
    };
    let file: LoginFile = serde_json::from_str(&text).map_err(|_| {
        // The parser's message could quote the token.
        anyhow::anyhow!("{} is damaged: run `lull login` again", path.display())
    })?;
    Ok(Some(Login { url: file.url, token: file.token.into(), ca_pem: file.ca_pem }))
}

/// Stores a login so that only this account can read it. Returns where.
pub(crate) fn store(login: &Login) -> anyhow::Result<PathBuf> {
    let path = login_path()?;
    let folder = path.parent().context("the settings folder has no name")?;
    fs::create_dir_all(folder)
        .with_context(|| format!("could not make the folder {}", folder.display()))?;
    let file = LoginFile {
        url: login.url.clone(),
        token: login.token.expose_secret().to_owned(),
        ca_pem: login.ca_pem.clone(),
    };
    // A temporary file is made readable for this account only, and a half-written login is never seen.
    let mut written = tempfile::NamedTempFile::new_in(folder)?;
    written.write_all(serde_json::to_string_pretty(&file)?.as_bytes())?;
    written.as_file().sync_all()?;
    written.persist(&path).with_context(|| format!("could not write {}", path.display()))?;
    Ok(path)
}

/// Forgets the stored login. Returns whether there was one.
pub(crate) fn forget() -> anyhow::Result<bool> {
    let path = login_path()?;
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("could not remove {}", path.display())),
    }
}

fn login_path() -> anyhow::Result<PathBuf> {
    let folders = ProjectDirs::from("", "", "lull")
        .context("this account has no home folder for settings")?;
    Ok(folders.config_dir().join("login.json"))
}

/// Whether the person wants no colours (<https://no-color.org>), or the terminal cannot show any.
pub(crate) fn colours_refused() -> bool {
    variable("NO_COLOR").is_some() || variable("TERM").is_some_and(|term| term == "dumb")
}

/// Where programs are looked for.
pub(crate) fn program_folders() -> Vec<PathBuf> {
    variable("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// The address to suggest when signing in.
pub(crate) fn url_of_environment() -> Option<String> {
    variable("LULL_URL")
}

/// The CA file that the environment names.
pub(crate) fn ca_of_environment() -> Option<PathBuf> {
    variable("LULL_CA").map(PathBuf::from)
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(url: &str) -> Login {
        Login { url: url.to_owned(), token: "stored".into(), ca_pem: Some("ca".to_owned()) }
    }

    #[test]
    fn the_environment_wins_over_what_was_stored() {
        let environment = Environment {
            url: Some("https://b:1".to_owned()),
            token: Some("given".into()),
            ca_pem: None,
        };
        let settled = resolve(environment, Some(login("https://a:1"))).unwrap();
        assert_eq!(settled.url, "https://b:1");
        assert_eq!(settled.token.expose_secret(), "given");
        assert_eq!(settled.ca_pem, None, "the CA of another coordinator");
    }

    #[test]
    fn a_stored_token_never_goes_to_another_address() {
        let elsewhere =
            Environment { url: Some("https://evil:1".to_owned()), ..Environment::default() };
        let error = resolve(elsewhere, Some(login("https://a:1"))).unwrap_err().to_string();
        assert!(error.contains("lull login --url https://evil:1"), "{error}");
    }

    #[test]
    fn a_stored_login_is_enough() {
        let settled = resolve(Environment::default(), Some(login("https://a:1"))).unwrap();
        assert_eq!(settled.token.expose_secret(), "stored");
        let same = Environment { url: Some("https://a:1/".to_owned()), ..Environment::default() };
        let settled = resolve(same, Some(login("https://a:1"))).unwrap();
        assert_eq!(settled.ca_pem.as_deref(), Some("ca"));
    }

    #[test]
    fn without_anything_the_way_in_is_told() {
        let error = resolve(Environment::default(), None).unwrap_err().to_string();
        assert!(error.contains("lull login") && error.contains("LULL_URL"), "{error}");
    }
}
