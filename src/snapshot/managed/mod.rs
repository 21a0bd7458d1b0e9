//! Snapshots of a managed disk as points in time of a store: what the store lacks is brought to it in the order of creation,
//! each point by what the service lists as changed since the one before.
//!
//! | file | has |
//! | --- | --- |
//! | `target.rs` | [`PointTarget`], where points are brought to, and the folder of a store as one |
//! | `far.rs` | a store on a service as a target |
//! | `plan.rs` | which snapshots a target lacks, and how each is brought |
//! | `bring.rs` | bringing them |
//! | `regional.rs` | which ones the service should copy to a region itself |

mod bring;
mod far;
mod plan;
mod regional;
mod target;

pub use bring::{BroughtPoint, Needed, bring, needed, still_there};
pub use far::FarTarget;
pub use plan::{Step, Way, plan};
pub use regional::{RegionalStep, copy_failed, plan_regional};
pub use target::{AddedPoint, FolderTarget, HeldPoint, PointTarget, SNAPSHOT_ID};
