//! The tray app: worker, tray icon and window in one.

#![doc = include_str!("../README.md")]

mod app;

pub mod config;
pub mod controller;
pub mod menu;

pub mod commands;
pub mod files;
pub mod follow;
pub mod session;
pub mod tray;
pub mod window;

pub use app::main;
