//! The steps of remedies.

use std::path::PathBuf;

/// Something that can be done about a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// To begin the same work again with another choice.
    Choose(Choice),
    /// To use this part of the program, on whatever it helps with.
    Use(Tool),
    /// To do this with the file.
    Do(Act, PathBuf),
    /// To have parents looked for in this folder too.
    SearchParentIn(PathBuf),
    /// To have a differencing VHD name another file as its parent.
    Rebase {
        /// The differencing VHD.
        child: PathBuf,
        /// The new parent; `None` if it isn't known which.
        parent: Option<PathBuf>,
        /// Whether the new parent is believed to hold what the old one held, without comparing them.
        unchecked: bool,
    },
    /// To put the bytes back that a repair replaced.
    TakeRepairBack {
        /// The file of saved bytes.
        saved: PathBuf,
        /// The image that was repaired.
        image: PathBuf,
    },
    /// To take an interrupted apply back.
    RollBack {
        /// The image.
        image: PathBuf,
        /// The folder of its undo journal, if that isn't where it would be looked for.
        journal_folder: Option<PathBuf>,
    },
    /// To finish an interrupted merge; of the child by this name, if that is known.
    FinishMerge(Option<String>),
    /// To list the window hashes of the image again, over the old list.
    ListWindows {
        /// The list.
        list: PathBuf,
        /// The image.
        image: PathBuf,
    },
    /// To unmount what is mounted there when nothing uses it any more.
    UnmountLater(PathBuf),
    /// To do this with a store as a whole.
    Store {
        /// The work.
        job: StoreJob,
        /// The store.
        store: PathBuf,
    },
    /// To do this with a disk in a store.
    Snapshot {
        /// The work.
        job: SnapshotJob,
        /// The store and the name of the disk, if it is known which.
        of: Option<(PathBuf, String)>,
    },
}

/// A limit of a service for disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// The smallest managed disk: 20 MiB.
    SmallestManagedDisk,
    /// The largest managed disk that can be uploaded: 32767 GiB.
    LargestManagedDisk,
    /// The largest disk, in whole MiB, that a page blob holds together with a footer.
    LargestPageBlob,
}

/// How the bytes of an image are taken, whatever its footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadAs {
    /// As the disk itself, a footer among them.
    Raw,
    /// As a fixed VHD.
    Fixed,
    /// As a dynamic VHD.
    Dynamic,
    /// As a differencing VHD.
    Differencing,
}

/// How an image is copied into a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Conversion {
    /// Whether the result fits Azure.
    pub azure: bool,
    /// Whether a damaged image is read as far as it goes, with the data between a disk and its footer.
    pub salvage: bool,
    /// How it is read, if not as it says itself.
    pub read_as: Option<ReadAs>,
    /// Whether the result is a fixed VHD.
    pub to_fixed: bool,
}

impl Conversion {
    /// To whatever the name of the new file says.
    pub const PLAIN: Self = Self {
        azure: false,
        salvage: false,
        read_as: None,
        to_fixed: false,
    };

    /// As far as a damaged image goes.
    pub const SALVAGE: Self = Self {
        salvage: true,
        ..Self::PLAIN
    };

    /// To what Azure takes.
    pub const AZURE: Self = Self {
        azure: true,
        ..Self::PLAIN
    };

    /// Of an image that is read in this way.
    pub const fn reading(read_as: ReadAs) -> Self {
        Self {
            read_as: Some(read_as),
            ..Self::PLAIN
        }
    }
}

/// Work on one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// To list all that is wrong with an image.
    Check,
    /// To repair an image without loss.
    Repair,
    /// The file beside an image in which a repair keeps what it replaces.
    SavedBytes,
    /// To copy an image into a new file beside it.
    Convert(Conversion),
    /// To copy an image into a new file of some name.
    Copy,
    /// To convert an image to a raw disk, and that to a VHD, which has a unique id of its own.
    GiveId,
    /// To convert an image to a raw file, which is the VHD within its virtual disk, of this length if that isn't all of
    /// the disk.
    TakeOut(Option<u64>),
    /// To give a disk this size in bytes.
    Resize(u64),
    /// To give a disk the size that a service takes.
    ResizeTo(Limit),
    /// To show what a diff changes.
    Show,
    /// To take a stream of snapshots into a store.
    Receive,
}

/// Work on a store as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreJob {
    /// To make a folder a store.
    Init,
    /// To bring it to the newest version.
    Upgrade,
    /// To add a disk to it.
    AddDisk,
    /// To make a folder an encrypted store.
    InitEncrypted,
    /// To give it another passphrase.
    Passphrase,
}

/// Work on a disk in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotJob {
    /// To add a snapshot, in a new store if need be.
    Create,
    /// To list the snapshots.
    List,
    /// To look for damage.
    Verify {
        /// Whether all data is read.
        read_data: bool,
    },
    /// To repair it.
    Repair,
    /// To delete a snapshot; `None`: whichever.
    Delete {
        /// The snapshot.
        name: Option<String>,
        /// Whether it is the last one of the disk.
        last: bool,
    },
    /// To send snapshots, those after this one.
    Send {
        /// The snapshot that the other side has already.
        after: Option<String>,
    },
    /// To learn where a receiver stands.
    Status {
        /// Whether with the window hashes.
        windows: bool,
    },
    /// To make an image of a snapshot.
    Restore,
    /// To copy the disk to another store.
    Copy {
        /// That store.
        to: PathBuf,
    },
    /// To store the first snapshot of the disk as what differs from a snapshot of another disk, or as all of the disk.
    Rebase {
        /// The snapshot of the other disk; `None` for all of the disk.
        like: Option<String>,
    },
}

macro_rules! listed {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$of])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
        }
    };
}

listed! {
    /// A choice of whoever begins a work.
    Choice {
        /// To replace what is there.
        Overwrite,
        /// To go on although an image may have children that couldn't be looked at.
        IgnoreUnreadChildren,
        /// To go on although children of an image are lost by it.
        LoseChildren,
        /// The file with the key of an encrypted store.
        KeyFile,
        /// The file with the passphrase of an encrypted store.
        PassphraseFile,
        /// To copy from an encrypted store to one that isn't.
        Unencrypted,
        /// The file that is the parent.
        Parent,
        /// The parent that was named.
        NamedParent,
        /// A folder in which parents are.
        ParentFolder,
        /// To take a raw image as a parent.
        RawParent,
        /// The file that is the parent until now.
        OldParent,
        /// To cut data off the end of a disk.
        AllowDataLoss,
        /// To move the backup of a partition table.
        MoveGpt,
        /// To read the image as a raw disk.
        AsRaw,
        /// To read the image as a fixed VHD.
        AsFixed,
        /// To read the image as a differencing VHD.
        AsDifferencing,
        /// How much of a base is checked.
        BaseCheck,
        /// To check all of a base.
        CheckWholeBase,
        /// To check only what is under the changed pages.
        CheckTouched,
        /// To make a diff without content digests.
        NoDigests,
        /// How an image is changed in place.
        InPlace,
        /// To change an image itself, with an undo journal.
        InPlaceByJournal,
        /// To keep the way back of an apply.
        KeepUndo,
        /// The folder of the undo journals of devices.
        JournalFolder,
        /// To remove the child after a merge.
        DeleteChild,
        /// To make files without holes.
        Dense,
        /// The format of what is written.
        OutputFormat,
        /// To write a raw image.
        OutputRaw,
        /// The store.
        Store,
        /// The name of the disk in the store.
        Disk,
        /// The time of a snapshot.
        Time,
        /// A point in time to read.
        AtTime,
        /// A store that has what is missing.
        FromStore,
        /// An image that holds what a snapshot held.
        FromImage,
        /// To give up snapshots that can't be repaired.
        Drop,
        /// To delete the last snapshot of a disk too.
        DeleteLast,
        /// To take snapshots of a time that is yet to come.
        AcceptFuture,
        /// The snapshot after which the sending begins.
        After,
        /// Where the receiver stands, from stdin.
        AfterStatus,
        /// The name of the new image.
        Output,
    }
}

listed! {
    /// A part of the program.
    Tool {
        /// Makes diffs.
        Diff,
        /// Applies diffs.
        Apply,
        /// Shows what an image is.
        Info,
        /// Checks images.
        Check,
        /// Repairs images.
        Repair,
        /// Puts back what a repair replaced.
        TakeRepairBack,
        /// Copies images, to other formats too.
        Convert,
        /// Makes a child of an image.
        CreateChild,
        /// Shows which image has which parent.
        Tree,
        /// Merges a child from the middle of a chain into an image of its own.
        MergeMiddle,
        /// Lists the hashes of an image's windows.
        ListWindows,
        /// Serves a point in time without a mount.
        Serve,
    }
}
