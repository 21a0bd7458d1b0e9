//! Is this a VHD? A cheap look before opening.

use super::open::{read_copy, read_trailing};
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
    /// The first 512 bytes, and there is none at the end: what is left of a dynamic disk that was cut off.
    Copy,
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
    /// What speaks for `storage` being a VHD, or `None` if nothing does: the cookie of a footer at its end, or at
    /// its start that of a dynamic disk's. Reads at most two sectors.
    pub fn probe(storage: &S) -> Result<Option<ProbeHint>> {
        let len = storage.byte_len()?;
        if let Some(found) = read_trailing(storage, len)?
            && found.has_cookie()
        {
            return Ok(Some(found.into_hint()));
        }
        // The first sector belongs to the guest unless it is a sparse disk's copy.
        Ok(read_copy(storage, len)?
            .filter(|found| found.has_cookie() && found.footer.disk_type.is_sparse())
            .map(super::open::Found::into_hint))
    }
}
