//! Who is signed in at the coordinator. The token stays here: the page never sees it.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use lull_shared::{
    client::{Client, ClientError, Trust},
    credentials::{Role, SpkiPin, WhoAmI},
    problem::{Problem, ProblemKind},
};
use lull_worker::Membership;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// Who is signed in, for the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionInfo {
    /// Whether there is a token that the coordinator has not refused.
    pub signed_in: bool,
    /// The coordinator's address; while nobody is signed in, the one to offer.
    pub url: String,
    /// The token's name; empty while the coordinator has not been asked.
    pub name: String,
    /// What the token allows.
    pub role: Role,
    /// Whether direct mode is on there.
    pub direct_mode: bool,
    /// The coordinator's version.
    pub version: String,
}

/// What a person types to sign in.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The coordinator's address.
    pub url: String,
    /// An API token.
    pub token: SecretString,
    /// Fingerprint of the coordinator's CA, if the person has one.
    pub fingerprint: Option<String>,
}

/// The stored sign-in, as the `lull` command writes it too.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Login {
    url: String,
    token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_pem: Option<String>,
}

/// The sign-in of this account.
#[derive(Debug)]
pub struct Session {
    file: PathBuf,
    current: Mutex<Option<SignedIn>>,
}

#[derive(Clone, Debug)]
struct SignedIn {
    url: String,
    client: Client,
    who: Option<WhoAmI>,
}

impl Session {
    /// Reads what was stored. A file that cannot be used is the same as none: the person signs in again.
    #[must_use]
    pub fn open(file: PathBuf) -> Self {
        let current = read(&file).unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "stored sign-in cannot be used");
            None
        });
        Self { file, current: Mutex::new(current) }
    }

    /// The client of whoever is signed in.
    ///
    /// # Errors
    ///
    /// `unauthenticated` when nobody is.
    pub fn client(&self) -> Result<Client, Problem> {
        self.current()
            .map(|current| current.client)
            .ok_or_else(|| Problem::new(ProblemKind::Unauthenticated).with_detail("sign in first"))
    }

    /// Who is signed in. Asks the coordinator; while it does not answer, what it said last counts.
    pub async fn info(&self, membership: Option<Membership>) -> SessionInfo {
        let Some(current) = self.current() else { return signed_out(membership) };
        match current.client.whoami().await {
            Ok(who) => self.remember(SignedIn { who: Some(who), ..current }),
            Err(error) if error.kind() == ProblemKind::Unauthenticated => {
                tracing::info!("the coordinator does not accept the stored token any more");
                self.sign_out();
                signed_out(membership)
            }
            Err(error) => {
                tracing::debug!(%error, "cannot ask who is signed in");
                self.remember(current)
            }
        }
    }

    /// Signs in and stores it, once the coordinator has proved itself and accepted the token.
    ///
    /// # Errors
    ///
    /// What the coordinator or the way to it says.
    pub async fn sign_in(
        &self,
        credentials: Credentials,
        membership: Option<Membership>,
    ) -> Result<SessionInfo, Problem> {
        let (client, ca_pem) = connect(&credentials, membership).await?;
        let client = client.with_token(credentials.token.clone());
        let who = client.whoami().await.map_err(|error| error.to_problem())?;
        let login = Login {
            url: client.address(),
            token: credentials.token.expose_secret().to_owned(),
            ca_pem,
        };
        write(&self.file, &login).map_err(|error| {
            let detail = format!("could not write {}: {error}", self.file.display());
            Problem::new(ProblemKind::Internal).with_detail(detail)
        })?;
        Ok(self.remember(SignedIn { url: login.url, client, who: Some(who) }))
    }

    /// Forgets the token, here and on disk.
    pub fn sign_out(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match std::fs::remove_file(&self.file) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::error!(%error, "stored sign-in cannot be deleted"),
        }
    }

    fn current(&self) -> Option<SignedIn> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, signed_in: SignedIn) -> SessionInfo {
        let info = SessionInfo {
            signed_in: true,
            url: signed_in.url.clone(),
            name: signed_in.who.as_ref().map(|who| who.name.clone()).unwrap_or_default(),
            role: signed_in.who.as_ref().map_or(Role::Viewer, |who| who.role),
            direct_mode: signed_in.who.as_ref().is_some_and(|who| who.direct_mode),
            version: signed_in.who.as_ref().map(|who| who.version.clone()).unwrap_or_default(),
        };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(signed_in);
        info
    }
}

/// Finds by what the coordinator proves itself, before the token goes anywhere: a fingerprint the person
/// gave, the CA of the pool this PC is in, or a certificate that this computer trusts anyway.
async fn connect(
    credentials: &Credentials,
    membership: Option<Membership>,
) -> Result<(Client, Option<String>), Problem> {
    let addresses = [credentials.url.trim()];
    let problem = |error: ClientError| error.to_problem();
    let fingerprint = credentials.fingerprint.as_deref().map_or("", str::trim);
    if !fingerprint.is_empty() {
        let pin: SpkiPin = fingerprint.parse().map_err(|_| {
            Problem::new(ProblemKind::Invalid)
                .with_detail("the fingerprint is damaged: it is 43 letters, digits, - and _")
        })?;
        let ca_pem = Client::fetch_ca(&addresses, pin).await.map_err(problem)?;
        let client = Client::new(&addresses, Trust::CaPem(ca_pem.clone())).map_err(problem)?;
        return Ok((client, Some(ca_pem)));
    }
    if let Some(Membership { ca_pem, .. }) = membership {
        let client = Client::new(&addresses, Trust::CaPem(ca_pem.clone())).map_err(problem)?;
        match client.healthz().await {
            Ok(()) => return Ok((client, Some(ca_pem))),
            // Another coordinator than this PC's own; the system may know it.
            Err(ClientError::Untrusted { .. }) => {}
            Err(error) => return Err(problem(error)),
        }
    }
    let client = Client::new(&addresses, Trust::System).map_err(problem)?;
    client.healthz().await.map_err(problem)?;
    Ok((client, None))
}

fn signed_out(membership: Option<Membership>) -> SessionInfo {
    let address = membership.and_then(|membership| membership.addresses.into_iter().next());
    SessionInfo {
        signed_in: false,
        url: address.map(|address| format!("https://{address}")).unwrap_or_default(),
        name: String::new(),
        role: Role::Viewer,
        direct_mode: false,
        version: String::new(),
    }
}

fn read(file: &Path) -> anyhow::Result<Option<SignedIn>> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // The parser's own message could quote the token.
    let login: Login =
        serde_json::from_slice(&bytes).map_err(|_| anyhow::anyhow!("the file is damaged"))?;
    let trust = login.ca_pem.map_or(Trust::System, Trust::CaPem);
    let client = Client::new(&[&login.url], trust)?.with_token(login.token.into());
    Ok(Some(SignedIn { url: login.url, client, who: None }))
}

/// Writes the whole file or none of it, readable for this account alone.
fn write(file: &Path, login: &Login) -> io::Result<()> {
    let folder = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    // A temporary file of this crate is 0600 from its first byte, and keeps that when it is renamed.
    let mut written = tempfile::NamedTempFile::new_in(folder)?;
    written.write_all(&serde_json::to_vec_pretty(login)?)?;
    written.as_file().sync_all()?;
    written.persist(file)?;
    Ok(())
}
