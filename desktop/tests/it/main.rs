//! The app as people meet it: the real program on a desktop of its own, which each test starts.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod desk;
mod pool;

mod controller;
mod files;
mod session;
mod tray;
mod tray_host;
mod window;
