//! Wire types and rules shared by every part of Lull.

#![doc = include_str!("../README.md")]

pub mod ids;
pub mod time;

pub mod credentials;
pub mod events;
pub mod execute;
pub mod files;
pub mod jobs;
pub mod local;
pub mod output;
pub mod problem;
pub mod workers;

#[cfg(feature = "archive")]
pub mod archive;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "terminal")]
pub mod terminal;
