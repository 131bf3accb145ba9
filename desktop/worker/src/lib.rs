//! The worker: runs jobs on a PC while its owner is away. A library without a window, and a headless program.

#![doc = include_str!("../README.md")]

mod handle;
mod signals;

pub mod cli;
pub mod config;

pub mod machine;
pub mod policy;

mod worker_loop;

mod attempt;
mod backoff;
mod cache;
mod courier;
mod deliver;
mod folders;
mod output;
mod spool;

#[cfg(test)]
mod testing;

pub mod runner;
pub mod sandbox;

pub mod api;
pub mod history;
pub mod identity;

pub use config::{InvalidLabels, Labels, WorkerConfig};
pub use handle::{StartError, Worker, WorkerHandle};
pub use identity::{JoinError, Membership};
