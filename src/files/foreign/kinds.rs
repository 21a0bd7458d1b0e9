//! The list of foreign formats.

use std::path::Path;

use super::marks::Mark::{self, At, BeforeEnd, Fields, Name, Start};
use super::marks::{self, is_named};
use Way::{Answer, Convert, Ours, Tell, Unpack};

/// A format that isn't supported.
#[derive(Debug)]
pub struct Kind {
    /// A description of such a file, with an article.
    pub name: &'static str,
    /// How it is recognized.
    pub(super) mark: Mark,
    /// The extensions of such files, in lower case and without the dot.
    pub extensions: &'static [&'static str],
    /// How to handle it.
    pub(super) way: Way,
}

impl Kind {
    /// The program that decompresses it in a pipe, if there is one.
    pub fn filter(&self) -> Option<&'static str> {
        match self.way {
            Way::Unpack(command) => command.split_once(" < {in}").map(|(filter, _)| filter),
            _ => None,
        }
    }

    /// Returns whether it is a service's response instead of an image.
    pub fn is_answer(&self) -> bool {
        matches!(self.way, Way::Answer)
    }

    /// Returns whether `path` has the extension of such a file.
    pub(super) fn is_named(&self, path: &Path) -> bool {
        is_named(path, self.extensions)
    }
}

/// How to handle a file in a foreign format. In commands, `{in}` is the file; `{vhd}`, `{raw}`, `{dir}` and `{out}`
/// are unused names next to it, with another extension, without one, or without that of the compressor.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// This command converts it to an image.
    Convert(&'static str),
    /// This command extracts its contents.
    Unpack(&'static str),
    /// There is no single command.
    Tell(&'static str),
    /// It is a file of this program, but not an image.
    Ours(Own),
    /// It is a service's response instead of an image.
    Answer,
}

/// Files of our own that aren't images.
#[derive(Debug, Clone, Copy)]
pub(super) enum Own {
    Diff,
    Stream,
    SavedBytes,
}

const QEMU: Way = Convert("qemu-img convert -O vpc -o subformat=dynamic,force_size=on {in} {vhd}");
const EWF: Way = Convert("ewfexport -u -f raw -t - {in} > {raw}");
const ITS_OWN: Way = Tell(
    "restore the disk with the program that made the backup, and export it as a VHD or a raw image",
);

const fn kind(
    name: &'static str,
    mark: Mark,
    extensions: &'static [&'static str],
    way: Way,
) -> Kind {
    Kind {
        name,
        mark,
        extensions,
        way,
    }
}

/// All foreign formats that are recognized. If two marks match, the first one counts.
pub static KINDS: &[Kind] = &[
    // Images of other hypervisors.
    kind(
        "a VHD set",
        Fields(marks::vhd_set),
        &["vhds"],
        Tell(
            "its disk is in the .avhdx files next to it, and Hyper-V exports the machine with an image that can be converted",
        ),
    ),
    kind(
        "a VHDX image",
        Start(&[b"vhdxfile"]),
        &["vhdx", "avhdx"],
        QEMU,
    ),
    kind(
        "a qcow2 image",
        Start(&[b"QFI\xFB"]),
        &["qcow2", "qcow"],
        QEMU,
    ),
    kind(
        "a part of a split VMDK image",
        Fields(marks::vmdk_part),
        &[],
        Tell(
            "convert the whole image, by the small file that names its parts: qemu-img convert -O vpc -o subformat=dynamic,force_size=on {vmdk} {vhd}",
        ),
    ),
    kind(
        "a VMDK image",
        Start(&[
            b"KDMV",
            b"COWD",
            b"# Disk DescriptorFile",
            b"\xBE\xBA\xFE\xCA\0\0\0\0",
        ]),
        &["vmdk"],
        QEMU,
    ),
    kind(
        "a VDI image",
        At(64, &[0x7F, 0x10, 0xDA, 0xBE]),
        &["vdi"],
        QEMU,
    ),
    kind("a QED image", Start(&[b"QED\0"]), &["qed"], QEMU),
    kind(
        "a Parallels image",
        Start(&[b"WithoutFreeSpace", b"WithouFreSpacExt"]),
        &["hdd", "hds"],
        QEMU,
    ),
    kind(
        "a Bochs image",
        Start(&[b"Bochs Virtual HD Image"]),
        &[],
        QEMU,
    ),
    kind(
        "a cloop image",
        Start(&[b"#!/bin/sh\n#V2.0 Format\n"]),
        &["cloop"],
        QEMU,
    ),
    kind(
        "a CHD image",
        Start(&[b"MComprHD"]),
        &["chd"],
        Convert("chdman extracthd -i {in} -o {raw}"),
    ),
    kind(
        "a sparse image of Android",
        Start(&[b"\x3A\xFF\x26\xED"]),
        &["simg"],
        Convert("simg2img {in} {raw}"),
    ),
    // Images of macOS.
    kind(
        "a DMG image",
        BeforeEnd(512, b"koly"),
        &["dmg"],
        Convert("qemu-img convert -f dmg -O vpc -o subformat=dynamic,force_size=on {in} {vhd}"),
    ),
    kind(
        "an encrypted DMG image",
        Start(&[b"encrcdsa"]),
        &[],
        Convert("hdiutil convert {in} -format UDTO -o {raw}"),
    ),
    kind(
        "a sparse image of macOS",
        Start(&[b"sprs\0\0\0"]),
        &["sparseimage"],
        Convert("hdiutil convert {in} -format UDTO -o {raw}"),
    ),
    // Forensic images.
    kind(
        "an EWF image (E01)",
        Start(&[b"EVF\x09\x0D\x0A\xFF\0", b"LVF\x09\x0D\x0A\xFF\0"]),
        &["e01", "s01", "l01"],
        EWF,
    ),
    kind(
        "an EWF image (Ex01)",
        Start(&[b"EVF2\x0D\x0A\x81\0", b"LEF2\x0D\x0A\x81\0"]),
        &["ex01", "lx01"],
        EWF,
    ),
    kind(
        "an AFF image",
        Start(&[b"AFF10"]),
        &["aff"],
        Convert("affcat {in} > {raw}"),
    ),
    kind(
        "an AFF4 image",
        Fields(marks::aff4),
        &["aff4"],
        Tell("export it as a raw image with a forensic program that knows AFF4"),
    ),
    // Backups of disks and machines.
    kind(
        "a VMA archive of Proxmox",
        Start(&[b"VMA\0"]),
        &["vma"],
        Unpack("vma extract {in} {dir}"),
    ),
    kind(
        "a partclone image",
        Start(&[b"partclone-image"]),
        &[],
        Convert("partclone.restore -C -W -s {in} -o {raw}"),
    ),
    kind(
        "an ntfsclone image",
        Start(&[b"\0ntfsclone-image"]),
        &[],
        Convert("ntfsclone --restore-image --overwrite {raw} {in}"),
    ),
    kind(
        "a partimage image",
        Start(&[b"PaRtImAgE-VoLuMe"]),
        &[],
        ITS_OWN,
    ),
    kind(
        "a WIM archive",
        Start(&[b"MSWIM\0\0\0", b"WLPWM\0\0\0"]),
        &["wim", "swm", "esd"],
        Unpack("7z x -o{dir} {in}"),
    ),
    kind(
        "a backup of Acronis",
        Start(&[b"\xCE\x24\xB9\xA2"]),
        &["tib"],
        ITS_OWN,
    ),
    kind(
        "an image of Norton Ghost",
        Fields(marks::ghost),
        &["gho", "ghs"],
        ITS_OWN,
    ),
    kind(
        "a difference between RBD snapshots",
        Start(&[b"rbd diff v", b"rbd image v"]),
        &[],
        Tell(
            "import it into Ceph with rbd import-diff, and export the whole image with rbd export",
        ),
    ),
    kind(
        "a ZFS send stream",
        Fields(marks::zfs_send),
        &["zfs"],
        Tell("receive it into a pool with zfs receive, and copy the volume"),
    ),
    kind(
        "a btrfs send stream",
        Start(&[b"btrfs-stream\0"]),
        &[],
        Tell("receive it into a file system with btrfs receive"),
    ),
    kind("a Veeam backup", Name, &["vbk", "vib", "vrb"], ITS_OWN),
    kind("an Acronis backup", Name, &["tibx"], ITS_OWN),
    kind(
        "a Macrium Reflect backup",
        Name,
        &["mrimg", "mrimgx", "mrbak", "mrbakx"],
        ITS_OWN,
    ),
    kind("a Ghost recovery point", Name, &["v2i", "iv2i"], ITS_OWN),
    // Archives.
    kind(
        "an OVA, a tar archive",
        Fields(marks::ova),
        &["ova"],
        Unpack("mkdir {dir} && tar -xf {in} -C {dir}"),
    ),
    kind(
        "an XVA, a tar archive",
        Fields(marks::xva),
        &["xva"],
        Tell(
            "unpack it, and join the 1 MiB pieces of a disk, which are in a folder Ref:N, with xva-img -p disk-export: mkdir {dir} && tar -xf {in} -C {dir}",
        ),
    ),
    kind(
        "a tar archive",
        Fields(marks::tar),
        &["tar"],
        Unpack("mkdir {dir} && tar -xf {in} -C {dir}"),
    ),
    kind(
        "a zip archive",
        Start(&[b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"]),
        &["zip"],
        Unpack("unzip {in} -d {dir}"),
    ),
    kind(
        "a 7z archive",
        Start(&[b"7z\xBC\xAF\x27\x1C"]),
        &["7z"],
        Unpack("7z x -o{dir} {in}"),
    ),
    kind(
        "a RAR archive",
        Start(&[b"Rar!\x1A\x07"]),
        &["rar"],
        Unpack("7z x -o{dir} {in}"),
    ),
    kind(
        "a cabinet archive",
        Start(&[b"MSCF\0\0\0\0"]),
        &["cab"],
        Unpack("7z x -o{dir} {in}"),
    ),
    kind(
        "a cpio archive",
        Fields(marks::cpio),
        &["cpio"],
        Unpack("7z x -o{dir} {in}"),
    ),
    kind(
        "an ar archive",
        Start(&[b"!<arch>\n"]),
        &["deb"],
        Unpack("7z x -o{dir} {in}"),
    ),
    kind(
        "an RPM package",
        Start(&[b"\xED\xAB\xEE\xDB"]),
        &["rpm"],
        Unpack("7z x -o{dir} {in}"),
    ),
    kind(
        "a xar archive",
        Start(&[b"xar!\0\x1C"]),
        &["xar"],
        Unpack("7z x -o{dir} {in}"),
    ),
    kind(
        "an LHA archive",
        Fields(marks::lha),
        &["lha", "lzh"],
        Unpack("7z x -o{dir} {in}"),
    ),
    kind(
        "an ACE archive",
        At(7, b"**ACE**"),
        &["ace"],
        Unpack("unar -o {dir} {in}"),
    ),
    kind(
        "a zpaq archive",
        Fields(marks::zpaq),
        &["zpaq"],
        Unpack("zpaq x {in} -to {dir}"),
    ),
    kind(
        "a dar archive",
        Fields(marks::dar),
        &["dar"],
        Unpack("mkdir {dir} && dar -x {slices} -R {dir}"),
    ),
    // Compressed files.
    kind(
        "a file packed with compress",
        Fields(marks::compress),
        &["z", "taz"],
        Unpack("gzip -dc < {in} > {out}"),
    ),
    kind(
        "a file packed with lrzip",
        Start(&[b"LRZI\0"]),
        &["lrz"],
        Unpack("lrzip -d -o {out} {in}"),
    ),
    kind(
        "a file packed with gzip",
        Fields(marks::gzip),
        &["gz", "tgz"],
        Unpack("gzip -dc < {in} > {out}"),
    ),
    kind(
        "a file packed with xz",
        Start(&[b"\xFD7zXZ\0"]),
        &["xz", "txz"],
        Unpack("xz -dc < {in} > {out}"),
    ),
    kind(
        "a file packed with bzip2",
        Fields(marks::bzip2),
        &["bz2", "tbz2"],
        Unpack("bzip2 -dc < {in} > {out}"),
    ),
    kind(
        "a file packed with lz4",
        Start(&[b"\x04\x22\x4D\x18", b"\x02\x21\x4C\x18"]),
        &["lz4"],
        Unpack("lz4 -dc < {in} > {out}"),
    ),
    kind(
        "a file packed with zstd",
        Fields(marks::zstd),
        &["zst", "zstd"],
        Unpack("zstd -dc < {in} > {out}"),
    ),
    kind(
        "a file packed with lzip",
        Start(&[b"LZIP\x01", b"LZIP\0"]),
        &["lz"],
        Unpack("lzip -dc < {in} > {out}"),
    ),
    kind(
        "a file packed with lzop",
        Start(&[b"\x89LZO\0\r\n\x1A\n"]),
        &["lzo"],
        Unpack("lzop -dc < {in} > {out}"),
    ),
    kind(
        "a file packed with lzma",
        Fields(marks::lzma),
        &["lzma"],
        Unpack("xz --format=lzma -dc < {in} > {out}"),
    ),
    // Placeholders for files, and responses received instead of them.
    kind(
        "a Git LFS pointer",
        Start(&[b"version https://git-lfs.github.com/spec/"]),
        &[],
        Tell("the actual file isn't here; git lfs pull, run in its repository, fetches it"),
    ),
    kind(
        "a git-annex pointer",
        Start(&[b"/annex/objects/"]),
        &[],
        Tell("the actual file isn't here: git annex get {in}"),
    ),
    kind("a page of HTML", Fields(marks::html), &[], Answer),
    kind("an XML document", Fields(marks::xml), &[], Answer),
    // Encrypted files.
    kind(
        "a file encrypted with OpenPGP",
        Start(&[b"-----BEGIN PGP MESSAGE-----"]),
        &["asc"],
        Tell("decrypt it first: gpg -o {out} -d {in}"),
    ),
    kind(
        "a file encrypted with age",
        Start(&[b"age-encryption.org/v1\n"]),
        &["age"],
        Tell("decrypt it first, with the key that it was encrypted for: age -d -o {out} {in}"),
    ),
    kind(
        "a file encrypted with OpenSSL",
        Start(&[b"Salted__"]),
        &["enc"],
        Tell("decrypt it first, with openssl enc -d and the cipher that it was encrypted with"),
    ),
    // vhdkit's own files.
    kind(
        "a diff",
        Start(&[&crate::diff::MAGIC]),
        &["vhddiff"],
        Ours(Own::Diff),
    ),
    kind(
        "a stream of snapshots",
        Start(&[b"\x89VHDSND\n"]),
        &[],
        Ours(Own::Stream),
    ),
    kind(
        "a list of window hashes",
        Start(&[b"vhdkit state  1\0", b"vhdkit windows 1"]),
        &[],
        Tell("name the image from which it was made"),
    ),
    kind(
        "the saved bytes of a repair",
        Start(&[b"vhdkit saved bytes 1"]),
        &[],
        Ours(Own::SavedBytes),
    ),
    kind(
        "the manifest of a snapshot",
        Fields(marks::manifest),
        &[],
        Tell("name the snapshot as STORE::DISK@SNAPSHOT"),
    ),
    kind(
        "an alias of Xen Orchestra, whose VHD is a folder of blocks",
        Fields(marks::alias),
        &[],
        Convert("vhd-cli copy {in} {vhd}"),
    ),
    kind(JSON, Fields(marks::json), &[], Answer),
];

/// The name for any other JSON.
pub const JSON: &str = "a JSON document";
