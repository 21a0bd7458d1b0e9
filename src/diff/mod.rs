//! Diffs: compare two images, write the changes to a checksummed file or pipe, and apply them.
//!
//! ```text
//!   base ──┐                                                        base ──┐
//!          ├─► compare ─► windows ─► pack ─► writer ─► file or pipe ─► reader ├─► applier ─► image
//!   target ┘  (parallel)           (parallel)  (in order)          (verifies) (parallel)  (in order)
//! ```
//!
//! Everything here accesses images only through [`Image`](crate::image::Image) and knows nothing of their formats.

mod applier;
mod base_check;
mod before_after;
mod chain;
mod change_map;
mod changed;
mod compare;
mod coverage;
mod file;
mod foresee;
pub mod format;
mod frames;
mod listed;
mod make;
mod overlay;
mod pack;
mod pair_hasher;
mod range_buffer;
mod reader;
mod replay;
mod results;
mod sections;
mod squash;
mod stream_hasher;
mod unseen;
mod update_hashes;
mod window_plan;
mod writer;

pub use applier::{Applier, Rebuilt};
pub use base_check::{BaseCheck, BaseMismatch, Touched};
pub use chain::Chain;
pub use change_map::ChangeMap;
pub use changed::ChangedPages;
pub use compare::{CompareOptions, Comparison, WindowChange, compare, page_list};
pub use file::DiffFile;
pub use format::{DiffHeader, Direction, MAGIC, Side, Totals, Trailer};
pub use listed::compare_listed;
pub use make::{
    DiffOptions, PROGRAM, Written, write_diff, write_diff_known, write_diff_listed,
    write_reversible_diff,
};
pub use overlay::Overlay;
pub use pack::{Compression, PackedFrame, pack};
pub use reader::DiffReader;
pub use results::results_of;
pub use sections::Frame;
pub use squash::{SquashOptions, squash};
pub use unseen::write_diff_unseen;
pub use update_hashes::update_window_hashes;
pub use writer::{DiffWriter, FinishedDiff};
