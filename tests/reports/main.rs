//! What users, public reports and hostile testers ran into, and how each case ends now: one table a module.
//!
//! ```text
//! cargo test --test reports -- --nocapture --test-threads 1
//! ```
//!
//! A case is a small story, told with the real programs in a folder of its own. It fails if it ends in any other way
//! than its row says.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod applies;
mod chains;
#[path = "../support/disk.rs"]
mod disk;
mod files;
mod findings;
mod formats;
mod hints;
mod hostile;
mod lab;
mod left;
mod lies;
#[path = "../support/many.rs"]
mod many;
mod misses;
#[path = "../support/mounts.rs"]
mod mounts;
mod pipes;
mod samples;
#[path = "../diff_format/sections.rs"]
#[allow(dead_code, reason = "only what forges a diff is used")]
mod sections;
mod stores;
