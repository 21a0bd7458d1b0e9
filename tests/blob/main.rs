//! Page blobs over HTTP: against a server of these tests, with true lists of changes and with faults in every position,
//! and against Azurite.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    clippy::format_push_string,
    reason = "a test's helpers"
)]

mod azurite;
mod cli;
mod faults;
mod secrets;
mod server;
mod support;
mod wire;
