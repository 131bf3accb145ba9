//! The typed HTTP client with the pinned CA, used by worker, desktop and CLI.
