//! What users, public reports and hostile testers ran into, and how each case ends now: one table a module.
//!
//! ```text
//! cargo test --test command reports -- --nocapture --test-threads 1
//! ```
//!
//! A case is a small story, told with the real programs in a folder of its own. It fails if it ends in any other way
//! than its row says.
mod applies;
mod chains;
mod files;
mod findings;
mod formats;
mod hints;
mod hostile;
mod lab;
mod left;
mod lies;
mod misses;
mod pipes;
mod samples;
mod stores;
