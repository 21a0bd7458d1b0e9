//! Disk types.

use std::fmt;

/// `footer.disk_type`: how the virtual disk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskType {
    /// All data contiguously, then the footer (2).
    Fixed,
    /// Blocks, stored where data was written (3).
    Dynamic,
    /// Like dynamic, on top of a parent (4).
    Differencing,
    /// 0 (none), 1, 5 and 6 (deprecated), or a value unknown to the specification.
    Other(u32),
}

impl DiskType {
    /// The type stored as `value`.
    pub const fn from_u32(value: u32) -> Self {
        match value {
            2 => Self::Fixed,
            3 => Self::Dynamic,
            4 => Self::Differencing,
            other => Self::Other(other),
        }
    }

    /// The stored value.
    pub const fn to_u32(self) -> u32 {
        match self {
            Self::Fixed => 2,
            Self::Dynamic => 3,
            Self::Differencing => 4,
            Self::Other(value) => value,
        }
    }

    /// Returns whether the disk is stored in blocks located by a BAT.
    pub const fn is_sparse(self) -> bool {
        matches!(self, Self::Dynamic | Self::Differencing)
    }
}

impl fmt::Display for DiskType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed => f.write_str("fixed"),
            Self::Dynamic => f.write_str("dynamic"),
            Self::Differencing => f.write_str("differencing"),
            Self::Other(0) => f.write_str("none (0)"),
            Self::Other(value @ (1 | 5 | 6)) => write!(f, "deprecated ({value})"),
            Self::Other(value) => write!(f, "unknown ({value})"),
        }
    }
}
