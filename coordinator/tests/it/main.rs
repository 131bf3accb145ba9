//! The real coordinator under test.
mod api_document;
