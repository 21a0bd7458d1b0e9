//! What a page-blob service can be asked: one request per method.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::BlobName;
use super::failure::Failure;
use crate::page::{PageList, PageRange};

/// Largest number of bytes that one [`put_pages`](PageStore::put_pages) takes.
pub const MAX_PUT: u64 = 4 << 20;

/// Largest page blob: 8 TiB.
pub const MAX_BLOB: u64 = 8 << 40;

/// The outcome of one request.
pub type Answer<T> = std::result::Result<T, Failure>;

/// A blob of a container, or a snapshot of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId {
    /// The name of the blob.
    pub name: String,
    /// The time that a snapshot is known by.
    pub snapshot: Option<String>,
}

impl BlobId {
    /// The blob itself.
    pub fn live(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            snapshot: None,
        }
    }

    /// The snapshot of that time.
    #[must_use]
    pub fn at(&self, time: impl Into<String>) -> Self {
        Self {
            name: self.name.clone(),
            snapshot: Some(time.into()),
        }
    }
}

/// Names and values that a blob or a snapshot carries, in the order of the names.
pub type Metadata = std::collections::BTreeMap<String, String>;

/// What must be so, or the request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// The blob is unchanged since it had this `ETag`.
    pub etag: Option<String>,
    /// There is no such blob.
    pub absent: bool,
    /// The lease that the caller holds.
    pub lease: Option<String>,
    /// The sequence number of the blob is at most this.
    pub sequence_at_most: Option<u64>,
}

/// What kind of blob it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobKind {
    /// Made of pages, which can be written and listed.
    Page,
    /// Made of blocks: can only be read.
    Other,
}

/// What is known of a blob without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// Bytes.
    pub size: u64,
    /// Changes with every write.
    pub etag: String,
    /// When it was last changed, as the service writes it.
    pub last_modified: Option<String>,
    /// What kind of blob.
    pub kind: BlobKind,
    /// The number that writes can be made to depend on.
    pub sequence: u64,
    /// Whether somebody holds a lease.
    pub leased: bool,
    /// What it carries.
    pub metadata: Metadata,
}

/// What a request that changed a blob made of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    /// The new `ETag`.
    pub etag: Option<String>,
    /// The sequence number, where it is told.
    pub sequence: Option<u64>,
}

/// A blob to be made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewBlob {
    /// Bytes, a whole number of pages.
    pub size: u64,
    /// Its first sequence number.
    pub sequence: u64,
    /// What it carries.
    pub metadata: Metadata,
}

/// A change of the sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// To this number, unless it is higher already.
    AtLeast(u64),
    /// To this number.
    Set(u64),
    /// One more.
    Next,
}

/// What a list of changes is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// An earlier snapshot of the same blob, by its time.
    Snapshot(String),
    /// An earlier snapshot of the same managed disk, by the address that access to it was granted by.
    Disk(Box<BlobName>),
}

/// Which pages to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PagesAsked {
    /// Only in this range.
    pub within: Option<PageRange>,
    /// Only what changed since; else all that hold data.
    pub since: Option<Since>,
    /// Where the last answer ended.
    pub marker: Option<String>,
    /// So many ranges at most; the service gives 10,000 at most in any case.
    pub max: Option<u32>,
}

/// A part of a list of pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pages {
    /// Those that hold data are updates, those that were cleared are clears.
    pub list: PageList,
    /// Where to go on, if this isn't all.
    pub marker: Option<String>,
    /// The size of the blob, where it is told.
    pub size: Option<u64>,
}

/// What to do with a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// Take it for so long (15 to 60 seconds, `None` for ever) under this id.
    Acquire(String, Option<Duration>),
    /// Hold it for as long again.
    Renew(String),
    /// Give it back.
    Release(String),
    /// Take it away from whoever has it.
    Break,
}

/// Which of a blob and its snapshots are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The named one alone; a blob that has snapshots is refused.
    Itself,
    /// The blob with its snapshots.
    WithSnapshots,
}

/// Which blobs to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlobsAsked {
    /// Only those whose names begin so.
    pub prefix: String,
    /// Their snapshots, too.
    pub snapshots: bool,
    /// Where the last answer ended.
    pub marker: Option<String>,
    /// So many at most.
    pub max: Option<u32>,
}

/// A blob or a snapshot of one in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub id: BlobId,
    /// What is known of it.
    pub properties: Properties,
}

/// A part of a list of blobs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blobs {
    /// In the order of the service, which is no promise.
    pub list: Vec<Listed>,
    /// Where to go on, if this isn't all.
    pub marker: Option<String>,
}

/// A container of page blobs. Each method is one request; nothing is tried twice.
///
/// # Contract
///
/// * Calls may come from many threads at once.
/// * A [`Failure`] says if the request may have been carried out all the same.
/// * No error and no `Debug` output holds a signature, key or token.
pub trait PageStore: Send + Sync + fmt::Debug {
    /// What messages call a blob.
    fn shown(&self, blob: &BlobId) -> PathBuf;

    /// Whether this is a managed disk: no conditions, leases, snapshots or metadata.
    fn is_managed_disk(&self) -> bool {
        false
    }

    /// Asks for size, `ETag` and metadata.
    fn properties(&self, blob: &BlobId) -> Answer<Properties>;

    /// Makes a page blob of zeros, or replaces one.
    fn create(&self, blob: &BlobId, new: &NewBlob, only_if: &Conditions) -> Answer<Changed>;

    /// Cuts or extends a blob.
    fn resize(&self, blob: &BlobId, size: u64, only_if: &Conditions) -> Answer<Changed>;

    /// Replaces the metadata.
    fn set_metadata(
        &self,
        blob: &BlobId,
        metadata: &Metadata,
        only_if: &Conditions,
    ) -> Answer<Changed>;

    /// Changes the sequence number.
    fn set_sequence(
        &self,
        blob: &BlobId,
        sequence: Sequence,
        only_if: &Conditions,
    ) -> Answer<Changed>;

    /// Writes whole pages, [`MAX_PUT`] bytes at most.
    fn put_pages(
        &self,
        blob: &BlobId,
        offset: u64,
        data: &[u8],
        only_if: &Conditions,
    ) -> Answer<Changed>;

    /// Makes pages read as zeros without storing them.
    fn clear_pages(&self, blob: &BlobId, range: PageRange, only_if: &Conditions)
    -> Answer<Changed>;

    /// Fills `buf` from `offset`.
    fn read(&self, blob: &BlobId, offset: u64, buf: &mut [u8], only_if: &Conditions) -> Answer<()>;

    /// Lists pages that hold data, or that changed.
    fn pages(&self, blob: &BlobId, asked: &PagesAsked, only_if: &Conditions) -> Answer<Pages>;

    /// Takes a snapshot, which carries `metadata` if there is any, else the blob's; gives its time.
    fn snapshot(&self, blob: &BlobId, metadata: &Metadata, only_if: &Conditions) -> Answer<String>;

    /// Takes, holds or ends a lease.
    fn lease(&self, blob: &BlobId, lease: &Lease) -> Answer<()>;

    /// Deletes a blob or a snapshot.
    fn delete(&self, blob: &BlobId, what: Deleted, only_if: &Conditions) -> Answer<()>;

    /// Lists blobs.
    fn blobs(&self, asked: &BlobsAsked) -> Answer<Blobs>;

    /// Makes the container. One that is there already is a failure with the code `ContainerAlreadyExists`.
    fn create_container(&self) -> Answer<()>;
}
