//! Snapshots of a managed disk as points in time of a store: what the store lacks is brought to it in the order of creation,
//! each point by what the service lists as changed since the one before.
//!
//! | file | has |
//! | --- | --- |
//! | `target.rs` | [`PointTarget`], where points are brought to, and the folder of a store as one |
//! | `far.rs` | a store on a service as a target |
//! | `plan.rs` | which snapshots a target lacks, and how each is brought |
//! | `bring.rs` | bringing them |

mod bring;
mod far;
mod plan;
mod target;

pub use bring::{BroughtPoint, Needed, bring, needed};
pub use far::FarTarget;
pub use plan::{Step, Way, plan};
pub use target::{AddedPoint, FolderTarget, HeldPoint, PointTarget, SNAPSHOT_ID};
