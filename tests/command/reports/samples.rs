//! Files in every format that is recognised and not read, with lengths of whole pages.

/// A file.
pub(crate) struct Sample {
    /// What it is called in the list of formats.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Whether it is told by its name.
    pub(crate) name_matters: bool,
}

impl Sample {
    pub(crate) fn of(kind: &str) -> Self {
        samples()
            .into_iter()
            .find(|sample| sample.kind == kind)
            .unwrap()
    }
}

/// The footer of a fixed VHD.
pub(crate) fn footer(size: u64) -> [u8; 512] {
    let mut footer = [0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[11] = 2;
    footer[13] = 1;
    footer[16..24].fill(0xFF);
    footer[28..32].copy_from_slice(b"test");
    footer[40..48].copy_from_slice(&size.to_be_bytes());
    footer[48..56].copy_from_slice(&size.to_be_bytes());
    footer[56..60].copy_from_slice(&[0, 60, 4, 17]);
    footer[63] = 2;
    footer[68..84].copy_from_slice(b"a unique id here");
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
    footer
}

/// A fixed VHD of this disk.
pub(crate) fn fixed(disk: &[u8]) -> Vec<u8> {
    [disk, &footer(disk.len() as u64)].concat()
}

/// A tar of one file.
pub(crate) fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    for (at, text) in [
        (100, "000644 \0"),
        (108, "000000 \0"),
        (116, "000000 \0"),
        (136, "14371573112 "),
        (148, "        "),
        (156, "0"),
        (257, "ustar\x0000"),
    ] {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    header[124..136].copy_from_slice(format!("{:011o} ", content.len()).as_bytes());
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    bytes
}

/// One file, or more, of every format.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut add = |kind: &'static str, pieces: &[(usize, &[u8])]| {
        let mut bytes = vec![0; 65536];
        for (at, piece) in pieces {
            bytes[*at..*at + piece.len()].copy_from_slice(piece);
        }
        samples.push(Sample {
            kind,
            name: "a file.bin".to_owned(),
            bytes,
            name_matters: false,
        });
    };
    add("a VHDX image", &[(0, b"vhdxfile")]);
    add("a qcow2 image", &[(0, b"QFI\xFB\0\0\0\x03")]);
    add("a qcow2 image", &[(0, b"QFI\xFB\0\0\0\x01")]);
    add("a VMDK image", &[(0, b"KDMV\x01\0\0\0")]);
    add("a VMDK image", &[(0, b"COWD\x01\0\0\0")]);
    add(
        "a VMDK image",
        &[(0, b"# Disk DescriptorFile\nversion=1\n")],
    );
    add(
        "a VMDK image",
        &[(0, b"\xBE\xBA\xFE\xCA\0\0\0\0\x01\0\0\0\x02\0\0\0")],
    );
    add(
        "a VDI image",
        &[
            (0, b"<<< Oracle VM VirtualBox Disk Image >>>\n"),
            (64, &[0x7F, 0x10, 0xDA, 0xBE, 1, 0, 1, 0]),
        ],
    );
    add("a QED image", &[(0, b"QED\0\0\0\x01\0")]);
    add("a Parallels image", &[(0, b"WithoutFreeSpace")]);
    add("a Parallels image", &[(0, b"WithouFreSpacExt")]);
    add("a Bochs image", &[(0, b"Bochs Virtual HD Image\0")]);
    add(
        "a cloop image",
        &[(0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop")],
    );
    add("a CHD image", &[(0, b"MComprHD")]);
    add(
        "a sparse image of Android",
        &[(0, b"\x3A\xFF\x26\xED\x01\0\0\0\x1C\0\x0C\0")],
    );
    add("a DMG image", &[(65536 - 512, b"koly\0\0\0\x04\0\0\x02\0")]);
    add("an encrypted DMG image", &[(0, b"encrcdsa\0\0\0\x02")]);
    add("a sparse image of macOS", &[(0, b"sprs\0\0\0\x03")]);
    add(
        "an EWF image (E01)",
        &[(0, b"EVF\x09\x0D\x0A\xFF\0\x01\x01\0\0\0")],
    );
    add("an EWF image (Ex01)", &[(0, b"EVF2\x0D\x0A\x81\0")]);
    add("an AFF image", &[(0, b"AFF10\r\n\0")]);
    add(
        "an AFF4 image",
        &[(0, b"PK\x03\x04"), (30, b"container.description")],
    );
    add("a VMA archive of Proxmox", &[(0, b"VMA\0\0\0\0\x01")]);
    add(
        "a partclone image",
        &[(0, b"partclone-image\x000.3.17\0\0\0\0\0\0\0\x300002")],
    );
    add("an ntfsclone image", &[(0, b"\0ntfsclone-image")]);
    add("a partimage image", &[(0, b"PaRtImAgE-VoLuMe")]);
    add("a WIM archive", &[(0, b"MSWIM\0\0\0\xD0\0\0\0")]);
    add("a backup of Acronis", &[(0, b"\xCE\x24\xB9\xA2\x20\0\0\0")]);
    add("an image of Norton Ghost", &[(0, b"\xFE\xEF\x01\x02")]);
    add(
        "a difference between RBD snapshots",
        &[(0, b"rbd diff v1\n")],
    );
    add(
        "a ZFS send stream",
        &[(8, b"\xAC\xCB\xBA\xF5\x02\0\0\0\x11")],
    );
    add("a btrfs send stream", &[(0, b"btrfs-stream\0\x01\0\0\0")]);
    add(
        "an OVA, a tar archive",
        &[(0, b"web.ovf"), (257, b"ustar\x0000")],
    );
    add(
        "an XVA, a tar archive",
        &[(0, b"ova.xml"), (257, b"ustar\x0000")],
    );
    add("a tar archive", &[(0, b"disk.raw"), (257, b"ustar  \0")]);
    add("a tar archive", &[(257, b"ustar\0")]);
    add("a cpio archive", &[(0, b"0707010000A2B1000081A4")]);
    add("a cpio archive", &[(0, b"070707177000200030100644")]);
    add(
        "a cpio archive",
        &[
            (0, b"\xC7\x71\0\xFE\x18\0\xA4\x81"),
            (20, b"\x03"),
            (26, b"ab"),
        ],
    );
    add("an ar archive", &[(0, b"!<arch>\ndebian-binary")]);
    add("an RPM package", &[(0, b"\xED\xAB\xEE\xDB\x03")]);
    add("a xar archive", &[(0, b"xar!\0\x1C\0\x01")]);
    add("an LHA archive", &[(0, b"\x20\x31-lh5-")]);
    add("an ACE archive", &[(7, b"**ACE**")]);
    add("a zpaq archive", &[(0, b"zPQ\x02\x01")]);
    add("a dar archive", &[(0, b"\0\0\0\x7B0123456789TT")]);
    add("a file packed with compress", &[(0, b"\x1F\x9D\x90")]);
    add("a file packed with lrzip", &[(0, b"LRZI\0\x06")]);
    add(
        "a Git LFS pointer",
        &[(
            0,
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
        )],
    );
    add(
        "a git-annex pointer",
        &[(0, b"/annex/objects/SHA256E-s1--00")],
    );
    add("a page of HTML", &[(0, b"<!DOCTYPE html>\n<title>403")]);
    add("a page of HTML", &[(0, b"\n <html><body>")]);
    add("an XML document", &[(0, b"\xEF\xBB\xBF<?xml version=")]);
    add("an XML document", &[(0, b"<Error><Code>Denied")]);
    add(
        "a file encrypted with OpenPGP",
        &[(0, b"-----BEGIN PGP MESSAGE-----\n")],
    );
    add("a JSON document", &[(0, b"{\"error\": {\"code\": 403}}")]);
    add("a JSON document", &[(0, b"[{\"name\": \"s\"}]")]);
    add("a zip archive", &[(0, b"PK\x03\x04\x14\0")]);
    add("a 7z archive", &[(0, b"7z\xBC\xAF\x27\x1C\0\x04")]);
    add("a RAR archive", &[(0, b"Rar!\x1A\x07\x01\0")]);
    add("a cabinet archive", &[(0, b"MSCF\0\0\0\0")]);
    add(
        "a file packed with gzip",
        &[(0, b"\x1F\x8B\x08\0\0\0\0\0\0\x03")],
    );
    add("a file packed with xz", &[(0, b"\xFD7zXZ\0\0\x04")]);
    add("a file packed with bzip2", &[(0, b"BZh91AY&SY")]);
    add(
        "a file packed with lz4",
        &[(0, b"\x04\x22\x4D\x18\x64\x40")],
    );
    add("a file packed with lz4", &[(0, b"\x02\x21\x4C\x18")]);
    add("a file packed with zstd", &[(0, b"\x28\xB5\x2F\xFD\x24")]);
    add(
        "a file packed with zstd",
        &[(0, b"\x50\x2A\x4D\x18\x04\0\0\0")],
    );
    add("a file packed with lzip", &[(0, b"LZIP\x01\x0C")]);
    add("a file packed with lzop", &[(0, b"\x89LZO\0\r\n\x1A\n")]);
    add(
        "a file packed with lzma",
        &[(0, b"\x5D\0\0\x80\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF")],
    );
    add(
        "a file encrypted with age",
        &[(0, b"age-encryption.org/v1\n-> X25519 ")],
    );
    add("a file encrypted with OpenSSL", &[(0, b"Salted__12345678")]);
    add("a diff", &[(0, b"\x89VHDDIF\n")]);
    add("a stream of snapshots", &[(0, b"\x89VHDSND\n")]);
    add("a list of window hashes", &[(0, b"vhdkit state  1\0")]);
    add("a list of window hashes", &[(0, b"vhdkit windows 1")]);
    add(
        "the saved bytes of a repair",
        &[(0, b"vhdkit saved bytes 1\n")],
    );
    add(
        "the manifest of a snapshot",
        &[(0, b"{\n  \"schema_version\": 1,\n")],
    );
    samples.extend([
        named(
            "a part of a split VMDK image",
            "a disk-s001.vmdk",
            b"KDMV\x01\0\0\0",
        ),
        named("a VHD set", "a web.vhds", b"vhdxfile"),
        named("a Veeam backup", "web server.vbk", &[7; 900]),
        named("a Veeam backup", "WEB.VIB", &[7; 900]),
        named("an Acronis backup", "web.tibx", &[7; 900]),
        named("a Macrium Reflect backup", "web.mrimg", &[7; 900]),
        named("a Ghost recovery point", "web.v2i", &[7; 900]),
    ]);
    let mut alias = named(
        "an alias of Xen Orchestra, whose VHD is a folder of blocks",
        "web.alias.vhd",
        b"data/web.vhd",
    );
    alias.bytes.truncate(1024);
    samples.push(alias);
    samples
}

fn named(kind: &'static str, name: &str, head: &[u8]) -> Sample {
    let mut bytes = head.to_vec();
    bytes.resize(65536, 0);
    Sample {
        kind,
        name: name.to_owned(),
        bytes,
        name_matters: true,
    }
}
