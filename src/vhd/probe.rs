//! A quick test for VHDs, before opening.

use std::path::Path;

use super::check::{Footers, Place};
use super::{Footer, VhdImage};
use crate::error::Result;
use crate::storage::ReadAt;

/// The location of a footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FooterPlace {
    /// The last 512 bytes of the file.
    Trailing,
    /// The last 511 bytes: written before Virtual PC 2004.
    Trailing511,
    /// Before the end of the file, at this offset: something was appended to the file.
    Displaced(u64),
    /// The first 512 bytes, with none at the end: the rest of a truncated dynamic disk.
    Copy,
}

/// Returns whether `path` has the extension of a VHD: `.vhd`, or `.avhd` as Hyper-V names children.
pub fn is_named_vhd(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    extension.eq_ignore_ascii_case("vhd") || extension.eq_ignore_ascii_case("avhd")
}

/// Evidence of a VHD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeHint {
    /// The location of the footer.
    pub place: FooterPlace,
    /// The footer as found.
    pub footer: Footer,
    /// Whether its cookie and checksum are correct. If not, the file was meant to be a VHD, and opening it reports the
    /// problem.
    pub intact: bool,
}

impl<S: ReadAt> VhdImage<S> {
    /// Looks for evidence that `storage` is a VHD: an intact footer, a damaged one that was meant as a footer, or a
    /// dynamic disk header after the place of a footer copy. Returns `None` if there is none. Reads a few sectors and,
    /// if they contain none of these, the last MiB.
    pub fn probe(storage: &S) -> Result<Option<ProbeHint>> {
        let footers = Footers::read(storage, None).map_err(|e| e.with_path(storage.name()))?;
        if !footers.is_vhd {
            return Ok(None);
        }
        let seen = footers.believed_as_taken().or_else(|| footers.copy.clone());
        Ok(seen.map(|seen| ProbeHint {
            place: match footers.in_force {
                Some(Place::Displaced) => FooterPlace::Displaced(seen.at),
                _ if seen.is_short => FooterPlace::Trailing511,
                _ if seen.at == 0 => FooterPlace::Copy,
                _ => FooterPlace::Trailing,
            },
            intact: seen.intact,
            footer: seen.footer,
        }))
    }
}
