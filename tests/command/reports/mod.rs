//! Problems found by users, public reports and hostile testers, and how each case ends now: one table per module.
//!
//! ```text
//! cargo test --test command reports -- --nocapture --test-threads 1
//! ```
//!
//! A case is a short story, acted out with the real programs in its own folder. It fails if its result differs from
//! its row.
mod applies;
mod chains;
mod files;
mod findings;
mod formats;
mod hints;
mod hostile;
mod kinds;
mod lab;
mod left;
mod lies;
mod misses;
mod pipes;
mod samples;
mod stores;
