//! The operations of a page-blob service: one request per method.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::BlobName;
use super::failure::Failure;
use crate::page::{PageList, PageRange};

/// The maximum number of bytes in one [`put_pages`](PageStore::put_pages).
pub const MAX_PUT: u64 = 4 << 20;

/// The largest page blob: 8 TiB.
pub const MAX_BLOB: u64 = 8 << 40;

/// The outcome of one request.
pub type Answer<T> = std::result::Result<T, Failure>;

/// A blob of a container, or a snapshot of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId {
    /// The name of the blob.
    pub name: String,
    /// The time that identifies a snapshot.
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

/// Metadata of a blob or a snapshot, ordered by name.
pub type Metadata = std::collections::BTreeMap<String, String>;

/// Conditions under which a request is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// The blob is unchanged since it had this `ETag`.
    pub etag: Option<String>,
    /// The blob doesn't exist.
    pub absent: bool,
    /// The lease that the caller holds.
    pub lease: Option<String>,
    /// The sequence number of the blob is at most this.
    pub sequence_at_most: Option<u64>,
}

/// The kind of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobKind {
    /// Made of pages, which can be written and listed.
    Page,
    /// Made of blocks: can only be read.
    Other,
}

/// Properties of a blob, known without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// Size in bytes.
    pub size: u64,
    /// Changes with every write.
    pub etag: String,
    /// When it was last changed, in the service's format.
    pub last_modified: Option<String>,
    /// The kind of blob.
    pub kind: BlobKind,
    /// The sequence number, on which writes can be conditional.
    pub sequence: u64,
    /// Whether somebody holds a lease.
    pub leased: bool,
    /// Its metadata.
    pub metadata: Metadata,
}

/// The result of a request that changed a blob.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    /// The new `ETag`.
    pub etag: Option<String>,
    /// The sequence number, if it is reported.
    pub sequence: Option<u64>,
}

/// A blob to be created.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewBlob {
    /// Size in bytes, a whole number of pages.
    pub size: u64,
    /// Its first sequence number.
    pub sequence: u64,
    /// Its metadata.
    pub metadata: Metadata,
}

/// A change of the sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// Set it to this number, unless it is higher already.
    AtLeast(u64),
    /// Set it to this number.
    Set(u64),
    /// Increment it.
    Next,
}

/// The reference for a list of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// An earlier snapshot of the same blob, by its time.
    Snapshot(String),
    /// An earlier snapshot of the same managed disk, by the address that grants access to it.
    Disk(Box<BlobName>),
}

/// A request for a list of pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PagesAsked {
    /// Only in this range.
    pub within: Option<PageRange>,
    /// Only what changed since; otherwise all pages that hold data.
    pub since: Option<Since>,
    /// The marker of the previous response.
    pub marker: Option<String>,
    /// The maximum number of ranges; the service returns at most 10,000 in any case.
    pub max: Option<u32>,
}

/// A part of a list of pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pages {
    /// Pages that hold data are updates, cleared ones are clears.
    pub list: PageList,
    /// The marker for the next request, if this isn't everything.
    pub marker: Option<String>,
    /// The size of the blob, if it is reported.
    pub size: Option<u64>,
}

/// An operation on a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// Acquire it for this duration (15 to 60 seconds, `None` for infinite) under this id.
    Acquire(String, Option<Duration>),
    /// Renew it for the same duration.
    Renew(String),
    /// Release it.
    Release(String),
    /// Break it, whoever holds it.
    Break,
}

/// Which of a blob and its snapshots are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// Only the given one; a blob with snapshots is refused.
    Itself,
    /// The blob with its snapshots.
    WithSnapshots,
}

/// A request for a list of blobs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlobsAsked {
    /// Only those with this prefix.
    pub prefix: String,
    /// Include their snapshots.
    pub snapshots: bool,
    /// The marker of the previous response.
    pub marker: Option<String>,
    /// The maximum number.
    pub max: Option<u32>,
}

/// A blob or a snapshot of one in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: BlobId,
    /// Its properties.
    pub properties: Properties,
}

/// A part of a list of blobs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blobs {
    /// In the order of the service, which isn't guaranteed.
    pub list: Vec<Listed>,
    /// The marker for the next request, if this isn't everything.
    pub marker: Option<String>,
}

/// A container of page blobs. Each method is one request, and isn't retried.
///
/// # Contract
///
/// * Methods may be called from many threads at once.
/// * A [`Failure`] tells whether the request may have been carried out nevertheless.
/// * No error and no `Debug` output contains a signature, key or token.
pub trait PageStore: Send + Sync + fmt::Debug {
    /// The name of a blob in messages.
    fn shown(&self, blob: &BlobId) -> PathBuf;

    /// Returns whether this is a managed disk, which supports no conditions, leases, snapshots or metadata.
    fn is_managed_disk(&self) -> bool {
        false
    }

    /// Requests size, `ETag` and metadata.
    fn properties(&self, blob: &BlobId) -> Answer<Properties>;

    /// Creates a page blob of zeros, or replaces one.
    fn create(&self, blob: &BlobId, new: &NewBlob, only_if: &Conditions) -> Answer<Changed>;

    /// Truncates or extends a blob.
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

    /// Writes whole pages, at most [`MAX_PUT`] bytes.
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

    /// Takes a snapshot with `metadata` or, if that is empty, the blob's own. Returns its time.
    fn snapshot(&self, blob: &BlobId, metadata: &Metadata, only_if: &Conditions) -> Answer<String>;

    /// Acquires, renews or ends a lease.
    fn lease(&self, blob: &BlobId, lease: &Lease) -> Answer<()>;

    /// Deletes a blob or a snapshot.
    fn delete(&self, blob: &BlobId, what: Deleted, only_if: &Conditions) -> Answer<()>;

    /// Lists blobs.
    fn blobs(&self, asked: &BlobsAsked) -> Answer<Blobs>;

    /// Creates the container. If it exists, fails with the code `ContainerAlreadyExists`.
    fn create_container(&self) -> Answer<()>;
}
