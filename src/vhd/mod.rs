//! The VHD format: one file per on-disk structure, and the image built from them.
//!
//! ```text
//!   fixed     data ──────────────────────────────────────────────────────── footer
//!   dynamic   footer copy │ dynamic disk header │ BAT │ block │ block │ … │ footer
//!                                                       └─ block bitmap, then data
//!   a differencing disk is stored like a dynamic one; what it doesn't store is read from its parent
//! ```
//!
//! The structures are decoded from and encoded to byte arrays, without I/O and without loss: whatever was found,
//! including reserved bytes and wrong checksums, is preserved byte for byte. Their `verify` functions check validity
//! separately. Numbers are big-endian; 512-byte sectors exist only inside this module.
//!
//! The source is the "Virtual Hard Disk Image Format Specification", version 1.0, quoted as "the specification".
//! `docs/vhd-format.md` describes where actual writers deviate from it and how that is handled here.

mod bat;
mod bitmap;
mod bytes;
mod check;
mod checksum;
mod create;
mod creator;
mod disk_type;
mod dynamic;
mod footer;
mod geometry;
mod glance;
mod header;
mod image;
mod inside;
mod locator;
mod open;
mod parent;
mod probe;
mod relink;
mod repair;
mod resize;
mod salvage;
mod table;
mod timestamp;
mod unique_id;
mod write;

pub use bat::{ABSENT, BatEntry, table_bytes};
pub use bitmap::{Bitmap, Run, bitmap_bytes};
pub use bytes::Field;
pub use check::{
    Advice, ChainLookup, ChainState, CheckOptions, Finding, FoundParent, Kind, LISTED, RULES,
    Report, Rule, Severity, Trouble, Unlisted, check, is_optical_image,
};
pub use checksum::checksum;
pub use create::{CreateOptions, DEFAULT_BLOCK_SIZE};
pub use creator::{CreatorApplication, HostOs, Version};
pub use disk_type::DiskType;
pub use footer::{FOOTER_SIZE, Footer};
pub use geometry::Geometry;
pub use glance::Glance;
pub use header::{DynamicHeader, HEADER_SIZE, MAX_BLOCK_SIZE};
pub use image::{StoredRun, VhdImage};
pub use inside::{Inside, vhd_inside};
pub use locator::{LOCATOR_SIZE, ParentLocator, PlatformCode};
pub use open::ParentPolicy;
pub use parent::{
    NewParent, Parent, ParentPath, ParentRequest, ParentResolver, read_paths, wrong_parent,
};
pub use probe::{FooterPlace, ProbeHint, is_named_vhd};
pub use repair::{Fix, RepairPlan};
pub use timestamp::Timestamp;
pub use unique_id::UniqueId;

/// Bytes per sector, the unit of the BAT and of the block bitmaps: always 512.
pub const SECTOR_SIZE: u64 = 512;

/// The largest virtual disk that a dynamic or differencing VHD can hold: 2040 GiB (specification, "Dynamic Disk
/// Header Format": the BAT's sector numbers have 32 bits).
pub const MAX_DYNAMIC_SIZE: u64 = 2040 << 30;
