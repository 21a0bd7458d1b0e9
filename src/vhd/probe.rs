//! Is this a VHD? A cheap look before opening.

use std::path::Path;

use super::check::{Footers, Place};
use super::{Footer, VhdImage};
use crate::error::Result;
use crate::storage::ReadAt;

/// Where a footer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FooterPlace {
    /// The last 512 bytes of the file.
    Trailing,
    /// The last 511 bytes: written before Virtual PC 2004.
    Trailing511,
    /// Before the end of the file, at this offset: something was put behind it.
    Displaced(u64),
    /// The first 512 bytes, and there is none at the end: what is left of a dynamic disk that was cut off.
    Copy,
}

/// Whether a file at `path` has the name of a VHD: `.vhd`, or `.avhd` as Hyper-V calls the children that it makes.
pub fn is_named_vhd(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    extension.eq_ignore_ascii_case("vhd") || extension.eq_ignore_ascii_case("avhd")
}

/// What speaks for a VHD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeHint {
    /// Where the footer stands.
    pub place: FooterPlace,
    /// The footer as found.
    pub footer: Footer,
    /// Whether its cookie and checksum are right. With a damaged one the file was meant to be a VHD, and opening
    /// it says what is wrong.
    pub intact: bool,
}

impl<S: ReadAt> VhdImage<S> {
    /// What speaks for `storage` being a VHD, or `None` if nothing does: an intact footer, one that is damaged but
    /// was meant as one, or a dynamic disk header behind where a copy belongs. Reads a few sectors, and of what
    /// has none of these the last MiB.
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
