//! Images and diffs as files: probe and open, create, apply in place or anew.

mod apply;
mod create;
mod diffs;
mod format;
mod in_place;
mod open;
mod probe;
mod repair;
mod saved;
mod stored;

pub use apply::{Applied, ApplyOptions, BaseChecked, Output, apply_to_new};
pub use create::{NewImage, NewImageOptions, refuse_same_file};
pub use diffs::{format_of, open_diff, refuse_image, side_of, spool_diff, target_footer};
pub use format::{Format, FormatChoice};
pub use in_place::{InPlace, apply_in_place, roll_back};
pub use open::{OpenImage, OpenOptions, journal_path, open_image, refuse_pending};
pub use repair::{Repaired, check_file, repair, take_back};
