//! What a worker is told at its start.

use std::path::PathBuf;

/// How a worker is to behave. `WorkerConfig::new` is right for a PC with an owner.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Where identity, history, spool, cache and the folders of running jobs live.
    pub data_dir: PathBuf,
    /// Room for this many attempts at once; half the logical processors unless told.
    pub slots: Option<u32>,
    /// Works whatever the PC is used for: for a server with no owner to mind. The owner's pause still counts.
    pub always: bool,
}

impl WorkerConfig {
    /// A worker with its data in this folder and everything else as usual.
    #[must_use]
    pub const fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, slots: None, always: false }
    }
}
