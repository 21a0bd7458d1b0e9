//! How files are read: the one place where that is decided.

/// How a [`File`](super::File) is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoPolicy {
    /// Whether large reads go through the page cache.
    pub caching: Caching,
    /// Whether to read holes too, as if the file system could be wrong about them.
    pub ignore_holes: bool,
}

/// The way of large reads. Small ones always go through the page cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Caching {
    /// Through the page cache.
    #[default]
    Buffered,
    /// From the device where the page cache doesn't have it, and without leaving it there.
    Auto,
    /// From the device, where file system and device can.
    Direct,
}
