//! Stores that were tampered with, forged streams, and failing calls.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::semicolon_if_nothing_returned,
    clippy::too_many_lines,
    reason = "a test's helpers, and tables"
)]

mod errors;
mod escapes;
mod lab;
mod packed;
mod stores;
mod streams;
mod tampered;
