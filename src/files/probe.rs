//! Detects what a file is from its first and last bytes.

use std::path::Path;

use super::{foreign, split};
use crate::error::{Error, Reason, Result};
use crate::page::PAGE_SIZE;
use crate::remedy::{Act, Remedy, Step};
use crate::storage::ReadAt;
use crate::vhd::{DiskType, FooterPlace, ProbeHint, VhdImage, is_named_vhd, is_optical_image};

/// The detected kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probed {
    /// A VHD, by its footer or by the footer's copy.
    Vhd,
    /// Unknown: the bytes themselves are the virtual disk, unless one of the doubts is justified.
    Raw(Vec<Doubt>),
}

/// Why a file that is read as a raw disk may be something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// There is a footer of a fixed VHD at this offset, before the end. The guest controls the last sectors of a raw
    /// disk, so a footer there proves nothing.
    FooterInside(u64),
    /// It has the name of a VHD but no footer.
    NoFooter,
    /// It is an image of a CD or DVD.
    Optical,
}

/// Detects what `storage` is. Fails if it is known not to be a supported image.
///
/// The footer at the end decides: a guest can write anything to the first sectors of its disk, which are the first
/// bytes of a fixed VHD, but nothing after the last one. `option` is the name of the option that specifies the format,
/// for hints.
pub(super) fn probe<S: ReadAt>(storage: &S, option: Option<&str>) -> Result<Probed> {
    let len = storage.byte_len()?;
    if len == 0 {
        return Err(Error::damaged("the file is empty")
            .with_path(storage.name())
            .with_hint("copy it again from its source, or name another file"));
    }
    let mut doubts = Vec::new();
    if let Some(hint) = VhdImage::probe(storage)? {
        match hint.place {
            // A file that isn't a whole number of pages can't be raw.
            FooterPlace::Displaced(at)
                if hint.footer.disk_type == DiskType::Fixed && len.is_multiple_of(PAGE_SIZE) =>
            {
                doubts.push(Doubt::FooterInside(at));
            }
            _ => {
                if may_be_part(&hint, len) {
                    split::refuse(storage.name(), None)?;
                }
                return Ok(Probed::Vhd);
            }
        }
    }
    refuse_not_disk(storage, option)?;
    if doubts.is_empty() && is_named_vhd(storage.name()) {
        doubts.push(Doubt::NoFooter);
    }
    if is_optical_image(storage)? {
        doubts.push(Doubt::Optical);
    }
    Ok(Probed::Raw(doubts))
}

/// Fails if `storage` has an unsupported format, or is a part of an image. Problems with a VHD are left to whoever
/// opens it.
pub(super) fn refuse_foreign<S: ReadAt>(storage: &S, option: Option<&str>) -> Result<()> {
    match probe(storage, option) {
        Err(error) if error.kind() == crate::error::ErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    }
}

/// As [`refuse_foreign`], for a file that is known not to be a VHD.
pub(super) fn refuse_not_disk<S: ReadAt>(storage: &S, option: Option<&str>) -> Result<()> {
    foreign::refuse(storage)?;
    split::refuse(storage.name(), option)
}

/// Returns whether a VHD may be the first or the last part of a split one: its footer is only at the start, or it is
/// shorter than the disk.
fn may_be_part(hint: &ProbeHint, len: u64) -> bool {
    let fixed = hint.footer.disk_type == DiskType::Fixed;
    let header_missing = hint.footer.data_offset >= len;
    match hint.place {
        FooterPlace::Copy => true,
        _ if !hint.intact => false,
        _ if fixed => hint.footer.current_size >= len,
        _ => header_missing,
    }
}

impl Doubt {
    /// The warning for readers of the file at `path`. `option` is the name of the option that specifies the format.
    pub(super) fn warning(self, path: &Path, option: Option<&str>) -> Error {
        let say =
            |text: &str| option.map_or_else(String::new, |option| format!("{text} {option} raw"));
        match self {
            Self::FooterInside(at) => Error::damaged(
                "the footer of a fixed VHD is before the end of the file, which is read as a raw image",
            )
            .with_reason(Reason::Finding("trailing-garbage"))
            .with_path(path)
            .with_field("footer.cookie")
            .with_offset(at)
            .with_remedy(
                Remedy::new("if it is a VHD, remove the data after its footer")
                    .named(": ")
                    .step(Step::Do(Act::Repair, path.to_path_buf()), "")
                    .text(say("; if it is a raw disk, use")),
            ),
            Self::NoFooter => Error::damaged(
                "there is no VHD footer at the end of the file, nor a copy of one at its beginning, which is read as a raw disk",
            )
            .with_reason(Reason::Finding("footer-missing"))
            .with_path(path)
            .with_hint(format!(
                "if it was truncated, copy it again; if it is a raw disk, give it another name{}",
                say(" or use"),
            )),
            Self::Optical => Error::damaged("this is the image of a CD or DVD, which is read as a raw disk")
                .with_reason(Reason::Finding("optical-image"))
                .with_path(path)
                .with_hint("a machine can't start from it as from a disk; attach it as a CD or DVD"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::Memory;

    const VHD_COOKIE: &[u8] = b"conectix";
    const RAW: Probed = Probed::Raw(Vec::new());

    fn probed(pieces: &[(usize, &[u8])], len: usize) -> Result<Probed> {
        let mut bytes = vec![0; len];
        for (at, piece) in pieces {
            bytes[*at..*at + piece.len()].copy_from_slice(piece);
        }
        probe(&Memory::new(bytes), None)
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
        assert_eq!(probed(&[], 4096).unwrap(), RAW);
    }

    #[test]
    fn the_footer_at_the_end_beats_whatever_a_guest_wrote_at_the_start() {
        let bytes: [(usize, &[u8]); 2] = [(0, b"QFI\xFB"), (4096 - 512, VHD_COOKIE)];
        assert_eq!(probed(&bytes, 4096).unwrap(), Probed::Vhd);
    }

    #[test]
    fn a_later_part_of_a_split_image_is_not_a_raw_image() {
        let part = |name: &str| probe(&Memory::new(vec![7; 1024]).named(name), None);
        for name in ["disk.v01", "disk.V63"] {
            assert_eq!(part(name).unwrap_err().kind(), ErrorKind::Unsupported);
        }
        for name in ["disk.v1", "disk.v011", "v01"] {
            assert_eq!(part(name).unwrap(), RAW, "{name}");
        }
    }

    #[test]
    fn a_vhd_by_its_name_alone_is_doubtful() {
        let named = |name: &str| probe(&Memory::new(vec![7; 1024]).named(name), None).unwrap();
        for name in ["a.vhd", "a.VHD", "b.avhd", "b.AvHd"] {
            assert_eq!(named(name), Probed::Raw(vec![Doubt::NoFooter]), "{name}");
        }
        for name in ["a.raw", "vhd", "a.vhd.raw", "a"] {
            assert_eq!(named(name), RAW, "{name}");
        }
        let warning = Doubt::NoFooter.warning(Path::new("a.vhd"), Some("--base-format"));
        assert!(warning.hint().unwrap().ends_with("use --base-format raw"));
    }

    #[test]
    fn a_cd_is_told_and_a_hybrid_is_a_disk() {
        let cd: [(usize, &[u8]); 1] = [(32769, b"CD001")];
        assert_eq!(
            probed(&cd, 65536).unwrap(),
            Probed::Raw(vec![Doubt::Optical])
        );
        let hybrid: [(usize, &[u8]); 2] = [(510, &[0x55, 0xAA]), (32769, b"CD001")];
        assert_eq!(probed(&hybrid, 65536).unwrap(), RAW);
    }

    #[test]
    fn files_of_any_length_are_looked_at() {
        assert!(probed(&[], 0).is_err());
        for len in [
            1, 7, 8, 67, 68, 510, 511, 512, 513, 1023, 1024, 32773, 32774,
        ] {
            assert_eq!(probed(&[], len).unwrap(), RAW, "{len}");
        }
    }
}
