//! Every rule that a check knows: its id, how bad it is to break it, what that means and what to do.

use super::Severity;
use crate::error::ErrorKind;
use Severity::{Error, Repairable, Warning};

/// A rule of the format, or of a service that takes images.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable name, in words joined by hyphens.
    pub id: &'static str,
    /// How bad it is to break it.
    pub severity: Severity,
    /// What is wrong, in one sentence without a final stop.
    pub message: &'static str,
    /// What to do, without a final stop.
    pub advice: &'static str,
}

impl Rule {
    /// What breaking it means to whoever opens the file.
    pub(super) fn kind(&self) -> ErrorKind {
        let foreign = [
            &FOOTER_POISONED,
            &FORMAT_VERSION,
            &DISK_TYPE,
            &HEADER_VERSION,
            &BATMAP_ENCRYPTED,
        ];
        if foreign.contains(&self) {
            ErrorKind::Unsupported
        } else {
            ErrorKind::Damaged
        }
    }

    /// Whether whoever reads the file is told that it is broken.
    pub(super) fn is_told(&self) -> bool {
        self.severity != Warning || TOLD.contains(&self)
    }
}

/// The warnings that bear on what is read.
static TOLD: [&Rule; 6] = [
    &FIXED_SLACK,
    &NESTED_FOOTER,
    &GEOMETRY_SIZE,
    &LOCATOR_CODE,
    &LOCATOR_LENGTH,
    &LOCATOR_PLACE,
];

const COPY_AGAIN: &str = "copy the file again from its source, or take the last good backup; vhd convert --salvage saves what is left";
const REPAIR: &str = "run vhd check --repair";
const REWRITE: &str = "nothing has to be done; converting to a new file makes it regular";
const RESIZE: &str = "convert it with vhd convert --azure, which rounds up to a whole MiB";

macro_rules! rules {
    ($($name:ident: $id:literal, $severity:ident, $message:literal, $advice:expr;)*) => {
        $(
            pub(super) static $name: Rule = Rule {
                id: $id,
                severity: $severity,
                message: $message,
                advice: $advice,
            };
        )*

        /// Every rule, in the order in which a file is looked at.
        pub static RULES: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    FILE_EMPTY: "file-empty", Error, "the file is empty", COPY_AGAIN;
    RAW_SIZE: "raw-size", Error,
        "nothing of a VHD is in the file, and it is no raw image either, for it is no whole number of pages", COPY_AGAIN;
    FIXED_CUT_OFF: "fixed-cut-off", Error, "the file is too short for its virtual disk", COPY_AGAIN;
    FIXED_SLACK: "fixed-slack", Warning, "the file is longer than its virtual disk and its footer",
        "nothing is lost; the cloud refuses such files, convert it to a new one";
    FOOTER_CUT_OFF: "footer-cut-off", Repairable, "the trailing footer was cut off; its copy is good", REPAIR;
    TRAILING_GARBAGE: "trailing-garbage", Repairable, "something stands behind the trailing footer", REPAIR;
    TRAILING_ZEROS: "trailing-zeros", Repairable, "zeros stand behind the trailing footer", REPAIR;
    FOOTER_POISONED: "footer-poisoned", Error, "this disk was disabled on purpose",
        "use the disk that took its place; XenServer disables disks that were moved or merged";
    FOOTER_LOST: "footer-lost", Error, "the footer is damaged, and there is no good copy of it", COPY_AGAIN;
    FOOTER_DAMAGED: "footer-damaged", Repairable, "the trailing footer is damaged; its copy is good", REPAIR;
    FOOTER_COPY_DAMAGED: "footer-copy-damaged", Repairable,
        "the copy of the footer is damaged; the trailing footer is good", REPAIR;
    FOOTER_COPY_DIFFERS: "footer-copy-differs", Repairable, "the two footers differ; the trailing one is in force", REPAIR;
    FOOTER_TYPES_DIFFER: "footer-types-differ", Error, "the two footers disagree on the type of the disk", COPY_AGAIN;
    FIXED_LABEL: "fixed-label", Error, "the footer says fixed, but the file holds blocks and a BAT", COPY_AGAIN;
    NESTED_FOOTER: "nested-footer", Warning, "the disk's own first sector looks like a VHD footer; the trailing one is in force",
        "programs that look at the start of the file take it for another disk: tell them the format";
    FEATURES: "features", Warning, "the features are not those of the specification", REWRITE;
    FORMAT_VERSION: "file-format-version", Error, "this version of the VHD format is not known",
        "convert it with the program that wrote it";
    DATA_OFFSET: "data-offset", Error, "the dynamic disk header lies in an impossible place", COPY_AGAIN;
    DATA_OFFSET_FIXED: "data-offset-fixed", Warning, "a fixed disk has no dynamic disk header to point at", REWRITE;
    TIMESTAMP: "timestamp-future", Warning, "the disk was created in the future", "check the clock of the machine that made it";
    CURRENT_SIZE: "current-size", Error, "the virtual size makes no sense", COPY_AGAIN;
    GEOMETRY_ZERO: "geometry-zero", Warning, "there is no geometry", REWRITE;
    GEOMETRY_SIZE: "geometry-size", Warning, "some programs take this disk for one of another size, by its geometry",
        "with qemu, give force_size_calc=current_size; converting to a new file makes it regular";
    DISK_TYPE: "disk-type", Error, "this type of disk is not known", "convert it with the program that wrote it";
    UNIQUE_ID_NIL: "unique-id-nil", Warning, "the disk has no identity", REWRITE;
    SAVED_STATE: "saved-state", Warning, "a machine is suspended on this disk, or the mark makes no sense",
        "shut the machine down before changing or moving the disk";
    FOOTER_RESERVED: "footer-reserved", Warning, "reserved bytes of the footer are not zero", REWRITE;
    HEADER_COOKIE: "header-cookie", Error, "there is no dynamic disk header", COPY_AGAIN;
    HEADER_CHECKSUM: "header-checksum", Error, "the checksum of the dynamic disk header is wrong", COPY_AGAIN;
    HEADER_VERSION: "header-version", Error, "this version of the dynamic disk header is not known",
        "convert it with the program that wrote it";
    HEADER_DATA_OFFSET: "header-data-offset", Warning, "the unused offset of the header is not all ones", REWRITE;
    TABLE_OFFSET: "table-offset", Error, "the BAT lies in an impossible place", COPY_AGAIN;
    MAX_TABLE_ENTRIES: "max-table-entries", Error, "the BAT doesn't fit the virtual disk or the file", COPY_AGAIN;
    BLOCK_SIZE: "block-size", Error, "the block size makes no sense", COPY_AGAIN;
    HEADER_RESERVED: "header-reserved", Warning, "reserved bytes of the header are not zero", REWRITE;
    PARENT_UNWANTED: "parent-unwanted", Warning, "a dynamic disk has no parent, but this one names one", REWRITE;
    BAT_OVER_STRUCTURE: "bat-over-structure", Error, "a block lies over another structure of the file", COPY_AGAIN;
    BAT_OVER_FOOTER: "bat-over-footer", Error, "a block lies over the trailing footer", COPY_AGAIN;
    BAT_PAST_END: "bat-past-end", Error, "a block lies behind the end of the file",
        "the file was cut off: copy it again; if it is the first part of a split image (.vhd, .v01 and so on), join the parts first";
    BAT_DUPLICATE: "bat-duplicate", Error, "two blocks lie in the same place", COPY_AGAIN;
    BAT_OVERLAP: "bat-overlap", Error, "two blocks overlap", COPY_AGAIN;
    BLOCK_CUT_OFF: "block-cut-off", Error, "the file ends within a block whose bitmap says that more is stored", COPY_AGAIN;
    BAT_BEYOND_DISK: "bat-beyond-disk", Warning, "a block behind the end of the virtual disk is stored", REWRITE;
    BAT_PADDING: "bat-padding", Warning, "the rest of the BAT's last sector is neither all ones nor all zeros", REWRITE;
    BITMAP_DATA: "bitmap-clear-data", Warning, "the bitmap says that a sector was never written, but data stands there",
        "programs disagree on such sectors; here they read as zeros";
    BITMAP_EMPTY: "bitmap-empty-data", Warning, "the bitmap says that nothing was ever written, but data stands in the block",
        "programs disagree on such blocks; here they read as zeros";
    BITMAP_PADDING: "bitmap-padding", Warning, "bits behind the last sector of the block are set", REWRITE;
    BATMAP_BAD: "batmap-bad", Warning, "the map of full blocks that the creator promises is missing or damaged",
        "it is not used here; vhd check --repair empties it for XenServer";
    BATMAP_STALE: "batmap-stale", Warning, "the map of full blocks calls a block full that isn't",
        "it is not used here, but XenServer may read wrong data: run vhd check --repair";
    BATMAP_ENCRYPTED: "batmap-encrypted", Error, "XenServer encrypted the data of this disk",
        "decrypt it where the key is; what would be read here is not the disk's content";
    LOCATOR_CODE: "locator-code", Warning, "this kind of parent locator is not known", "the other ways to the parent are used";
    LOCATOR_DUPLICATE: "locator-duplicate", Warning, "there are two parent locators of this kind", "the first of them is used";
    LOCATOR_LENGTH: "locator-length", Warning, "the length of the parent locator makes no sense",
        "the other ways to the parent are used";
    LOCATOR_RESERVED: "locator-reserved", Warning, "the reserved field of a parent locator is not zero", REWRITE;
    LOCATOR_PLACE: "locator-place", Warning, "the parent locator lies in an impossible place",
        "the other ways to the parent are used";
    LOCATOR_PATH: "locator-path", Warning, "the parent locator leads out of the disk's folder",
        "it is never followed by itself: name the parent or its folder if it is to be trusted";
    PARENT_RAW: "parent-raw", Warning, "the parent has no identity, so it is a raw image", "name the raw parent when reading";
    PARENT_UNNAMED: "parent-unnamed", Error, "nothing in the file says where the parent is", "name the parent when reading";
    PARENT_SELF: "parent-self", Error, "the disk names itself as its parent", "name the right parent when reading";
    PARENT_MISSING: "parent-missing", Error, "the parent was not found",
        "put it beside the child, or name it or its folder when reading";
    PARENT_MISMATCH: "parent-mismatch", Error, "the parent that was found is another disk",
        "find the parent whose unique id the child names";
    PARENT_LOOP: "parent-loop", Error, "the chain of parents runs in a circle", "restore one of its files from a backup";
    PARENT_DAMAGED: "parent-damaged", Error, "the parent can't be read", "run vhd check on the parent";
    PARENT_LARGER: "parent-larger", Error, "the parent is larger than its child", "find the parent that the child was made over";
    PARENT_TIMESTAMP: "parent-timestamp", Warning, "the parent was changed at another time than the child says",
        "if it was written to after the child was made, the child is worthless; a mere copy is harmless";
    CHAIN_DEPTH: "chain-depth", Error, "the chain has more files than are followed", "merge some of them";
    CHAIN_LONG: "chain-long", Warning, "the chain is longer than XenServer takes", "merge some of its files";
    AZURE_TYPE: "azure-type", Error, "Azure takes only fixed VHDs", "convert it with vhd convert --azure";
    AZURE_FILE_SIZE: "azure-file-size", Error, "Azure wants the virtual size and a footer of 512 bytes, nothing else", RESIZE;
    AZURE_WHOLE_MIB: "azure-whole-mib", Error, "Azure takes only whole MiB", RESIZE;
    AZURE_TOO_SMALL: "azure-too-small", Error, "a managed disk has at least 20 MiB",
        "make the disk larger; a page blob may be smaller";
    AZURE_TOO_LARGE: "azure-too-large", Error, "a managed disk has at most 32 TiB", "make the disk smaller";
    AZURE_PAGE_BLOB: "azure-page-blob-size", Warning, "a page blob has at most 8 TiB", "upload it as a managed disk directly";
    AZURE_CREATOR: "azure-creator", Error, "some services take this disk for one of another size, by its creator and geometry",
        RESIZE;
}
