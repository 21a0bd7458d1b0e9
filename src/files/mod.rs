//! Images and diffs as files: detecting formats, opening, creating, applying in place or to a new image.

mod apply;
mod child;
#[cfg(feature = "azure")]
mod claim;
mod clones;
mod create;
mod diffs;
mod empty;
#[cfg(feature = "azure")]
mod far;
mod fetched;
mod file_image;
mod folder;
pub mod foreign;
mod format;
mod inside;
mod kept;
mod merge;
mod open;
mod opened;
mod options;
mod parent_lookup;
mod parents;
mod pending;
mod places;
mod probe;
mod rebase;
mod relatives;
mod repair;
mod resize;
mod saved;
mod shell_word;
mod split;
mod state;
mod tree;
mod windows;

pub use apply::{
    Applied, ApplyOptions, BaseChecked, InPlace, Output, Strategy, apply_in_place,
    apply_made_in_place, apply_to_child, apply_to_clone, apply_to_image, apply_to_new,
    apply_to_pipe, format_of_result, roll_back,
};
pub use child::{WindowsFolder, finds_parent};
#[cfg(feature = "azure")]
pub use claim::{ChangedRanges, Claim};
pub use clones::Clones;
pub use create::{ChildOf, NewImage, NewImageOptions, check_output, refuse_same_file, same_file};
pub use diffs::{
    format_of, open_diff, refuse_foreign, refuse_image, side_of, spool_diff, spool_made,
    target_footer,
};
pub use empty::EmptyDisk;
#[cfg(feature = "azure")]
pub use far::{
    BlobApplied, BlobApply, BlobImage, BlobPoint, GrownBlob, NewBlobImage, NewBlobImageOptions,
    NewBlobPoint, NewManagedDisk, PointNote, apply_to_blob, apply_to_new_blob, begin_blob,
    changed_tags, check_blob, grow_blob, remove_blob_points, roll_back_blob, set_blob_tags,
    settle_blob, unfinished, upload_disk,
};
pub use fetched::{Begun, FetchedFrom, fetched_path};
pub use format::{Format, FormatChoice};
pub use inside::vhd_inside;
pub use kept::Stamping;
pub use merge::{MergeOptions, Merged, merge};
pub use open::{Mapped, MappedExtents, OpenImage, beginning_of, open_image};
pub use opened::Opened;
pub use options::{OpenOptions, ParentOptions};
pub use parents::MAX_CHAIN;
pub use pending::{STATE_FOLDER, journal_path, keep_journals_of_devices_in, refuse_pending};
pub use rebase::{Compared, RebaseOptions, Rebased, rebase};
pub use relatives::{Children, Orphans, names_of};
pub use repair::{Repaired, check_file, repair, take_back};
pub use resize::{GptBackup, ResizeOptions, Resized, plan_gpt, resize};
pub use split::is_named_part;
pub use state::{FoundStamp, STATE_ATTRIBUTE, StateStamp, find_stamp, set_stamp};
pub use tree::{Found, Link, Node, Tree, TreeOptions, tree};
pub use windows::{Behind, ImageWindows, open_windows, write_windows};
