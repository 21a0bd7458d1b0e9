//! Images and diffs as files: probe and open, create, apply in place or anew.

mod apply;
mod chain;
mod child;
mod create;
mod diffs;
mod format;
mod in_place;
mod open;
mod parents;
mod probe;
mod repair;
mod saved;
mod stored;

pub use apply::{Applied, ApplyOptions, BaseChecked, Output, apply_to_child, apply_to_new};
pub use child::finds_parent;
pub use create::{NewImage, NewImageOptions, refuse_same_file};
pub use diffs::{format_of, open_diff, refuse_image, side_of, spool_diff, target_footer};
pub use format::{Format, FormatChoice};
pub use in_place::{InPlace, apply_in_place, roll_back};
pub use open::{
    Mapped, MappedExtents, OpenImage, OpenOptions, journal_path, open_image, refuse_pending,
};
pub use parents::{MAX_CHAIN, ParentOptions};
pub use repair::{Repaired, check_file, repair, take_back};
