//! The proving ground: starts the real programs as processes, for benchmarks and for the tests of all of them together.

pub mod pool;
pub mod process;
pub mod proxy;
