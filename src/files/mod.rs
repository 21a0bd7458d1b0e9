//! Images and diffs as files: probe and open, create, apply in place or anew.
