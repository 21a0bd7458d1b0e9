//! The data found where a footer belongs.

use crate::vhd::{DiskType, FOOTER_SIZE, Footer, Version};

/// The data found where a footer belongs, decoded as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::vhd) struct FooterCandidate {
    pub(in crate::vhd) footer: Footer,
    pub(in crate::vhd) at: u64,
    /// Whether cookie and checksum are right.
    pub(in crate::vhd) intact: bool,
    /// Whether its last byte is missing, as in files from before Virtual PC 2004.
    pub(in crate::vhd) is_short: bool,
}

impl FooterCandidate {
    pub(super) fn new(bytes: &[u8; FOOTER_SIZE], at: u64, is_short: bool) -> Self {
        let footer = Footer::decode(bytes);
        Self {
            intact: footer.verify_intact(at).is_ok(),
            footer,
            at,
            is_short,
        }
    }

    pub(super) fn has_cookie(&self) -> bool {
        [Footer::COOKIE, Footer::POISON].contains(&self.footer.cookie)
    }

    /// Returns whether it was meant as a footer, judged by its cookie or by fields that nothing else has.
    pub(in crate::vhd) fn is_meant(&self) -> bool {
        let known = !matches!(self.footer.disk_type, DiskType::Other(_));
        let shaped = self.footer.file_format_version == Version::ONE
            && self.footer.features & !3 == 0
            && self.footer.current_size > 0;
        self.has_cookie() || (known && shaped)
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.footer.cookie == Footer::POISON
    }
}
