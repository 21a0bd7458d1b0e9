//! Page blobs: disks on a storage service, or on a compatible server.
//!
//! [`BlobName`] is the name that a person types, [`Credential`] the credentials, [`PageStore`] the operations of the
//! service, [`Rest`] the service over HTTP, and [`BlobFile`] a blob as [storage](crate::storage): images on top of it,
//! VHD or raw, work as in a file.
//!
//! No `Debug` output and no message contains credentials.

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
mod plan;
mod points;
mod rest;
mod retry;
mod secret;
mod sign;
mod store;
pub(crate) mod times;
mod token;
mod writer;

pub use access::Access;
pub use checksum::{Checksum, crc64};
pub use connect::Connector;
pub use credential::{Credential, Lookup};
pub use failure::{Done, Failure};
pub use file::{BlobFile, DEPTH, NewBlobFile};
pub(crate) use http::{Call, has_body};
pub use http::{Http, Route, Traffic};
pub use lease::release_leases;
pub use list::page_list;
pub use name::{BlobName, Endpoint};
pub(crate) use name::{decoded, encoded};
pub(crate) use plan::with_gaps;
pub use rest::Rest;
pub use retry::{Attempts, Clock, PATIENCE, Retry, SystemClock};
pub use secret::Secret;
pub use sign::AccountKey;
pub(crate) use sign::{Signed, shared_key};
pub use store::{
    Answer, BlobId, BlobKind, Blobs, BlobsAsked, Changed, Conditions, Deleted, Lease, Listed,
    MAX_BLOB, MAX_PUT, Metadata, NewBlob, PageStore, Pages, PagesAsked, Properties, Sequence,
    Since,
};
pub(crate) use token::Tokens;
