//! Is this a VHD? A cheap look before opening.

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
    /// Whether its cookie and checksum are right.
    pub intact: bool,
}

impl<S: ReadAt> VhdImage<S> {
    /// What speaks for `storage` being a VHD, or `None` if nothing does. Reads at most two sectors.
    pub fn probe(_storage: &S) -> Result<Option<ProbeHint>> {
        Ok(None)
    }
}
