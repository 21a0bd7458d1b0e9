//! What other programs say of how a disk changed: reading their lists, and finding out whether they are true.

mod changes;
mod json;
mod ranges;
mod sample;
mod thin;

pub use changes::ChangedRanges;
pub use sample::Claim;
