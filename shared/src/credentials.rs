//! Credentials as text: join codes, worker tokens, API tokens. Secrets stay out of `Debug` and errors.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

use crate::{
    ids::{JoinCodeId, TokenId, WorkerId},
    time::Timestamp,
};

const SECRET_BYTES: usize = 32;

/// What a token allows. Ordered: each includes what is below it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Sees jobs, PCs and output.
    Viewer,
    /// Also submits and cancels jobs.
    Submitter,
    /// Everything.
    Admin,
}

impl Role {
    /// All roles, weakest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Submitter, Self::Admin];

    /// The wire form, which the store keeps too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| "a role is one of admin, submitter, viewer".to_owned())
    }
}

/// Who a token belongs to: reply to `GET /api/whoami`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhoAmI {
    /// The token's name.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// When it ends; absent when it does not.
    pub expires_at: Option<Timestamp>,
    /// Whether direct mode of `POST /api/execute` is on.
    pub direct_mode: bool,
    /// Version of the coordinator.
    pub version: String,
}

/// SHA-256 of a CA certificate's SubjectPublicKeyInfo, by which a PC knows the right coordinator before it
/// sends anything secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpkiPin(pub [u8; 32]);

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for SpkiPin {
    type Err = InvalidCredential;

    fn from_str(text: &str) -> Result<Self, InvalidCredential> {
        decode_32(text).map(Self).ok_or(InvalidCredential::JoinCode("its fingerprint is damaged"))
    }
}

/// The text is not a credential of the expected form. Never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredential {
    /// A join code that cannot be read, and why.
    #[error(
        "this is not a complete join code: {0}; copy the whole line that `lull-coordinator join-code` printed"
    )]
    JoinCode(&'static str),
    /// A token that cannot be read.
    #[error("this is not a token of Lull")]
    Token,
}

/// A new random secret, as text.
#[must_use]
fn new_secret() -> SecretString {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).expect("the system has a source of random bytes");
    URL_SAFE_NO_PAD.encode(bytes).into()
}

fn decode_32(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// What is stored of a secret: its SHA-256. Secrets are 256 random bits, so a slow hash adds nothing.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Hashes a secret.
    #[must_use]
    pub fn of(secret: &SecretString) -> Self {
        Self(Sha256::digest(secret.expose_secret().as_bytes()).into())
    }

    /// Wraps what the store kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For the store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the secret is the hashed one, in time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, secret: &SecretString) -> bool {
        self.0.ct_eq(&Self::of(secret).0).into()
    }
}

/// What a PC needs to join a pool: `lull1.<SHA-256 of the CA's SPKI>.<id>.<secret>@host:port[,host:port…]`.
#[derive(Clone, Debug)]
pub struct JoinCode {
    /// The CA to expect.
    pub pin: SpkiPin,
    /// Which code it is.
    pub id: JoinCodeId,
    /// Proves that the PC was given the code.
    pub secret: SecretString,
    /// Where the coordinator answers, in order of preference; at least one.
    pub addresses: Vec<String>,
}

impl JoinCode {
    /// Makes a new code with a fresh secret.
    #[must_use]
    pub fn generate(pin: SpkiPin, addresses: Vec<String>) -> Self {
        Self { pin, id: JoinCodeId::generate(), secret: new_secret(), addresses }
    }

    /// The code as a person copies it. Holds the secret.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        format!(
            "lull1.{}.{}.{}@{}",
            self.pin,
            self.id,
            self.secret.expose_secret(),
            self.addresses.join(",")
        )
        .into()
    }

    /// What goes out as the bearer token when joining: id and secret, without the rest.
    #[must_use]
    pub fn bearer(&self) -> SecretString {
        format!("lullj_{}_{}", self.id, self.secret.expose_secret()).into()
    }
}

impl FromStr for JoinCode {
    type Err = InvalidCredential;

    fn from_str(text: &str) -> Result<Self, InvalidCredential> {
        use InvalidCredential::JoinCode as Bad;

        let text = text.trim();
        let rest = text.strip_prefix("lull1.").ok_or(Bad("it does not begin with lull1."))?;
        let (code, addresses) =
            rest.split_once('@').ok_or(Bad("the address after @ is missing"))?;
        let mut parts = code.split('.');
        let (Some(pin), Some(id), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Bad("it does not have three parts before the @"));
        };
        decode_32(secret).ok_or(Bad("its secret is damaged"))?;
        let addresses: Vec<String> = addresses.split(',').map(str::to_owned).collect();
        if !addresses.iter().all(|address| is_host_and_port(address)) {
            return Err(Bad("an address is not host:port"));
        }
        Ok(Self {
            pin: pin.parse()?,
            id: id.parse().map_err(|_| Bad("its id is damaged"))?,
            secret: secret.to_owned().into(),
            addresses,
        })
    }
}

/// Whether the text is a host name or address with a port, and nothing that a URL would read otherwise.
fn is_host_and_port(address: &str) -> bool {
    let Ok(url) = url::Url::parse(&format!("https://{address}/")) else { return false };
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    has_port
        && url.host_str().is_some_and(|host| !host.is_empty())
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

/// Any bearer token the coordinator knows: who it names and the secret that proves it.
#[derive(Clone, Debug)]
pub enum BearerToken {
    /// `lullw_<worker id>_<secret>`.
    Worker(WorkerId, SecretString),
    /// `lullt_<token id>_<secret>`.
    Api(TokenId, SecretString),
    /// `lullj_<join code id>_<secret>`.
    Join(JoinCodeId, SecretString),
}

impl BearerToken {
    /// A new token for a worker, made on the PC itself.
    #[must_use]
    pub fn generate_worker(id: WorkerId) -> Self {
        Self::Worker(id, new_secret())
    }

    /// A new API token.
    #[must_use]
    pub fn generate_api() -> Self {
        Self::Api(TokenId::generate(), new_secret())
    }

    /// The token as it travels in the `Authorization` header.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        match self {
            Self::Worker(id, secret) => format!("lullw_{id}_{}", secret.expose_secret()),
            Self::Api(id, secret) => format!("lullt_{id}_{}", secret.expose_secret()),
            Self::Join(id, secret) => format!("lullj_{id}_{}", secret.expose_secret()),
        }
        .into()
    }

    /// The part that proves it.
    #[must_use]
    pub const fn secret(&self) -> &SecretString {
        match self {
            Self::Worker(_, secret) | Self::Api(_, secret) | Self::Join(_, secret) => secret,
        }
    }
}

impl FromStr for BearerToken {
    type Err = InvalidCredential;

    fn from_str(text: &str) -> Result<Self, InvalidCredential> {
        let bad = InvalidCredential::Token;
        let (kind, rest) = text.trim().split_once('_').ok_or(bad)?;
        let (id, secret) = rest.split_once('_').ok_or(bad)?;
        decode_32(secret).ok_or(bad)?;
        let secret = SecretString::from(secret);
        match kind {
            "lullw" => Ok(Self::Worker(id.parse().map_err(|_| bad)?, secret)),
            "lullt" => Ok(Self::Api(id.parse().map_err(|_| bad)?, secret)),
            "lullj" => Ok(Self::Join(id.parse().map_err(|_| bad)?, secret)),
            _ => Err(bad),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_code_survives_being_copied() {
        let code = JoinCode::generate(
            SpkiPin([7; 32]),
            vec!["pool.example:7700".to_owned(), "[::1]:7700".to_owned()],
        );
        let read: JoinCode =
            format!("  {}\n", code.to_text().expose_secret()).parse().expect("it reads");
        assert_eq!(read.pin, code.pin);
        assert_eq!(read.id, code.id);
        assert_eq!(read.addresses, code.addresses);
        assert_eq!(read.secret.expose_secret(), code.secret.expose_secret());
    }

    #[test]
    fn a_damaged_join_code_is_refused_without_being_quoted() {
        let code = JoinCode::generate(SpkiPin([7; 32]), vec!["pool.example:7700".to_owned()]);
        let text = code.to_text().expose_secret().to_owned();
        check("");
        check("lull1.");
        check(&text[..text.len() - 5]);
        check(&text.replace("lull1", "lull2"));
        check(&text.replace("pool.example:7700", "pool.example"));
        check(&text.replace("pool.example:7700", "evil@pool.example:7700/x"));
        check(&text.replacen('.', "", 2));
    }

    #[track_caller]
    fn check(text: &str) {
        let error = text.parse::<JoinCode>().expect_err(text).to_string();
        assert!(!error.contains("pool.example"), "{error}");
    }

    #[test]
    fn a_token_says_who_and_proves_it() {
        let token = BearerToken::generate_api();
        let read: BearerToken = token.to_text().expose_secret().parse().unwrap();
        let hash = SecretHash::of(token.secret());
        assert!(hash.matches(read.secret()));
        assert!(!hash.matches(BearerToken::generate_api().secret()));
        assert!("lullt_x_y".parse::<BearerToken>().is_err());
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        let code = JoinCode::generate(SpkiPin([7; 32]), vec!["h:1".to_owned()]);
        assert!(!format!("{code:?}").contains(code.secret.expose_secret()));
    }
}
