//! Applying diffs to a base: to a new image, to a pipe, or in place.
//!
//! | file | has |
//! | --- | --- |
//! | `options.rs` | the options, and the outcome |
//! | `write.rs` | writing what a chain of diffs changes, and checking the result |
//! | `base_match.rs` | whether a chain is for a given base |
//! | `new.rs` | applying to a new image, a clone, a child or a pipe |
//! | `in_place/` | applying to the base itself |

pub(super) mod base_match;
pub(super) mod in_place;
pub(super) mod new;
pub(super) mod options;
pub(super) mod write;

pub use in_place::InPlace;
pub use in_place::{apply_in_place, apply_made_in_place, roll_back};
pub use new::{
    apply_to_child, apply_to_clone, apply_to_image, apply_to_new, apply_to_pipe, format_of_result,
};
pub use options::{Applied, ApplyOptions, BaseChecked, Output, Strategy};
