//! Images in page blobs.
//!
//! | file | content |
//! | --- | --- |
//! | `marks.rs` | the state of the image in a blob's metadata: complete, being written, being changed |
//! | `image.rs` | reading an image in a blob, checking it, and finding where two are equal |
//! | `new.rs` | writing an image to a new blob |
//! | `disk.rs` | writing an image to a new managed disk |
//! | `snapshots.rs` | the blob snapshots of an image: finding them, and the one with the current content |
//! | `bring.rs` | making a blob equal to an image, by writing the differences |
//! | `change.rs` | changing an image in a marked blob, and undoing that |
//! | `apply.rs` | applying diffs to an image in a blob |
//! | `points.rs` | the metadata of a blob's snapshots as points in time |
//! | `grow.rs` | adding a point in time to a blob |
//! | `since.rs` | the ranges of a blob written since its newest snapshot |
//! | `fill.rs` | writing ranges of an image to a blob |
//! | `remove.rs` | deleting points in time of a blob |
//! | `tags.rs` | tags that were changed after a snapshot was taken |
//! | `ranges.rs` | sets of ranges |

mod apply;
mod bring;
mod change;
mod disk;
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
pub use disk::{NewManagedDisk, upload_disk};
pub use grow::{GrownBlob, NewBlobPoint, begin_blob, grow_blob};
pub use image::{BlobImage, check_blob};
pub use new::{NewBlobImage, NewBlobImageOptions};
pub use points::{BlobPoint, PointNote, unfinished};
pub use remove::{remove_blob_points, settle_blob};
pub use tags::{changed_tags, set_blob_tags};
