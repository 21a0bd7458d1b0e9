//! Points in time: a store keeps a base image of each disk and one diff for each later snapshot.
//!
//! ```text
//! STORE/DISK/  000001-mon.vhd      000001-mon.json      the base, and what is known of it
//!              000002-tue.vhddiff  000002-tue.json      what changed since, and so on
//!              newest.windows                           window hashes of the newest snapshot
//!              lock
//! ```
//!
//! `docs/store-format.md` describes the files so that they can be used without this module. A [`PointImage`] presents
//! any point in time as an image, which works wherever an image is read.

mod base;
mod beside;
mod between;
mod cloud_list;
mod copy;
mod create;
mod delete;
mod disk;
mod doubts;
mod family;
#[cfg(feature = "azure")]
mod far;
mod file_names;
mod ground;
mod history;
mod holder;
mod incoming;
mod intent;
mod layout;
mod lock;
#[cfg(feature = "azure")]
mod managed;
mod manifest;
mod marked;
mod marker;
mod marks;
mod name;
mod packed;
mod partial;
mod plain;
mod point;
mod points;
mod propose;
mod prune;
mod rebase;
mod receive;
mod recovery;
mod remedies;
mod rename;
mod repair;
mod restore;
mod retention;
mod seen;
mod send;
mod settle;
mod sparse_chunks;
mod standing;
mod stream;
mod take_back;
mod time;
mod upgrade;
mod vault;
mod verify;
mod windows;

pub use crate::parallel::Work;
pub use base::BaseForm;
pub use beside::{open_beside, verify_beside};
pub use between::Between;
pub use cloud_list::{CloudLimit, CloudSnapshot, LONGEST_LIST, families, limits, read_cloud_list};
pub use copy::{Copied, CopiedPoint, copy_disk, copy_disks, to_copy, would_copy};
pub use create::{Created, NewPoint, add_diff, create};
pub use delete::{Deleted, delete, delete_held};
pub use disk::{Access, Disk, Writer};
pub use doubts::Doubt;
pub use family::Family;
#[cfg(feature = "azure")]
pub use far::{
    Added, Container, FarCopied, FarCopiedPoint, FarDisk, FarEnd, FarPoint, FarStore, FarWanted,
    NewFarPoint, check_far_content, copy_across, copy_in, copy_out, decide_far, verify_far,
    would_copy_far,
};
pub use ground::{Dependant, OtherPoint, like_of};
pub use holder::{Holder, call_this_command};
pub use layout::PointFileName;
#[cfg(feature = "azure")]
pub use managed::{
    AddedPoint, BroughtPoint, FarTarget, FolderTarget, HeldPoint, Needed, PointTarget,
    RegionalStep, SNAPSHOT_ID, Step as ManagedStep, Way, bring, copy_failed, needed, plan,
    plan_regional, still_there,
};
pub use manifest::{Data, DataKind, Like, Manifest, Origin, SCHEMA_VERSION, State};
pub use marked::{
    ENCRYPTED_VERSION, Encryption, KEY_FILE, KeyPlace, LIKE_VERSION, MARKER, Marker, STORE_VERSION,
    is_encrypted,
};
pub use marker::{
    Protection, disks, init, init_encrypted, init_if_none, store_version, upgrade_marker,
};
pub use marks::{HOLD, change_tags, refuse_held};
pub use name::{check_disk_name, check_name};
pub use point::PointImage;
pub use propose::{Proposal, propose};
pub use prune::{Decision, Pruned, decide, prune};
pub use rebase::{Rebased, rebase_disk};
pub use receive::{Future, Received, receive, receive_when_free};
pub use rename::rename_point;
pub use repair::{
    RepairSources, Repaired, RepairedDisk, TakenBack, repair, set_aside_intent,
    take_back as take_back_damaged,
};
#[cfg(feature = "azure")]
pub use restore::restore_in_place_claimed;
pub use restore::{
    Restored, check_content, restore, restore_in_place, restore_to_child, write_image,
};
pub use retention::{Amount, Candidate, Policy, TagRule, Within};
pub use send::{After, Outgoing, Sent, Span, send};
pub use standing::{ReceiverState, Standing, write_standing};
pub use stream::{Record, StreamReader, StreamWriter};
pub use time::Time;
pub use upgrade::{Upgraded, upgrade};
pub use vault::{
    KeyRequest, StoreKey, ask_for_keys, change_passphrase, open_for_passphrase, use_key,
};
pub use verify::{Finding, ReadData, Verified, verify};
