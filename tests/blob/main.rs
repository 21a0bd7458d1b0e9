//! Page blobs over HTTP: against a server within these tests, with correct lists of changes and with faults at every
//! position, and against Azurite.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    clippy::format_push_string,
    reason = "a test's helpers"
)]

mod apply;
mod azurite;
mod changed;
mod cli;
mod faults;
mod fetched;
mod secrets;
mod server;
mod store;
mod store_faults;
mod support;
mod wire;
