//! The bodies of the fuzz targets: functions of bytes that fail when a promise is broken.
//!
//! The fuzz programs in `bins` call them with made-up input, `tests/formats/corpus.rs` with the kept input.

pub mod bat;
pub mod bitmap;
pub mod chain;
pub mod check;
pub mod compare;
pub mod diff;
pub mod diff_sealed;
pub mod disk;
pub mod footer;
pub mod forge;
pub mod header;
pub mod image;
pub mod image_sealed;
pub mod input;
pub mod inside;
pub mod layers;
pub mod locator;
pub mod manifest;
pub mod squash;
pub mod stream;

/// A target's body.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Target); 17] = [
    ("footer", footer::run),
    ("header", header::run),
    ("locator", locator::run),
    ("bat", bat::run),
    ("bitmap", bitmap::run),
    ("image", image::run),
    ("image_sealed", image_sealed::run),
    ("chain", chain::run),
    ("check", check::run),
    ("diff", diff::run),
    ("diff_sealed", diff_sealed::run),
    ("layers", layers::run),
    ("compare", compare::run),
    ("squash", squash::run),
    ("stream", stream::run),
    ("manifest", manifest::run),
    ("inside", inside::run),
];
