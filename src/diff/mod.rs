//! Diffs: compare two images, carry what changed in a checked file or pipe, apply it.
//!
//! ```text
//!   base ──┐                                                        base ──┐
//!          ├─► compare ─► windows ─► pack ─► writer ─► file or pipe ─► reader ├─► layers ─► image
//!   target ┘  (parallel)           (parallel)  (in order)          (verifies) (parallel)  (in order)
//! ```
//!
//! Everything here sees images through [`Image`](crate::image::Image) alone and knows nothing of their formats.

mod base_check;
mod carry;
mod chain;
mod changed;
mod compare;
mod coverage;
mod file;
mod foresee;
pub mod format;
mod frames;
mod held;
mod known;
mod layers;
mod listed;
mod make;
mod overlay;
mod pack;
mod pair_hasher;
mod plan;
mod reader;
mod running;
mod sections;
mod spans;
mod squash;
mod writer;

pub use base_check::{BaseCheck, Misfit, Touched};
pub use carry::carry_list;
pub use chain::Chain;
pub use changed::ChangedPages;
pub use compare::{CompareOptions, Comparison, WindowChange, compare, page_list};
pub use file::DiffFile;
pub use format::{DiffHeader, MAGIC, Side, Totals, Trailer, Way};
pub use known::KnownChanges;
pub use layers::{Layers, Rebuilt};
pub use listed::compare_listed;
pub use make::{
    DiffOptions, PROGRAM, Written, write_diff, write_diff_known, write_diff_listed,
    write_reversible_diff,
};
pub use overlay::Overlay;
pub use pack::{Compression, PackedFrame, pack};
pub use reader::DiffReader;
pub use sections::Frame;
pub use squash::{SquashOptions, squash};
pub use writer::{DiffWriter, Finished};
