//! Recognizes files that people keep next to their images but that aren't supported as images, and knows how to convert
//! them.
//!
//! The one list, [`KINDS`], serves every command that opens an image, `vhd check` and the store. A mark must be strong
//! enough that no raw disk is refused: a disk starts with boot code, zeros, the signature of a file system or, if it is
//! encrypted as a whole, random bytes. Signatures have at least 27 bits, and shorter ones are checked together with
//! other header fields. Anything that a disk may legitimately begin with (file systems, LUKS, LVM, ISO 9660) is not in
//! the list.

mod advice;
mod kinds;
mod marks;

use std::path::Path;

use crate::error::{Error, Result};
use crate::storage::{Memory, ReadAt};

use kinds::Way;
pub use kinds::{JSON, KINDS, Kind};
use marks::Sample;

/// The error for such a file at `path`, with the command that converts it.
fn refusal<S: ReadAt>(kind: &Kind, storage: &S, head: &[u8]) -> Error {
    let path = storage.name();
    let what = match kind.way {
        Way::Convert(_) => "which is not read here",
        Way::Unpack(_) | Way::Tell(_) | Way::Ours(_) | Way::Answer => "not an image",
    };
    let error = Error::unsupported(format!("this is {}, {what}", kind.name)).with_path(path);
    error.with_remedy(advice::remedy(kind.way, storage, head))
}

/// Detects the format of `storage`, if it is one that isn't supported. Doesn't look for a VHD, whose footer at the end
/// takes precedence over anything a guest wrote at the start.
pub fn find<S: ReadAt>(storage: &S) -> Result<Option<&'static Kind>> {
    Ok(found(storage)?.map(|(kind, _)| kind))
}

/// As [`find`], for a stream that begins with `head`.
pub fn find_in_stream(head: &[u8]) -> Result<Option<&'static Kind>> {
    find(&Memory::new(head.to_vec()))
}

fn found<S: ReadAt>(storage: &S) -> Result<Option<(&'static Kind, Vec<u8>)>> {
    let sample = Sample::of(storage)?;
    let kind = KINDS
        .iter()
        .find(|kind| kind.mark.is_on(&sample, kind.extensions));
    Ok(kind.map(|kind| (kind, sample.into_head())))
}

/// Fails with [`Unsupported`](crate::ErrorKind::Unsupported) if `storage` has an unsupported format.
pub(super) fn refuse<S: ReadAt>(storage: &S) -> Result<()> {
    match found(storage)? {
        Some((kind, head)) => Err(refusal(kind, storage, &head)),
        None => Ok(()),
    }
}

/// The format suggested by the name `path`, if it is one that can't be written here.
pub fn named(path: &Path) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.is_named(path))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::marks::Mark;
    use super::*;
    use crate::error::ErrorKind;
    use crate::files::shell_word::word;

    /// A file of whole pages that starts with `head`.
    fn padded(head: &[u8]) -> Vec<u8> {
        let mut bytes = head.to_vec();
        bytes.resize(8192, 0);
        bytes
    }

    fn with(pieces: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        for (at, piece) in pieces {
            bytes[*at..*at + piece.len()].copy_from_slice(piece);
        }
        bytes
    }

    fn found_in(bytes: Vec<u8>, name: &str) -> Option<&'static str> {
        let found = find(&Memory::new(bytes).named(name)).unwrap();
        found.map(|kind| kind.name)
    }

    /// A tar header as of 1979, before there was a signature.
    fn old_tar(name: &[u8]) -> Vec<u8> {
        let mut header = with(&[
            (0, name),
            (100, b"000644 \0"),
            (108, b"001750 \0"),
            (116, b"001750 \0"),
            (124, b"00000001000 "),
            (136, b"14371573112 "),
            (148, b"        "),
        ]);
        let sum: u64 = header[..512].iter().map(|byte| u64::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }

    /// A file for every mark.
    fn samples() -> Vec<(&'static str, &'static str, Vec<u8>)> {
        let mut samples: Vec<(&str, &str, Vec<u8>)> = Vec::new();
        for kind in KINDS {
            match kind.mark {
                Mark::Start(all) => {
                    samples.extend(all.iter().map(|head| (kind.name, "x", padded(head))));
                }
                Mark::At(at, bytes) => samples.push((kind.name, "x", with(&[(at, bytes)]))),
                Mark::BeforeEnd(back, bytes) => {
                    let at = 8192 - usize::try_from(back).unwrap();
                    samples.push((kind.name, "x", with(&[(at, bytes)])));
                }
                Mark::Name => {
                    let name = match kind.extensions[0] {
                        "vbk" => "web.VBK",
                        "tibx" => "web.tibx",
                        "mrimg" => "web.mrimg",
                        _ => "web.v2i",
                    };
                    samples.push((kind.name, name, vec![7; 8192]));
                }
                Mark::Fields(_) => {}
            }
        }
        samples.extend(with_fields());
        samples
    }

    /// Files that are recognized by more than a constant.
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn with_fields() -> Vec<(&'static str, &'static str, Vec<u8>)> {
        let mut samples: Vec<(&str, &str, Vec<u8>)> = Vec::new();
        let ustar: &[u8] = b"ustar\x0000";
        let mut add = |kind, name, bytes| samples.push((kind, name, bytes));
        add(
            "a tar archive",
            "x",
            with(&[(0, b"disk.raw"), (257, ustar)]),
        );
        add(
            "a tar archive",
            "x",
            with(&[(0, b"disk.raw"), (257, b"ustar  \0")]),
        );
        add("a tar archive", "x", old_tar(b"disk.raw"));
        add(
            "an OVA, a tar archive",
            "x",
            with(&[(0, b"web.ovf"), (257, ustar)]),
        );
        add("an OVA, a tar archive", "x", old_tar(b"web.ovf"));
        add(
            "an XVA, a tar archive",
            "x",
            with(&[(0, b"ova.xml"), (257, ustar)]),
        );
        add(
            "an AFF4 image",
            "x",
            with(&[(0, b"PK\x03\x04"), (30, b"container.description")]),
        );
        add(
            "an AFF4 image",
            "x",
            with(&[(0, b"PK\x03\x04"), (30, b"information.turtle")]),
        );
        add(
            "a part of a split VMDK image",
            "disk-s001.vmdk",
            padded(b"KDMV"),
        );
        add("an image of Norton Ghost", "x", padded(b"\xFE\xEF\x01\x02"));
        add(
            "a ZFS send stream",
            "x",
            with(&[(8, b"\xAC\xCB\xBA\xF5\x02\0\0\0")]),
        );
        add(
            "a ZFS send stream",
            "x",
            with(&[(8, b"\0\0\0\x02\xF5\xBA\xCB\xAC")]),
        );
        add(
            "a file packed with gzip",
            "x",
            padded(b"\x1F\x8B\x08\x08\0\0\0\0\x02\x03"),
        );
        for level in b'1'..=b'9' {
            add(
                "a file packed with bzip2",
                "x",
                padded(&[b'B', b'Z', b'h', level]),
            );
        }
        add("a file packed with zstd", "x", padded(b"\x28\xB5\x2F\xFD"));
        add(
            "a file packed with zstd",
            "x",
            padded(b"\x50\x2A\x4D\x18\x04\0\0\0"),
        );
        add("a file packed with zstd", "x", padded(b"\x5F\x2A\x4D\x18"));
        add(
            "a file packed with lzma",
            "x",
            padded(b"\x5D\0\0\x80\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),
        );
        add(
            "a file packed with lzma",
            "x",
            padded(b"\x5D\0\0\0\x04\0\0\x10\0\0\0\0\0"),
        );
        add("a VHD set", "x.vhds", padded(b"vhdxfile"));
        add("a cpio archive", "x", padded(b"0707010000A2B1000081A4"));
        add("a cpio archive", "x", padded(b"070707177000200030100644"));
        let mut old = padded(b"\xC7\x71\0\xFE\x18\0\xA4\x81");
        old[20] = 3;
        old[26..28].copy_from_slice(b"ab");
        add("a cpio archive", "x", old);
        add("a file packed with compress", "x", padded(b"\x1F\x9D\x90"));
        add("a dar archive", "x", padded(b"\0\0\0\x7B0123456789TT"));
        add("a dar archive", "x", padded(b"\0\0\0\x7B0123456789NT"));
        add("a zpaq archive", "x", padded(b"zPQ\x01\x01"));
        add(
            "a zpaq archive",
            "x",
            padded(b"7kSt\xA01\x83\xD3\x8C\xB2\x28\xB0\xD3zPQ"),
        );
        add("an LHA archive", "x", padded(b"\x20\x31-lh5-"));
        for page in [
            &b"<!DOCTYPE html>\n<html>"[..],
            b"\xEF\xBB\xBF\r\n<!doctype HTML>",
            b" <HTML lang=en>",
        ] {
            add("a page of HTML", "x", padded(page));
        }
        for document in [
            &b"\xEF\xBB\xBF<?xml version=\"1.0\"?>"[..],
            b"<Error><Code>",
        ] {
            add("an XML document", "x", padded(document));
        }
        for document in [&b"{\"error\": 403}"[..], b"[\n  {\"name\": \"s\"}\n]\n"] {
            add(JSON, "x", padded(document));
        }
        add(
            "the manifest of a snapshot",
            "x",
            padded(b"{\n  \"schema_version\": 1,\n"),
        );
        samples
    }

    #[test]
    fn every_kind_is_told_by_every_one_of_its_marks() {
        let samples = samples();
        for (kind, name, bytes) in &samples {
            assert_eq!(found_in(bytes.clone(), name), Some(*kind));
        }
        assert_eq!(
            found_in(b"/xo-vm-backups/data/web.vhd".to_vec(), "web.alias.vhd"),
            Some("an alias of Xen Orchestra, whose VHD is a folder of blocks")
        );
        let told: BTreeSet<&str> = samples.iter().map(|(kind, ..)| *kind).collect();
        for kind in KINDS {
            let is_alias = kind.name.contains("alias");
            assert!(
                is_alias || told.contains(kind.name),
                "{} has no sample",
                kind.name
            );
        }
    }

    #[test]
    fn what_raw_disks_start_with_is_not_foreign() {
        let boot: (usize, &[u8]) = (510, &[0x55, 0xAA]);
        let starts: [(&str, Vec<u8>); 24] = [
            ("zeros", with(&[])),
            ("DOS", with(&[(0, b"\xFA\x33\xC0\x8E\xD0\xBC\0\x7C"), boot])),
            (
                "Windows 7",
                with(&[
                    (
                        0,
                        b"\x33\xC0\x8E\xD0\xBC\0\x7C\x8E\xC0\x8E\xD8\xBE\0\x7C\xBF\0\x06",
                    ),
                    boot,
                ]),
            ),
            ("GRUB", with(&[(0, b"\xEB\x63\x90\0\0\0"), boot])),
            (
                "syslinux",
                with(&[(0, b"\x33\xC0\xFA\x8E\xD8\x8E\xD0\xBC\0\x7C\x89\xE6"), boot]),
            ),
            (
                "LILO",
                with(&[(0, b"\xFA\xEB\x7C\x6C\x62\x61\x4C\x49\x4C\x4F"), boot]),
            ),
            (
                "protective MBR and GPT",
                with(&[
                    (446, b"\0\0\x02\0\xEE\xFF\xFF\xFF\x01\0\0\0"),
                    boot,
                    (512, b"EFI PART"),
                ]),
            ),
            (
                "NTFS",
                with(&[(0, b"\xEB\x52\x90NTFS    \0\x02\x08"), boot]),
            ),
            (
                "FAT",
                with(&[(0, b"\xEB\x3C\x90mkfs.fat\0\x02\x04\x01\0"), boot]),
            ),
            ("exFAT", with(&[(0, b"\xEB\x76\x90EXFAT   "), boot])),
            ("ReFS", with(&[(0, b"\0\0\0ReFS\0\0\0\0")])),
            ("BitLocker", with(&[(0, b"\xEB\x58\x90-FVE-FS-"), boot])),
            (
                "ext4",
                with(&[(1024, b"\0\0\x01\0\0\0\x04\0"), (1080, b"\x53\xEF")]),
            ),
            ("XFS", with(&[(0, b"XFSB\0\0\x10\0")])),
            ("btrfs", with(&[])),
            ("squashfs", with(&[(0, b"hsqs\x02\0\0\0")])),
            ("cramfs", with(&[(0, b"\x45\x3D\xCD\x28")])),
            ("EROFS", with(&[(1024, b"\xE2\xE1\xF5\xE0")])),
            ("LUKS", with(&[(0, b"LUKS\xBA\xBE\0\x02")])),
            ("LVM", with(&[(512, b"LABELONE"), (536, b"LVM2 001")])),
            ("swap", with(&[(4086, b"SWAPSPACE2")])),
            ("HFS+", with(&[(1024, b"H+\0\x04")])),
            ("APFS", with(&[(32, b"NXSB")])),
            (
                "Apple partition map",
                with(&[(0, b"ER\x02\0"), (512, b"PM\0\0")]),
            ),
        ];
        for (what, bytes) in starts {
            assert_eq!(found_in(bytes, "disk.raw"), None, "{what}");
        }
    }

    /// Pseudorandom numbers, the same in every run.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn random_sectors_are_not_foreign() {
        let mut state = 0x9E37_79B9_7F4A_7C15;
        for n in 0..200_000 {
            let mut bytes: Vec<u8> = (0..64)
                .flat_map(|_| random(&mut state).to_be_bytes())
                .collect();
            if n % 2 == 0 {
                bytes[510..].copy_from_slice(&[0x55, 0xAA]);
            }
            assert_eq!(found_in(bytes, "disk.raw"), None, "round {n}");
        }
    }

    #[test]
    fn a_mark_that_is_not_all_there_is_none() {
        for kind in KINDS {
            let (marks, at): (Vec<&[u8]>, usize) = match kind.mark {
                Mark::Start(all) => (all.to_vec(), 0),
                Mark::At(at, bytes) => (vec![bytes], at),
                _ => continue,
            };
            for bytes in marks {
                assert!(bytes.len() >= 4, "{} is told by too little", kind.name);
                for bit in 0..bytes.len() * 8 {
                    let mut changed = bytes.to_vec();
                    changed[bit / 8] ^= 1 << (bit % 8);
                    let found = found_in(with(&[(at, &changed)]), "x");
                    // A kind's mark may equal another's with one bit flipped.
                    assert!(
                        found != Some(kind.name) || is_mark(kind, &changed),
                        "{}: {changed:x?}",
                        kind.name
                    );
                }
            }
        }
    }

    fn is_mark(kind: &Kind, bytes: &[u8]) -> bool {
        matches!(kind.mark, Mark::Start(all) if all.iter().any(|mark| bytes.starts_with(mark)))
    }

    #[test]
    fn short_files_are_looked_at() {
        for len in [0, 1, 2, 7, 63, 64, 100, 257, 300, 511] {
            assert_eq!(found_in(vec![0; len], "x"), None, "{len}");
        }
        for (kind, name, bytes) in samples() {
            for len in [0, 1, 3, 511] {
                // It may or may not be recognized, but nothing fails.
                let found = found_in(bytes[..len].to_vec(), name);
                assert!(found.is_none() || len > 0 || name != "x", "{kind}");
            }
        }
    }

    #[test]
    fn every_refusal_has_a_command_with_the_real_name_or_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        for (kind, name, bytes) in samples() {
            let path: PathBuf = folder.path().join(format!("my {name}"));
            std::fs::write(&path, &bytes).unwrap();
            let error = refuse(&Memory::new(bytes).named(&path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.message().contains(kind), "{}", error.message());
            let hint = error.hint().unwrap();
            assert!(!hint.contains(['{', '}']), "{hint}");
            let steps = error.remedy().unwrap().steps().count();
            if hint.contains(": ") && steps == 0 {
                assert!(hint.contains("/my "), "{hint}");
            }
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_a_command_would_write_is_not_there_yet() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let hint = |name: &str, head: &[u8]| {
            std::fs::write(at(name), head).unwrap();
            let storage = Memory::new(padded(head)).named(at(name));
            refuse(&storage).unwrap_err().hint().unwrap().to_owned()
        };
        std::fs::write(at("a.vhd"), "").unwrap();
        std::fs::write(at("a-1.vhd"), "").unwrap();
        assert!(hint("a.vhdx", b"vhdxfile").ends_with("/a-2.vhd"));
        assert!(hint("b.vhd", b"vhdxfile").ends_with("/b-1.vhd"));
        assert!(hint("c", b"vhdxfile").ends_with("/c.vhd"));
        let gzip = b"\x1F\x8B\x08\0\0\0\0\0\0\x03";
        assert!(hint("a.vhd.gz", gzip).ends_with("/a-2.vhd"));
        assert!(hint("d.raw.gz", gzip).ends_with("/d.raw"));
        assert!(hint("d.tgz", gzip).ends_with("/d.tar"));
        assert!(hint("d", gzip).ends_with("/d.unpacked"));
        assert!(hint("e.zip", b"PK\x03\x04").ends_with("/e"));
        assert!(hint("e", b"PK\x03\x04").ends_with("/e-1"));
    }

    #[test]
    fn a_disk_that_no_dynamic_vhd_holds_is_converted_to_raw() {
        let large = (3_u64 << 40).to_be_bytes();
        let mut head = padded(b"QFI\xFB\0\0\0\x03");
        head[24..32].copy_from_slice(&large);
        let storage = Memory::new(head).named("big.qcow2");
        let error = refuse(&storage).unwrap_err();
        assert_eq!(
            error.hint(),
            Some("convert it first: qemu-img convert -O raw big.qcow2 big.raw")
        );
    }

    #[test]
    fn no_program_takes_a_name_for_an_address_or_an_option() {
        for (name, text) in [
            ("a b.vhd", "'a b.vhd'"),
            ("-x", "./-x"),
            ("nas:disk.vhd", "./nas:disk.vhd"),
            ("dir/a:b", "dir/a:b"),
            ("json:{}", "'./json:{}'"),
        ] {
            assert_eq!(word(Path::new(name)), text);
        }
    }

    #[test]
    fn names_of_what_is_not_written_are_known() {
        for name in [
            "a.vhdx",
            "a.QCOW2",
            "a.avhdx",
            "a.vmdk",
            "a.vdi",
            "a.vhd.gz",
            "a.ova",
            "a.vhddiff",
            "a.E01",
        ] {
            assert!(named(Path::new(name)).is_some(), "{name}");
        }
        for name in [
            "a.vhd", "a.avhd", "a.raw", "a.img", "a.iso", "a.dd", "a", "vhdx", "a.bin",
        ] {
            assert!(named(Path::new(name)).is_none(), "{name}");
        }
    }
}
