//! Diffs: compare two images, carry what changed in a checked file or pipe, apply it.
