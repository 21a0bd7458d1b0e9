//! What kinds of errors there are: what a program decides by.

/// The kind of an [`Error`](super::Error).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request makes no sense.
    Usage,
    /// The operating system reported an error: no such file, no permission, disk full.
    Io,
    /// The input violates its format.
    Damaged,
    /// The input may be valid, but its kind or version isn't supported.
    Unsupported,
    /// The diff doesn't fit this base.
    Mismatch,
    /// The image is in use by someone else.
    Locked,
    /// An interrupted apply has to be finished or undone first.
    Pending,
    /// An input changed while it was being read.
    Changed,
    /// The user stopped the work.
    Interrupted,
    /// A fault of this crate: something happened that its own rules exclude (exit code 2).
    Internal,
}

impl ErrorKind {
    /// The name of the kind in lower case: `usage`, `io`, `damaged`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Io => "io",
            Self::Damaged => "damaged",
            Self::Unsupported => "unsupported",
            Self::Mismatch => "mismatch",
            Self::Locked => "locked",
            Self::Pending => "pending",
            Self::Changed => "changed",
            Self::Interrupted => "interrupted",
            Self::Internal => "internal",
        }
    }
}

/// The reason for an error, where callers have to distinguish more than its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A chain of parents contains a loop.
    ParentsInCircle,
    /// A chain of parents is too long.
    TooManyParents,
    /// There is no parent in any of the places where one may be.
    ParentNotFound,
    /// What was taken for the parent is another disk.
    WrongParent,
    /// The content is not what its digest says.
    WrongContent,
    /// A check found this: the stable id of its rule.
    Finding(&'static str),
}

impl Reason {
    /// A stable name: the id of the rule by which `vhd check` reports the same.
    pub const fn id(self) -> &'static str {
        match self {
            Self::ParentsInCircle => "parent-loop",
            Self::TooManyParents => "chain-depth",
            Self::ParentNotFound => "parent-missing",
            Self::WrongParent => "parent-mismatch",
            Self::WrongContent => "wrong-content",
            Self::Finding(id) => id,
        }
    }
}
