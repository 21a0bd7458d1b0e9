//! The VHD format: one file per on-disk structure, and the image built of them.
