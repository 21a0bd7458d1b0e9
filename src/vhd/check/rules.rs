//! The rules that a check knows: id, severity, message and advice.

use std::fmt;

use super::advice::Advice;
use super::advice::Phrase::{self, Choose, Do, Named, Text, Use};
use crate::error::ErrorKind;
use crate::remedy::{Act, Choice, Conversion, Limit, ReadAs, Tool};
use Severity::{Error, Repairable, Warning};

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; the image is read normally.
    Warning,
    /// Can be repaired without loss; the image is read as it will be after the repair.
    Repairable,
    /// The image can't be read, or not completely.
    Error,
}

impl Severity {
    /// `error`, `repairable` or `warning`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Repairable => "repairable",
            Self::Warning => "warning",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A rule of the format, or of a service that takes images.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable name, in words joined by hyphens.
    pub id: &'static str,
    /// The severity of breaking it.
    pub severity: Severity,
    /// The problem, in one sentence without a final period.
    pub message: &'static str,
    /// The advice, unless a finding has better; see [`Finding::remedy`](super::Finding::remedy).
    pub advice: Advice,
}

impl Rule {
    /// The kind of error if it prevents opening the file.
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

    /// Returns whether whoever reads the file is informed of the problem.
    pub(super) fn is_told(&self) -> bool {
        self.severity != Warning || TOLD.contains(&self)
    }

    /// Returns whether an image that breaks it isn't clean. A warning counts only if data would be left out.
    pub fn is_fault(&self) -> bool {
        self.severity != Warning || *self == FIXED_SLACK_DATA
    }

    /// Returns whether there may be a repair.
    pub(super) fn may_be_repaired(&self) -> bool {
        self.severity == Repairable || [&BATMAP_BAD, &BATMAP_STALE].contains(&self)
    }
}

/// The warnings that affect what is read.
static TOLD: [&Rule; 7] = [
    &FIXED_SLACK,
    &FIXED_SLACK_DATA,
    &NESTED_FOOTER,
    &GEOMETRY_SIZE,
    &LOCATOR_CODE,
    &LOCATOR_LENGTH,
    &LOCATOR_PLACE,
];

const SALVAGE: Phrase = Do(Act::Convert(Conversion::SALVAGE), "salvaging it");
const CONVERT: Phrase = Do(Act::Convert(Conversion::PLAIN), "converting it");
/// By a dynamic disk header.
pub(super) const AS_DYNAMIC: Phrase = Do(
    Act::Convert(Conversion::reading(ReadAs::Dynamic)),
    "converting it as a dynamic VHD",
);
const MEND: Phrase = Do(Act::Repair, "a repair");
const PARENT: Phrase = Choose(Choice::Parent, "the file of the parent");
const PARENT_FOLDER: Phrase = Choose(Choice::ParentFolder, "its folder");
const FOR_AZURE: Phrase = Do(Act::Convert(Conversion::AZURE), "converting it for Azure");
const GIVE_PARENT: Advice = Advice(&[Text("give "), PARENT]);

/// For errors. [`COPY_ONLY`] replaces it if nothing can be salvaged.
pub(super) const COPY_AGAIN: Advice = Advice(&[
    Text("copy the file again from its source, or take the last good backup; "),
    SALVAGE,
    Text(" saves what is left"),
]);
pub(super) const COPY_ONLY: Advice = Advice(&[Text(
    "copy the file again from its source, or take the last good backup: too little is left of this one to be salvaged",
)]);

const REPAIR: Advice = Advice(&[
    Do(Act::Repair, "repair it without loss"),
    Named(" repairs it"),
]);
/// For problems that could be repaired, but aren't because of other errors.
pub(super) const NOT_REPAIRED: Advice = Advice(&[
    Text("it is not repaired while there are errors; "),
    SALVAGE,
    Text(" saves what is left"),
]);
/// As [`NOT_REPAIRED`], if nothing can be salvaged.
pub(super) const NEITHER: Advice = Advice(&[Text(
    "it is not repaired while there are errors: copy the file again from its source, or take the last good backup",
)]);

const REWRITE: Advice = Advice(&[
    Text("nothing has to be done; "),
    CONVERT,
    Text(" makes a file without it"),
]);
const HARMLESS: Advice = Advice(&[Text(
    "nothing has to be done: nothing that is read depends on it",
)]);
const VERSION: Advice = Advice(&[
    Text("convert it with the program that wrote it; "),
    SALVAGE,
    Text(" reads it as if it were version 1.0"),
]);
/// A finding says which of these it is.
const READ_AS: Advice = Advice(&[
    AS_DYNAMIC,
    Text(" reads it according to its dynamic disk header, "),
    Choose(Choice::AsDifferencing, "as a differencing one"),
    Text(" on top of its parent, "),
    Choose(Choice::AsFixed, "as a fixed one"),
    Text(" as the data before the footer, "),
    Choose(Choice::AsRaw, "as a raw disk"),
    Text(" including the footer"),
]);
const SHORTEN: Advice = Advice(&[
    Use(Tool::MergeMiddle, "merging"),
    Text(
        " makes a standalone image from one in the middle of the chain, with the same id: rename it to replace that one",
    ),
]);
const OTHER_WAY: Advice = Advice(&[
    Text(
        "nothing has to be done if another locator or the name leads to the parent; otherwise give ",
    ),
    PARENT,
    Text(" or "),
    PARENT_FOLDER,
]);
pub(super) const AZURE: Advice = Advice(&[
    FOR_AZURE,
    Text(" makes one that fits, with a size in whole MiB"),
]);
/// As [`AZURE`], if there are problems that a repair fixes.
pub(super) const AZURE_AFTER_REPAIR: Advice = Advice(&[
    Named("run "),
    Do(Act::Repair, "repair it"),
    Text(" first, then check again"),
]);
/// As [`AZURE`], if there are errors or data that would be left out.
pub(super) const AZURE_SALVAGE: Advice = Advice(&[
    Do(
        Act::Convert(Conversion {
            salvage: true,
            ..Conversion::AZURE
        }),
        "salvaging it for Azure",
    ),
    Text(" makes one that fits from everything that can be read"),
]);
/// Each finding contains the command, which depends on where the VHD ends.
const TAKE_OUT: Advice = Advice(&[
    Text("take it out: "),
    Do(Act::TakeOut(None), "its virtual disk is the file"),
]);

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

        /// All rules, in the order of the checks.
        pub static RULES: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    FILE_EMPTY: "file-empty", Error, "the file is empty", COPY_ONLY;
    RAW_SIZE: "raw-size", Error,
        "the file has no trace of a VHD, and its length isn't a multiple of 512 bytes, as that of a raw image is", COPY_ONLY;
    FOOTER_MISSING: "footer-missing", Error, "the file is named like a VHD, but has no footer at its end, nor the copy that a dynamic VHD has at its beginning",
        Advice(&[Text("if it was truncated, copy it again; if it is a complete raw disk, convert it to a VHD"), Named(": "), Do(Act::Convert(Conversion::PLAIN), "")]);
    OPTICAL_IMAGE: "optical-image", Warning, "this is the image of a CD or DVD",
        Advice(&[Text("nothing has to be done: a machine uses it as a CD or DVD, not as a disk")]);
    FIXED_CUT_OFF: "fixed-cut-off", Error, "the file is too short for its virtual disk", COPY_AGAIN;
    FIXED_SLACK: "fixed-slack", Warning, "the file is longer than its virtual disk and its footer; zeros are between them",
        Advice(&[Text("no data is lost, but the cloud refuses such files: "), Do(Act::Convert(Conversion { to_fixed: true, ..Conversion::PLAIN }), "converting it to a fixed VHD"), Text(" makes one without them")]);
    FIXED_SLACK_DATA: "fixed-slack-data", Warning,
        "data is stored between the end of the virtual disk and the footer, and is not read",
        Advice(&[Text("if the disk should extend to the footer, "), SALVAGE, Text(" keeps the data; "), Do(Act::Convert(Conversion::PLAIN), "a plain conversion"), Text(" drops it")]);
    FOOTER_CUT_OFF: "footer-cut-off", Repairable, "the trailing footer is missing; its copy is good", REPAIR;
    TRAILING_GARBAGE: "trailing-garbage", Repairable, "there is data after the trailing footer",
        Advice(&[MEND, Text(" removes it, and saves it to "), Do(Act::SavedBytes, "a file next to it")]);
    TRAILING_ZEROS: "trailing-zeros", Repairable, "there are zeros after the trailing footer", Advice(&[MEND, Text(" removes them")]);
    FOOTER_POISONED: "footer-poisoned", Error, "this disk was disabled on purpose",
        Advice(&[Text("use the disk that took its place: XenServer disables disks that were moved or merged; "), SALVAGE, Text(" reads this one anyway")]);
    FOOTER_LOST: "footer-lost", Error, "the footer is damaged, and there is no good copy", COPY_AGAIN;
    FOOTER_DAMAGED: "footer-damaged", Repairable, "the trailing footer is damaged; its copy is good", REPAIR;
    FOOTER_OVERRULED: "footer-overruled", Repairable,
        "the trailing footer contradicts the header and the BAT; its copy fits them and is in force", REPAIR;
    TYPE_LABEL: "type-label", Repairable,
        "the footer's type isn't fixed, but the file is a fixed disk: it has the length of one, and no dynamic disk header", REPAIR;
    FOOTER_COPY_DAMAGED: "footer-copy-damaged", Repairable,
        "the copy of the footer is damaged; the trailing footer is good", REPAIR;
    FOOTER_COPY_DIFFERS: "footer-copy-differs", Repairable, "the two footers differ; the trailing one is in force", REPAIR;
    FOOTER_TYPES_DIFFER: "footer-types-differ", Error, "the two footers disagree on the type of the disk, and the header proves neither",
        READ_AS;
    FIXED_LABEL: "fixed-label", Error, "the footer's type is fixed, but the file holds a dynamic disk header of the same disk", READ_AS;
    NESTED_FOOTER: "nested-footer", Warning, "the disk's own first sector looks like a VHD footer; the trailing one is in force",
        Advice(&[Text("nothing has to be done: programs that look at the start of the file may mistake it for another disk; specify the type fixed there")]);
    FEATURES: "features", Warning, "the features differ from the specification", HARMLESS;
    FORMAT_VERSION: "file-format-version", Error, "this version of the VHD format is not supported", VERSION;
    DATA_OFFSET: "data-offset", Error, "the dynamic disk header is in an impossible place", COPY_AGAIN;
    DATA_OFFSET_FIXED: "data-offset-fixed", Warning, "a fixed disk has no dynamic disk header to point at", REWRITE;
    TIMESTAMP: "timestamp-future", Warning, "the disk was created in the future",
        Advice(&[Text("nothing has to be done: nothing depends on it; the clock of the machine that created it may be wrong")]);
    TIMESTAMP_UNIX: "timestamp-unix", Warning, "the creation time is counted from 1970 instead of 2000", HARMLESS;
    CURRENT_SIZE: "current-size", Error, "the virtual size is impossible", COPY_AGAIN;
    GEOMETRY_ZERO: "geometry-zero", Warning, "there is no geometry", HARMLESS;
    GEOMETRY_SIZE: "geometry-size", Warning, "some programs derive a different disk size from the geometry",
        Advice(&[Text("with qemu, use force_size_calc=current_size; "), CONVERT, Text(" makes a file of which all programs see the same size")]);
    DISK_TYPE: "disk-type", Error, "this type of disk is not supported", READ_AS;
    UNIQUE_ID_NIL: "unique-id-nil", Warning, "the disk has no identity",
        Advice(&[Text("nothing has to be done unless it becomes a parent: "), Do(Act::GiveId, "converting it to a raw disk, and that to a VHD,"), Text(" makes one with an id")]);
    SAVED_STATE: "saved-state", Warning, "a suspended machine uses this disk, or the mark is invalid",
        Advice(&[Text("shut the machine down before changing or moving the disk")]);
    FOOTER_RESERVED: "footer-reserved", Warning, "reserved bytes of the footer are not zero", HARMLESS;
    HEADER_COOKIE: "header-cookie", Error, "there is no dynamic disk header", COPY_AGAIN;
    HEADER_CHECKSUM: "header-checksum", Error, "the checksum of the dynamic disk header is wrong", COPY_AGAIN;
    HEADER_VERSION: "header-version", Error, "this version of the dynamic disk header is not supported", VERSION;
    HEADER_DATA_OFFSET: "header-data-offset", Warning, "the unused offset of the header is not all ones", REWRITE;
    TABLE_OFFSET: "table-offset", Error, "the BAT is in an impossible place", COPY_AGAIN;
    MAX_TABLE_ENTRIES: "max-table-entries", Error, "the BAT doesn't fit the virtual disk or the file", COPY_AGAIN;
    BLOCK_SIZE: "block-size", Error, "the block size is impossible", COPY_AGAIN;
    HEADER_RESERVED: "header-reserved", Warning, "reserved bytes of the header are not zero", REWRITE;
    PARENT_UNWANTED: "parent-unwanted", Warning, "a dynamic disk has no parent, but this one refers to one", REWRITE;
    BAT_OVER_STRUCTURE: "bat-over-structure", Error, "a block overlaps another structure of the file", COPY_AGAIN;
    BAT_OVER_FOOTER: "bat-over-footer", Error, "a block overlaps the trailing footer", COPY_AGAIN;
    BAT_PAST_END: "bat-past-end", Error, "a block is past the end of the file",
        Advice(&[Text("the file was truncated: copy it again; if it is the first part of a split image (.vhd, .v01 and so on), join the parts first; "), SALVAGE, Text(" saves what is left")]);
    BAT_DUPLICATE: "bat-duplicate", Error, "two blocks are in the same place", COPY_AGAIN;
    BAT_OVERLAP: "bat-overlap", Error, "two blocks overlap", COPY_AGAIN;
    BLOCK_CUT_OFF: "block-cut-off", Error, "the file ends within a block that should be longer according to its bitmap", COPY_AGAIN;
    BLOCK_SHORT: "block-short", Warning, "the last block is stored only up to the end of the virtual disk", REWRITE;
    BAT_BEYOND_DISK: "bat-beyond-disk", Warning, "a block after the end of the virtual disk is stored", REWRITE;
    BAT_PADDING: "bat-padding", Warning, "the rest of the BAT's last sector is neither all ones nor all zeros", REWRITE;
    BITMAP_DATA: "bitmap-clear-data", Warning, "the bitmap marks a sector as never written, but it contains data",
        Advice(&[Text("programs disagree on such sectors; here they read as zeros, and "), CONVERT, Text(" makes a file in which all programs read zeros")]);
    BITMAP_EMPTY: "bitmap-empty-data", Warning, "the bitmap marks all sectors as never written, but the block contains data",
        Advice(&[Text("programs disagree on such blocks; here they read as zeros, and "), CONVERT, Text(" makes a file in which all programs read zeros")]);
    BITMAP_PADDING: "bitmap-padding", Warning, "bits after the last sector of the block are set", REWRITE;
    BATMAP_MISSING: "batmap-missing", Warning, "this creator writes a map of full blocks, but there is none",
        Advice(&[Text("nothing has to be done: it is not used here; where XenServer requires it, "), CONVERT, Text(" makes a file that doesn't promise one")]);
    BATMAP_BAD: "batmap-bad", Warning, "the map of full blocks is damaged",
        Advice(&[Text("it is not used here; "), MEND, Text(" empties it for XenServer")]);
    BATMAP_STALE: "batmap-stale", Warning, "the map of full blocks marks a block as full that isn't",
        Advice(&[Text("it is not used here, but XenServer may read wrong data: "), MEND, Text(" empties it")]);
    BATMAP_ENCRYPTED: "batmap-encrypted", Error, "XenServer encrypted the data of this disk",
        Advice(&[Text("decrypt it where the key is: otherwise its content can't be read")]);
    LOCATOR_CODE: "locator-code", Warning, "this kind of parent locator is unknown", OTHER_WAY;
    LOCATOR_DUPLICATE: "locator-duplicate", Warning, "there are two parent locators of this kind",
        Advice(&[Text("nothing has to be done: the first is tried first, and only a parent with the right id is accepted")]);
    LOCATOR_LENGTH: "locator-length", Warning, "the length of the parent locator is impossible", OTHER_WAY;
    LOCATOR_RESERVED: "locator-reserved", Warning, "the reserved field of a parent locator is not zero", REWRITE;
    LOCATOR_PLACE: "locator-place", Warning, "the parent locator is in an impossible place", OTHER_WAY;
    LOCATOR_PATH: "locator-path", Warning, "the parent locator leads out of the disk's folder",
        Advice(&[Text("it isn't followed automatically: give "), PARENT, Text(" or "), PARENT_FOLDER, Text(" if you trust it")]);
    PARENT_RAW: "parent-raw", Warning, "the parent has no identity, so it is a raw image",
        Advice(&[Named("give "), Choose(Choice::RawParent, "allow a raw parent"), Text(" to read the child over it, and "), Choose(Choice::Parent, "name its file"), Text(" if it isn't next to the child under its own name")]);
    PARENT_UNNAMED: "parent-unnamed", Error, "nothing in the file refers to the parent", GIVE_PARENT;
    PARENT_SELF: "parent-self", Error, "the disk names itself as its parent", GIVE_PARENT;
    PARENT_MISSING: "parent-missing", Error, "the parent was not found",
        Advice(&[Text("put it next to the child, or give "), PARENT, Text(" or "), PARENT_FOLDER]);
    PARENT_MISMATCH: "parent-mismatch", Error, "the parent that was found is a different disk",
        Advice(&[Text("find the parent with the unique id in the child, and give "), PARENT]);
    PARENT_LOOP: "parent-loop", Error, "the chain of parents contains a loop",
        Advice(&[Text("one of its files was replaced by another: give "), Choose(Choice::Parent, "the file of the right parent"), Named(" with the right one"), Text(", or restore it from a backup")]);
    PARENT_DAMAGED: "parent-damaged", Error, "the parent can't be read", Advice(&[Text("check the parent itself"), Named(" with "), Use(Tool::Check, "")]);
    PARENT_LARGER: "parent-larger", Error, "the parent is larger than its child", Advice(&[Text("find the parent from which the child was created")]);
    PARENT_TIMESTAMP: "parent-timestamp", Warning, "the parent's modification time differs from the one in the child",
        Advice(&[Text("if it was written to after the child was created, the child is worthless; copying it is harmless")]);
    CHAIN_DEPTH: "chain-depth", Error, "the chain has too many files", SHORTEN;
    CHAIN_LONG: "chain-long", Warning, "the chain is too long for XenServer", SHORTEN;
    SIZE_WINDOWS: "size-windows", Warning, "Windows and Hyper-V don't open a VHD above 2040 GiB",
        Advice(&[Text("nothing has to be done unless it is for them: they support such large disks as VHDX")]);
    VHD_INSIDE: "vhd-inside", Warning, "the virtual disk is itself a VHD: it was treated as a raw disk and converted again", TAKE_OUT;
    AZURE_NO_FOOTER: "azure-no-footer", Error, "Azure accepts only fixed VHDs, and there is no VHD footer",
        Advice(&[Text("if the file is a complete raw disk, convert it"), Named(": "), Do(Act::Convert(Conversion::AZURE), " for Azure")]);
    AZURE_TYPE: "azure-type", Error, "Azure accepts only fixed VHDs", AZURE;
    AZURE_FILE_SIZE: "azure-file-size", Error, "Azure requires the virtual size and a footer of 512 bytes, nothing else", AZURE;
    AZURE_WHOLE_MIB: "azure-whole-mib", Error, "Azure accepts only whole MiB", AZURE;
    AZURE_TOO_SMALL: "azure-too-small", Error, "a managed disk must have at least 20 MiB",
        Advice(&[Text("a page blob may be smaller; to make the disk larger: "), Do(Act::ResizeTo(Limit::SmallestManagedDisk), "resize it to 20 MiB")]);
    AZURE_TOO_LARGE: "azure-too-large", Error, "an upload to a managed disk can have at most 32767 GiB plus the footer",
        Advice(&[Text("if nothing is stored at its end, shrink it: "), Do(Act::ResizeTo(Limit::LargestManagedDisk), "resize it to 32767 GiB")]);
    AZURE_PAGE_BLOB: "azure-page-blob-size", Warning, "a page blob can have at most 8 TiB, including the footer",
        Advice(&[Text("upload it as a managed disk directly; or if nothing is stored at its end, shrink it: "), Do(Act::ResizeTo(Limit::LargestPageBlob), "resize it to 8388607 MiB")]);
    AZURE_CREATOR: "azure-creator", Error, "some services derive a different disk size from the creator and the geometry",
        AZURE;
    AZURE_VHD_INSIDE: "azure-vhd-inside", Error, "the upload would contain a VHD as its data, and no machine could start from it", TAKE_OUT;
}
