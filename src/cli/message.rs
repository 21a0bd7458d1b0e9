//! Messages: what kinds there are, and the ids by which scripts tell them apart.

use std::fmt::Display;

use serde::Serialize;

use super::remedy;
use crate::error::Error;

/// The label of a message, with the id by which scripts tell it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    Note,
    Warning(&'static str),
    /// That didn't end the command.
    Error(&'static str),
}

impl Label {
    /// How people and scripts see it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning(_) => "warning",
            Self::Error(_) => "error",
        }
    }

    /// The id; notes have none.
    pub(crate) const fn id(self) -> Option<&'static str> {
        match self {
            Self::Note => None,
            Self::Warning(id) | Self::Error(id) => Some(id),
        }
    }
}

/// A warning, with advice on a separate line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Warning {
    pub(crate) id: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Warning {
    pub(crate) fn new(topic: Topic, text: impl Display) -> Self {
        Self {
            id: topic.id(),
            message: text.to_string(),
            hint: None,
        }
    }

    /// Warns of an error that doesn't prevent the work.
    pub(crate) fn of(error: &Error) -> Self {
        Self {
            id: error.id(),
            message: error.to_string(),
            hint: remedy::hint(error),
        }
    }
}

/// Declares the topics with their ids.
macro_rules! topics {
    ($($(#[$doc:meta])* $topic:ident: $id:literal,)+) => {
        /// The topic of a warning that doesn't come from an error.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Topic {
            $($(#[$doc])* $topic,)+
        }

        impl Topic {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$topic,)+];

            /// The id: stable, listed in docs/json.md.
            const fn id(self) -> &'static str {
                match self {
                    $(Self::$topic => $id,)+
                }
            }
        }
    };
}

topics! {
    /// Data of a damaged image is lost.
    DataLost: "data-lost",
    /// Only some of the base was checked.
    BasePartlyChecked: "base-partly-checked",
    /// A replaced file has another owner or other attributes than before.
    MetadataLost: "metadata-lost",
    /// A VHD is larger than Windows opens.
    TooLargeForWindows: "size-windows",
    /// A disk has much less data than in the snapshot before.
    LessData: "less-data",
    /// An image has another format than the one before.
    FormatChanged: "format-changed",
    /// A disk has another size than in the snapshot before.
    SizeChanged: "size-changed",
    /// A VHD has another unique id than the one before.
    UniqueIdChanged: "unique-id-changed",
    /// The time of a snapshot is in the future.
    TimeInFuture: "time-in-future",
    /// A snapshot is older than the newest one in the store.
    TooLate: "too-late",
    /// A snapshot in the cloud isn't complete yet.
    Incomplete: "incomplete",
    /// More snapshots than can have signed links at a time.
    AccessLimit: "access-limit",
    /// A disk has as many snapshots as the service allows.
    SnapshotLimit: "snapshot-limit",
    /// More files couldn't be read than are listed.
    MoreUnread: "more-unread",
    /// A partition table isn't right.
    PartitionTable: "partition-table",
    /// A disk can't be changed while it is served.
    LockHeld: "lock-held",
    /// A disk isn't served.
    NotServed: "not-served",
    /// The old and the new parent weren't compared.
    NothingCompared: "nothing-compared",
    /// Other images are read through the one that changes.
    OtherChildren: "other-children",
    /// A file isn't in the archive.
    LeftOut: "left-out",
    /// The file of a key can be read by others.
    KeyReadable: "key-readable",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_documented_once() {
        let documented = include_str!("../../docs/json.md");
        for topic in Topic::ALL {
            let row = format!("| `{}` |", topic.id());
            assert_eq!(documented.matches(&row).count(), 1, "{row}");
        }
    }
}
