//! Page blobs: disks at a storage service, or at whatever speaks as it does.
//!
//! [`BlobName`] is what a person types, [`Credential`] what gives access, [`PageStore`] what the service can be asked,
//! [`Rest`] the service over HTTP, and [`BlobFile`] a blob as [storage](crate::storage): an image, a VHD or a raw disk, on
//! top of it is like one in a file.
//!
//! Nothing that gives access is shown by any `Debug` or message.

mod access;
mod checksum;
mod connect;
mod credential;
mod failure;
mod file;
mod http;
mod lease;
mod list;
pub mod memory;
mod name;
mod pages;
mod rest;
mod retry;
mod secret;
mod sign;
mod store;
mod times;
mod token;
mod writer;

pub use access::Access;
pub use checksum::{Checksum, crc64};
pub use connect::Connector;
pub use credential::{Credential, Lookup};
pub use failure::{Done, Failure};
pub use file::{BlobFile, DEPTH, NewBlobFile};
pub use http::{Http, Route, Traffic};
pub use name::{BlobName, Endpoint};
pub use rest::Rest;
pub use retry::{Attempts, Clock, PATIENCE, Retry, SystemClock};
pub use secret::Secret;
pub use sign::AccountKey;
pub use store::{
    Answer, BlobId, BlobKind, Blobs, BlobsAsked, Changed, Conditions, Deleted, Lease, Listed,
    MAX_BLOB, MAX_PUT, Metadata, NewBlob, PageStore, Pages, PagesAsked, Properties, Sequence,
    Since,
};
