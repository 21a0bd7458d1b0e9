//! Managed disks and their snapshots, by the resource manager of the cloud.
//!
//! | file | content |
//! | --- | --- |
//! | `name.rs` | names on the command line: `azure:GROUP/NAME`, resource ids |
//! | `endpoint.rs` | the resource manager to use, and the tokens that it accepts |
//! | `refusal.rs` | errors of the service, and what to do about them |
//! | `api.rs` | one request and its response |
//! | `operation.rs` | long-running requests, with every form of response |
//! | `resource.rs` | a disk or snapshot as the service describes it |
//! | `ledger.rs` | records, on stable storage, of access not yet revoked |
//! | `grant.rs` | access to the bytes of a disk or snapshot, for as long as it is used |
//! | `granted.rs` | a disk or snapshot to which access was granted, as a page blob |
//! | `manager.rs` | [`Cloud`]: operations on disks and snapshots |
//! | `family.rs` | the snapshots of one disk, in order |
//! | `group.rs` | resource groups |
//! | `copies.rs` | copies of snapshots in other regions |
//! | `rights.rs` | the rights of the identity |

mod api;
mod copies;
mod endpoint;
mod family;
mod grant;
mod granted;
mod group;
mod ledger;
mod manager;
mod name;
mod operation;
mod refusal;
mod resource;
mod rights;

pub use copies::NewCopy;
pub use family::Family;
pub use grant::Access;
pub use group::{Group, GroupName};
pub use manager::{Cloud, NewDisk, NewSnapshot};
pub use name::{ResourceKind, ResourceName};
pub use resource::Resource;
pub use rights::Rights;
