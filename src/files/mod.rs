//! Images and diffs as files: probe and open, create, apply in place or anew.

mod create;
mod format;
mod open;
mod probe;
mod stored;

pub use create::{NewImage, NewImageOptions, refuse_same_file};
pub use format::{Format, FormatChoice};
pub use open::{OpenImage, OpenOptions, journal_path, open_image, refuse_pending};
