//! The proving ground: starts the real programs as processes, for benchmarks and for the tests of all of them together.

pub mod chaos;
pub mod pool;
#[cfg(target_os = "linux")]
pub mod power_cut;
pub mod process;
pub mod proxy;
pub mod simulated;
pub mod torture;
