//! How files are read, and whether new ones may replace others.

/// How a [`File`](super::File) is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoPolicy {
    /// Whether large reads go through the page cache.
    pub caching: Caching,
    /// Whether to read holes too, as if the file system could be wrong about them.
    pub ignore_holes: bool,
}

/// How large reads are made. Small ones always go through the page cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Caching {
    /// Through the page cache.
    #[default]
    Buffered,
    /// From the device where the page cache doesn't have the data, and without adding it to the cache.
    Auto,
    /// From the device, if file system and device support direct I/O.
    Direct,
}

/// Whether a new file may replace an existing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Replace the existing file.
    Yes,
    /// Replace the existing file even if it is an image that other images have as their parent.
    EvenAParent,
    /// Keep the existing file and fail.
    No,
}
