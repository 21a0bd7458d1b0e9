//! What a file is, from its first and last bytes.

use std::path::Path;

use crate::diff::MAGIC;
use crate::error::{Error, Result};
use crate::page::PAGE_SIZE;
use crate::storage::ReadAt;
use crate::vhd::{DiskType, FooterPlace, VhdImage};

/// Bytes from the start that tell one format from another.
const HEAD: usize = 512;

/// What the bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probed {
    /// A VHD, by its footer or by the footer's copy.
    Vhd,
    /// Nothing that is known: the bytes themselves are the virtual disk.
    Raw,
    /// The same, but the footer of a fixed VHD stands at this offset, before the end. Whoever writes the last bytes of
    /// a disk must not decide what it is.
    RawOrFixed(u64),
}

/// Looks at `storage`. What is known and is no image that can be read here is an error that says so.
///
/// The footer at the end decides: a guest can write anything into the first sectors of its disk, which are the
/// first bytes of a fixed VHD, but nothing behind the last one.
pub(super) fn probe<S: ReadAt>(storage: &S) -> Result<Probed> {
    let len = storage.byte_len()?;
    if len == 0 {
        return Err(Error::damaged("the file is empty")
            .path(storage.name())
            .hint("this is no image: copy it again from its source, or name another file"));
    }
    let raw = match VhdImage::probe(storage)? {
        None => Probed::Raw,
        Some(hint) => match hint.place {
            // A file that is no whole number of pages can't be raw.
            FooterPlace::Displaced(at)
                if hint.footer.disk_type == DiskType::Fixed && len.is_multiple_of(PAGE_SIZE) =>
            {
                Probed::RawOrFixed(at)
            }
            _ => return Ok(Probed::Vhd),
        },
    };
    let mut head = [0; HEAD];
    let head = &mut head[..usize::try_from(len).map_or(HEAD, |len| len.min(HEAD))];
    storage.read_exact_at(head, 0)?;
    if is_later_part(storage.name()) {
        return Err(Error::unsupported("this is a later part of a split image")
            .path(storage.name())
            .hint(
                "join the parts into one file first, the .vhd, then .v01, .v02 and so on; or take its bytes as they \
                 are with -f raw",
            ));
    }
    match Foreign::of(head) {
        Some(foreign) => Err(foreign.refusal().path(storage.name())),
        None => Ok(raw),
    }
}

/// Whether the file is named as Virtual PC names the parts of a split image behind the first: `.v01` to `.v63`.
fn is_later_part(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().as_encoded_bytes();
    matches!(extension, [b'v' | b'V', tens, units]
        if tens.is_ascii_digit() && units.is_ascii_digit())
}

/// Something else that people have lying beside their images.
enum Foreign {
    Diff,
    Image(&'static str),
    Packed(&'static str, &'static str),
}

impl Foreign {
    fn of(head: &[u8]) -> Option<Self> {
        const VDI_SIGNATURE: &[u8] = &[0x7F, 0x10, 0xDA, 0xBE];
        let found = match head {
            _ if head.starts_with(&MAGIC) => Self::Diff,
            _ if head.starts_with(b"vhdxfile") => Self::Image("VHDX"),
            _ if head.starts_with(b"QFI\xFB") => Self::Image("qcow2"),
            _ if head.starts_with(b"KDMV") || head.starts_with(b"# Disk DescriptorFile") => {
                Self::Image("VMDK")
            }
            _ if head.get(64..68) == Some(VDI_SIGNATURE) => Self::Image("VDI"),
            _ if head.starts_with(&[0x1F, 0x8B, 8]) => Self::Packed("gzip", "gunzip"),
            _ if head.starts_with(b"\xFD7zXZ\0") => Self::Packed("xz", "unxz"),
            _ if head.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) => Self::Packed("zstd", "unzstd"),
            _ => return None,
        };
        Some(found)
    }

    fn refusal(&self) -> Error {
        match self {
            Self::Diff => Error::usage("this is a diff, not an image")
                .hint("look into it with vhd show, or bring a base to its target with vhd-apply"),
            Self::Image(name) => Error::unsupported(format!(
                "this is a {name} image, which is not read here"
            ))
            .hint("convert it to raw or VHD first, or take its bytes as they are with -f raw"),
            Self::Packed(name, tool) => {
                Error::unsupported(format!("this is a file packed with {name}")).hint(format!(
                    "unpack it with {tool} first, or take its bytes as they are with -f raw"
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::Memory;

    const VHD_COOKIE: &[u8] = b"conectix";

    fn probed(pieces: &[(usize, &[u8])], len: usize) -> Result<Probed> {
        let mut bytes = vec![0; len];
        for (at, piece) in pieces {
            bytes[*at..*at + piece.len()].copy_from_slice(piece);
        }
        probe(&Memory::new(bytes))
    }

    fn refused(head: &[u8], at: usize) -> ErrorKind {
        probed(&[(at, head)], 4096).unwrap_err().kind()
    }

    #[test]
    fn a_footer_or_its_copy_makes_a_vhd() {
        assert_eq!(
            probed(&[(4096 - 512, VHD_COOKIE)], 4096).unwrap(),
            Probed::Vhd
        );
        assert_eq!(
            probed(&[(4096, VHD_COOKIE)], 4096 + 511).unwrap(),
            Probed::Vhd
        );
        let dynamic: [(usize, &[u8]); 2] = [(0, VHD_COOKIE), (60, &[0, 0, 0, 3])];
        assert_eq!(probed(&dynamic, 4096).unwrap(), Probed::Vhd);
        assert_eq!(probed(&[], 4096).unwrap(), Probed::Raw);
    }

    #[test]
    fn the_footer_at_the_end_beats_whatever_a_guest_wrote_at_the_start() {
        let bytes: [(usize, &[u8]); 2] = [(0, b"QFI\xFB"), (4096 - 512, VHD_COOKIE)];
        assert_eq!(probed(&bytes, 4096).unwrap(), Probed::Vhd);
    }

    #[test]
    fn other_formats_are_named() {
        assert_eq!(refused(b"\x89VHDDIF\n", 0), ErrorKind::Usage);
        for head in [
            b"vhdxfile".as_slice(),
            b"QFI\xFB",
            b"KDMV",
            b"# Disk DescriptorFile",
            &[0x1F, 0x8B, 8],
            &[0x28, 0xB5, 0x2F, 0xFD],
            b"\xFD7zXZ\0",
        ] {
            assert_eq!(refused(head, 0), ErrorKind::Unsupported, "{head:x?}");
        }
        assert_eq!(
            refused(&[0x7F, 0x10, 0xDA, 0xBE], 64),
            ErrorKind::Unsupported
        );
    }

    #[test]
    fn a_later_part_of_a_split_image_is_no_raw_image() {
        let part = |name: &str| probe(&Memory::new(vec![7; 1024]).named(name));
        for name in ["disk.v01", "disk.V63"] {
            assert_eq!(part(name).unwrap_err().kind(), ErrorKind::Unsupported);
        }
        for name in ["disk.v1", "disk.v011", "v01", "disk.vhd"] {
            assert_eq!(part(name).unwrap(), Probed::Raw, "{name}");
        }
    }

    #[test]
    fn files_of_any_length_are_looked_at() {
        assert!(probed(&[], 0).is_err());
        for len in [1, 7, 8, 67, 68, 510, 511, 512, 513] {
            assert_eq!(probed(&[], len).unwrap(), Probed::Raw, "{len}");
        }
    }
}
