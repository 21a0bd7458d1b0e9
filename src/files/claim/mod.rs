//! Lists of changed ranges from other programs: reading them, and finding out whether they are true.

mod changes;
mod json;
mod ranges;
mod sample;
mod thin;

pub use changes::ChangedRanges;
pub use sample::Claim;
