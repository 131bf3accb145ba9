//! Who this PC is in the pool: its id, its token and its coordinator, kept in `worker.json`; and how it joins one.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use lull_shared::{
    client::ClientError,
    credentials::{BearerToken, InvalidCredential, JoinCode},
    ids::WorkerId,
    problem::{Problem, ProblemKind},
    workers::RegisterWorker,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::api::{Connector, Verdict, verdict};

/// How often a join request is sent before the coordinator's silence is believed.
const JOIN_TRIES: u32 = 3;

/// The pool this PC is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Where the coordinator answers, as `host:port`, in order of preference; at least one.
    pub addresses: Vec<String>,
    /// The CA certificate (PEM) that the coordinator's own must be signed by.
    pub ca_pem: String,
    /// Fingerprint of that CA's key, as in a join code.
    pub pin: String,
}

impl Membership {
    /// Whether the code is for the same pool. Text that is no join code is for none.
    #[must_use]
    pub fn is_of(&self, code: &SecretString) -> bool {
        let code: Result<JoinCode, _> = code.expose_secret().parse();
        code.is_ok_and(|code| code.pin.to_string() == self.pin)
    }
}

/// Why this PC could not join a pool. The messages are for the person who pasted the code.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The text is not a join code.
    #[error(transparent)]
    Code(#[from] InvalidCredential),
    /// Somebody else answers at the code's address.
    #[error(
        "what answers at {address} is not the coordinator this code was made for, so nothing was sent to it; \
         ask for a new join code"
    )]
    WrongCoordinator {
        /// Where it answers.
        address: String,
    },
    /// The coordinator does not accept the code.
    #[error("the coordinator at {address} refused the join code: {reason}; ask for a new one")]
    Refused {
        /// Where it answers.
        address: String,
        /// In its words.
        reason: String,
    },
    /// No coordinator answers.
    #[error(
        "no coordinator answers at {addresses}: {reason}; check the network, and whether it runs"
    )]
    Unreachable {
        /// All addresses that were tried.
        addresses: String,
        /// What went wrong with the last one.
        reason: String,
    },
    /// It answered in a way that is neither yes nor no.
    #[error("the coordinator at {address} could not take this PC in: {reason}")]
    Failed {
        /// Where it answers.
        address: String,
        /// In its words.
        reason: String,
    },
    /// The new identity could not be kept.
    #[error("could not write {path}: {reason}")]
    NotStored {
        /// Which file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The worker ended meanwhile.
    #[error("the worker has stopped")]
    Stopped,
}

impl JoinError {
    /// The same as a problem document, for the window.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        let kind = match self {
            Self::Code(_) => ProblemKind::Invalid,
            Self::WrongCoordinator { .. } | Self::Refused { .. } => ProblemKind::JoinRefused,
            Self::Unreachable { .. } => ProblemKind::Unreachable,
            Self::Failed { .. } => ProblemKind::Unavailable,
            Self::NotStored { .. } | Self::Stopped => ProblemKind::Internal,
        };
        Problem::new(kind).with_detail(self.to_string())
    }
}

/// Who this PC is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Made once, kept for the PC's life.
    pub(crate) worker_id: WorkerId,
    /// The owner's pause, which outlives a restart.
    pub(crate) paused: bool,
    /// The pool and the proof of belonging to it.
    pub(crate) enrolment: Option<Enrolment>,
}

/// The pool, and the proof of belonging to it.
#[derive(Clone, Debug)]
pub(crate) struct Enrolment {
    pub(crate) membership: Membership,
    /// The worker's own bearer token.
    pub(crate) token: SecretString,
}

/// The form in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    worker_id: WorkerId,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    coordinator: Option<StoredEnrolment>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredEnrolment {
    addresses: Vec<String>,
    ca_pem: String,
    pin: String,
    token: String,
}

impl Identity {
    /// Reads the file, or makes a PC without a pool when there is none.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let stored = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice::<Stored>(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = Self { worker_id: WorkerId::generate(), paused: false, enrolment: None };
                made.store(path)?;
                return Ok(made);
            }
            Err(error) => return Err(error),
        };
        let enrolment = stored.coordinator.map(|stored| Enrolment {
            membership: Membership {
                addresses: stored.addresses,
                ca_pem: stored.ca_pem,
                pin: stored.pin,
            },
            token: stored.token.into(),
        });
        Ok(Self { worker_id: stored.worker_id, paused: stored.paused, enrolment })
    }

    /// Replaces the file in one step, readable by this account only.
    pub(crate) fn store(&self, path: &Path) -> io::Result<()> {
        let stored = Stored {
            worker_id: self.worker_id,
            paused: self.paused,
            coordinator: self.enrolment.as_ref().map(|enrolment| StoredEnrolment {
                addresses: enrolment.membership.addresses.clone(),
                ca_pem: enrolment.membership.ca_pem.clone(),
                pin: enrolment.membership.pin.clone(),
                token: enrolment.token.expose_secret().to_owned(),
            }),
        };
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        // A temporary file is readable by its owner only.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec_pretty(&stored)?)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }

    /// The pool as the program around the worker sees it.
    pub(crate) fn membership(&self) -> Option<Membership> {
        self.enrolment.as_ref().map(|enrolment| enrolment.membership.clone())
    }
}

/// Joins the code's pool: first makes sure that the right coordinator answers, then shows it the secret. What comes
/// back is not stored yet.
pub(crate) async fn join(
    code: &SecretString,
    before: Identity,
    about: RegisterWorker,
    connector: &dyn Connector,
) -> Result<Identity, JoinError> {
    let code: JoinCode = code.expose_secret().parse()?;
    let pin = code.pin.to_string();
    let ca_pem = connector.fetch_ca(&code).await.map_err(|error| join_error(&code, error))?;
    let membership = Membership { addresses: code.addresses.clone(), ca_pem, pin };
    let api =
        connector.connect(&membership, code.bearer()).map_err(|error| join_error(&code, error))?;

    // In the same pool the same token stays valid; no other pool is to see it.
    let known =
        before.enrolment.as_ref().filter(|enrolment| enrolment.membership.pin == membership.pin);
    let mut worker_id = before.worker_id;
    let mut token = known.map_or_else(
        || BearerToken::generate_worker(worker_id).to_text(),
        |enrolment| enrolment.token.clone(),
    );
    let mut tries = 1;
    loop {
        let request = RegisterWorker {
            worker_id,
            worker_token: Some(token.expose_secret().to_owned()),
            ..about.clone()
        };
        match api.register(&request).await {
            Ok(_) => break,
            Err(error) if tries >= JOIN_TRIES => return Err(join_error(&code, error)),
            // The pool knows this PC by a token that was lost here: come in as a new one.
            Err(error) if error.kind() == ProblemKind::Conflict => {
                worker_id = WorkerId::generate();
                token = BearerToken::generate_worker(worker_id).to_text();
            }
            Err(error) if verdict(&error) == Verdict::Later => {}
            Err(error) => return Err(join_error(&code, error)),
        }
        tries += 1;
    }
    Ok(Identity {
        worker_id,
        paused: before.paused,
        enrolment: Some(Enrolment { membership, token }),
    })
}

fn join_error(code: &JoinCode, error: ClientError) -> JoinError {
    let addresses = code.addresses.join(", ");
    match error {
        ClientError::Untrusted { address, reason: _ } => JoinError::WrongCoordinator { address },
        ClientError::Unreachable { address: _, source } => {
            JoinError::Unreachable { addresses, reason: innermost(source.as_ref()) }
        }
        ClientError::Problem(problem)
            if matches!(
                problem.kind,
                ProblemKind::JoinRefused | ProblemKind::Unauthenticated | ProblemKind::Forbidden
            ) =>
        {
            let reason = problem.detail.unwrap_or(problem.title);
            JoinError::Refused { address: addresses, reason }
        }
        error @ (ClientError::Problem(_)
        | ClientError::Protocol { .. }
        | ClientError::Address { .. }
        | ClientError::Certificate(_)
        | ClientError::Request(_)
        | ClientError::File { .. }) => {
            JoinError::Failed { address: addresses, reason: error.to_string() }
        }
    }
}

/// The last cause, which names what the system said.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

/// The places in the data folder.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    pub(crate) root: PathBuf,
}

impl Folders {
    pub(crate) fn identity(&self) -> PathBuf {
        self.root.join("worker.json")
    }

    pub(crate) fn history(&self) -> PathBuf {
        self.root.join("history.db")
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    pub(crate) fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    pub(crate) fn spares(&self) -> PathBuf {
        self.root.join("spares")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
}
