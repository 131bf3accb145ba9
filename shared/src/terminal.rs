//! What of a command's output may reach a terminal.
