//! Managed disks and their snapshots, by the resource manager of the cloud.
//!
//! | file | has |
//! | --- | --- |
//! | `name.rs` | names that a person types: `azure:GROUP/NAME`, resource ids |
//! | `endpoint.rs` | which resource manager, and which tokens it takes |
//! | `refusal.rs` | errors of the service, and what to do about them |
//! | `api.rs` | one request and its answer |
//! | `operation.rs` | requests that take long, in every form of their answers |
//! | `resource.rs` | a disk or snapshot as the service describes it |
//! | `ledger.rs` | access that was granted and not yet taken back, on stable storage |
//! | `grant.rs` | access to the bytes of a disk or snapshot, for as long as it is used |
//! | `granted.rs` | a disk or snapshot to which access was granted, as a page blob |
//! | `manager.rs` | [`Cloud`]: what can be done with disks and snapshots |
//! | `family.rs` | the snapshots of one disk, in order |
//! | `rights.rs` | what the identity may do |

mod api;
mod endpoint;
mod family;
mod grant;
mod granted;
mod ledger;
mod manager;
mod name;
mod operation;
mod refusal;
mod resource;
mod rights;

pub use family::Family;
pub use grant::Access;
pub use manager::{Cloud, NewDisk, NewSnapshot};
pub use name::{ResourceKind, ResourceName};
pub use resource::Resource;
pub use rights::Rights;
