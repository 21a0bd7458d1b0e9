//! What all fuzz programs share.

pub mod run;
pub mod targets;
