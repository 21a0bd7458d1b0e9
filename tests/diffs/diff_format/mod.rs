//! The diff format as `docs/diff-format.md` describes it: golden files, every kind of damage, forged diffs, the
//! index.

mod damage;
mod forged;
mod forged_header;
mod forged_payload;
mod goldens;
mod index;
mod sections;
mod support;
mod writer;
