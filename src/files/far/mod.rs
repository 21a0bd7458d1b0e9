//! Images in page blobs.
//!
//! | file | has |
//! | --- | --- |
//! | `marks.rs` | what a blob's metadata says of the image in it: whole, being written, being changed |
//! | `image.rs` | reading an image in a blob, checking it, and where two are the same |
//! | `new.rs` | writing an image to a new blob |
//! | `snapshots.rs` | the blob snapshots of an image: finding them, and one that holds what the blob holds now |
//! | `bring.rs` | bringing a blob to what an image holds, by writing what differs |
//! | `change.rs` | changing an image in a blob that is marked, and taking that back |
//! | `apply.rs` | applying diffs to an image in a blob |
//! | `points.rs` | what the snapshots of a blob say of themselves as points in time |
//! | `grow.rs` | adding a point in time to a blob |
//! | `since.rs` | what was written to a blob since its newest snapshot |
//! | `fill.rs` | writing ranges of an image to a blob |
//! | `remove.rs` | deleting points in time of a blob |
//! | `tags.rs` | tags that were changed after a snapshot was taken |
//! | `ranges.rs` | sets of ranges |

mod apply;
mod bring;
mod change;
mod fill;
mod grow;
mod image;
mod marks;
mod new;
mod points;
mod ranges;
mod remove;
mod since;
mod snapshots;
mod tags;

pub use apply::{BlobApplied, BlobApply, apply_to_blob, apply_to_new_blob, roll_back_blob};
pub use grow::{GrownBlob, NewBlobPoint, begin_blob, grow_blob};
pub use image::{BlobImage, check_blob};
pub use new::{NewBlobImage, NewBlobImageOptions};
pub use points::{BlobPoint, PointNote, unfinished};
pub use remove::{remove_blob_points, settle_blob};
pub use tags::{changed_tags, set_blob_tags};
