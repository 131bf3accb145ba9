//! Who may do what: one table of rights, asked before a request reaches its handler or its body is read.
//!
//! An address without a row is closed. A handler that wants to know who asks takes [`Caller`] or
//! [`WorkerCaller`], which only a request that passed the table carries.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, Method, header::AUTHORIZATION, request::Parts},
    middleware::Next,
    response::Response,
};
use lull_shared::{
    credentials::{BearerToken, Role},
    ids::{JoinCodeId, TokenId, WorkerId},
    problem::ProblemKind,
    time::Timestamp,
};
use secrecy::SecretString;

use crate::{
    model::Submitter,
    routes::{AppState, problem::ApiError},
};

mod known;

pub use known::KnownTokens;

/// What an operation asks of whoever calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// The method; `GET` stands for `HEAD` too.
    pub method: &'static str,
    /// The address as the router knows it.
    pub path: &'static str,
    /// Who may call it.
    pub who: Who,
}

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Everybody, without a token.
    Anybody,
    /// People and programs whose token has at least this role.
    Users(Role),
    /// Workers, with their own token.
    Workers,
    /// Workers, and PCs that show a join code.
    WorkersAndJoiners,
    /// Workers, and people and programs with at least this role.
    WorkersAndUsers(Role),
}

impl Who {
    /// The same for a person.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Anybody => "open, no token needed",
            Self::Users(Role::Viewer) => "API token, any role",
            Self::Users(Role::Submitter) => "API token, role submitter or admin",
            Self::Users(Role::Admin) => "API token, role admin",
            Self::Workers => "worker token",
            Self::WorkersAndJoiners => "worker token or join code",
            Self::WorkersAndUsers(Role::Viewer) => "API token of any role, or worker token",
            Self::WorkersAndUsers(Role::Submitter) => {
                "API token with role submitter or admin, or worker token"
            }
            Self::WorkersAndUsers(Role::Admin) => "API token with role admin, or worker token",
        }
    }
}

const fn right(method: &'static str, path: &'static str, who: Who) -> Right {
    Right { method, path, who }
}

/// The rights to every operation there is.
pub const RIGHTS: &[Right] = &[
    right("GET", "/healthz", Who::Anybody),
    right("GET", "/readyz", Who::Anybody),
    right("GET", "/api/openapi.json", Who::Anybody),
    right("GET", "/api/docs", Who::Anybody),
    right("GET", "/api/whoami", Who::Users(Role::Viewer)),
    right("POST", "/api/workers/register", Who::WorkersAndJoiners),
    right("GET", "/api/workers/register", Who::Users(Role::Viewer)),
    right("GET", "/api/workers", Who::Users(Role::Viewer)),
    right("POST", "/api/workers/heartbeat", Who::Workers),
    right("POST", "/api/workers/drain", Who::Users(Role::Admin)),
    right("POST", "/api/workers/release", Who::Users(Role::Admin)),
    right("POST", "/api/jobs/create", Who::Users(Role::Submitter)),
    right("GET", "/api/jobs/create", Who::Users(Role::Viewer)),
    right("GET", "/api/jobs", Who::Users(Role::Viewer)),
    right("GET", "/api/jobs/status", Who::Users(Role::Viewer)),
    right("GET", "/api/jobs/explain", Who::Users(Role::Viewer)),
    right("POST", "/api/jobs/cancel", Who::Users(Role::Submitter)),
    right("POST", "/api/jobs/hold", Who::Users(Role::Submitter)),
    right("POST", "/api/jobs/release", Who::Users(Role::Submitter)),
    right("POST", "/api/jobs/resubmit", Who::Users(Role::Submitter)),
    right("GET", "/api/events", Who::Users(Role::Viewer)),
    right("GET", "/api/jobs/get-job", Who::Workers),
    right("POST", "/api/jobs/submit-result", Who::Workers),
    right("PUT", "/api/jobs/submit-result", Who::Workers),
    right("POST", "/api/jobs/stream-output", Who::Workers),
    right("GET", "/api/jobs/output", Who::Users(Role::Viewer)),
    right("POST", "/api/files/upload", Who::WorkersAndUsers(Role::Submitter)),
    right("GET", "/api/files/{digest}", Who::WorkersAndUsers(Role::Viewer)),
    right("POST", "/api/execute", Who::Users(Role::Submitter)),
];

/// The row of an operation.
#[must_use]
pub fn right_to(method: &Method, path: &str) -> Option<&'static Right> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    RIGHTS.iter().find(|right| right.method == method.as_str() && right.path == path)
}

/// A person or program with an API token.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token.
    pub token_id: TokenId,
    /// The token's name.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// How many turns its jobs have for one of a token of weight 1.
    pub weight: u32,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

impl Caller {
    /// The caller as whoever submits a job.
    #[must_use]
    pub fn submitter(&self) -> Submitter {
        Submitter { token_id: self.token_id, name: self.name.clone(), weight: self.weight }
    }
}

/// A worker with its own token.
#[derive(Clone, Copy, Debug)]
pub struct WorkerCaller(pub WorkerId);

/// Whoever sent a request, once the token was checked.
#[derive(Clone, Debug)]
pub enum Identity {
    /// An API token.
    User(Caller),
    /// A worker token.
    Worker(WorkerCaller),
    /// A join code whose secret is right; whether it has uses left is decided when one is taken.
    Joiner {
        /// Which code.
        code: JoinCodeId,
        /// Its secret.
        secret: SecretString,
    },
}

impl Identity {
    fn may(&self, who: Who) -> bool {
        match self {
            Self::User(caller) => match who {
                Who::Anybody => true,
                Who::Users(role) | Who::WorkersAndUsers(role) => caller.role >= role,
                Who::Workers | Who::WorkersAndJoiners => false,
            },
            Self::Worker(_) => !matches!(who, Who::Users(_)),
            Self::Joiner { .. } => matches!(who, Who::Anybody | Who::WorkersAndJoiners),
        }
    }
}

/// Lets a request through to its handler if the table says so, and notes who sent it.
///
/// # Errors
/// `unauthenticated` or `join_refused` without a good token, `forbidden` with one that does not allow this.
pub async fn authorize(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| request.uri().path(), MatchedPath::as_str);
    let right = right_to(request.method(), path);
    let who = match right {
        Some(right) => Some(right.who),
        // The page and its assets are open; other methods of known addresses and unknown ones below /api are not.
        None if path.starts_with("/api") => None,
        None => Some(Who::Anybody),
    };
    if who == Some(Who::Anybody) {
        return Ok(next.run(request).await);
    }
    let identity = authenticate(&state, request.headers()).await?;
    if let Some(who) = who
        && !identity.may(who)
    {
        let detail = format!("it takes: {}", who.describe());
        return Err(ApiError::refused(ProblemKind::Forbidden, detail));
    }
    request.extensions_mut().insert(Arc::new(identity));
    Ok(next.run(request).await)
}

/// Finds out whose token the request carries.
async fn authenticate(state: &AppState, headers: &HeaderMap) -> Result<Identity, ApiError> {
    let token = bearer(headers).ok_or(ProblemKind::Unauthenticated)?;
    match token {
        BearerToken::Api(id, secret) => {
            let found = state.tokens.token(id, &secret).await?;
            let known::Found { token, anew } = found.ok_or(ProblemKind::Unauthenticated)?;
            let now = state.scheduler.now();
            if token.expires_at.is_some_and(|end| end <= now) {
                return Err(ApiError::refused(
                    ProblemKind::Unauthenticated,
                    "the token has expired",
                ));
            }
            if anew && let Err(error) = state.scheduler.touch_token(&token).await {
                tracing::debug!(%error, "token use not noted");
            }
            let (token_id, role) = (token.id, token.role);
            Ok(Identity::User(Caller {
                token_id,
                name: token.name,
                role,
                weight: token.weight,
                expires_at: token.expires_at,
            }))
        }
        BearerToken::Worker(id, secret) => {
            if !state.tokens.is_worker(id, &secret).await? {
                return Err(ProblemKind::Unauthenticated.into());
            }
            Ok(Identity::Worker(WorkerCaller(id)))
        }
        BearerToken::Join(code, secret) => {
            let record = state.reads.join_code(code).await?;
            record.filter(|code| code.secret.matches(&secret)).ok_or(ProblemKind::JoinRefused)?;
            Ok(Identity::Joiner { code, secret })
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<BearerToken> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.parse().ok())?
}

/// The identity that [`authorize`] noted.
impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let identity = parts.extensions.get::<Arc<Self>>().ok_or(ProblemKind::Unauthenticated)?;
        Ok((**identity).clone())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Identity::from_request_parts(parts, state).await? {
            Identity::User(caller) => Ok(caller),
            Identity::Worker(_) | Identity::Joiner { .. } => Err(ProblemKind::Forbidden.into()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for WorkerCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Identity::from_request_parts(parts, state).await? {
            Identity::Worker(worker) => Ok(worker),
            Identity::User(_) | Identity::Joiner { .. } => Err(ProblemKind::Forbidden.into()),
        }
    }
}
