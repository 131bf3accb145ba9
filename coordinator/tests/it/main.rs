//! The real coordinator under test: real socket, real TLS, real database file, the real client.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

mod support;

mod api_document;
mod api_page;
mod edge;
mod execute;
mod files;
mod model;
mod output;
mod process;
mod rights;
mod submission;
mod workers;
