//! A quick look at a VHD's metadata and its parent, by reading a few sectors.

use super::{
    DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, ParentPath, UniqueId, VhdImage,
    read_paths,
};
use crate::error::Result;
use crate::storage::ReadAt;

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;
const HEADER_LEN: u64 = HEADER_SIZE as u64;

/// The result of [`VhdImage::glance`].
#[derive(Debug, Clone)]
pub struct Glance {
    /// The footer at the end of the file, or else its copy at the start.
    pub footer: Footer,
    /// The dynamic disk header, if there is one at the footer's offset or at its usual one.
    pub header: Option<DynamicHeader>,
    /// The paths in its locators, for a differencing disk.
    pub paths: Vec<ParentPath>,
    /// Whether the checksums of the footer and, if there is one, of the header are correct.
    pub intact: bool,
}

impl Glance {
    /// The identity of a differencing disk's parent; all zeros for a raw image.
    pub fn parent_id(&self) -> Option<UniqueId> {
        let header = self.header.as_ref()?;
        let differencing = self.footer.disk_type == DiskType::Differencing;
        // If its footers are damaged, only the header can show that it has a parent.
        let named = !self.intact && !header.parent_unique_id.is_nil();
        (differencing || named).then_some(header.parent_unique_id)
    }
}

impl<S: ReadAt> VhdImage<S> {
    /// Reads both ends of `storage`, and the header that a footer there points to. For searching many files, most of
    /// which aren't VHDs. Nothing is verified except for checksums. Returns `None` if there is no footer at either end;
    /// unlike [`probe`](Self::probe), it doesn't search for a footer within the file.
    pub fn glance(storage: &S) -> Result<Option<Glance>> {
        let len = storage.byte_len()?;
        if len < FOOTER_LEN {
            return Ok(None);
        }
        let mut copy = [0; FOOTER_SIZE];
        storage.read_exact_at(&mut copy, 0)?;
        let mut end = [0; FOOTER_SIZE];
        storage.read_exact_at(&mut end, len - FOOTER_LEN)?;
        // Files by some old programs lack the last byte.
        let mut short = [0; FOOTER_SIZE];
        if let (Some(to), Some(from)) = (short.get_mut(..FOOTER_SIZE - 1), end.get(1..)) {
            to.copy_from_slice(from);
        }
        let seen = [end, short, copy].map(|bytes| Footer::decode(&bytes));
        let intact = |footer: &&Footer| footer.verify_intact(0).is_ok();
        let meant = |footer: &&Footer| footer.cookie == Footer::COOKIE;
        let found = seen.iter().find(intact);
        let Some(footer) = found.or_else(|| seen.iter().find(meant)) else {
            return Ok(None);
        };
        let mut glance = Glance {
            intact: found.is_some(),
            footer: footer.clone(),
            header: None,
            paths: Vec::new(),
        };
        if footer.disk_type == DiskType::Fixed && glance.intact {
            return Ok(Some(glance));
        }
        let header = match header_at(storage, footer.data_offset, len)? {
            Some(header) => Some(header),
            None => header_at(storage, FOOTER_LEN, len)?,
        };
        glance.intact &= header.is_some();
        if let Some(header) = &header {
            glance.paths = read_paths(storage, header)?;
        }
        glance.header = header;
        Ok(Some(glance))
    }
}

fn header_at<S: ReadAt>(storage: &S, at: u64, len: u64) -> Result<Option<DynamicHeader>> {
    if at.checked_add(HEADER_LEN).is_none_or(|end| end > len) {
        return Ok(None);
    }
    let mut bytes = [0; HEADER_SIZE];
    storage.read_exact_at(&mut bytes, at)?;
    let header = DynamicHeader::decode(&bytes);
    let whole =
        header.cookie == DynamicHeader::COOKIE && header.checksum == header.compute_checksum();
    Ok(whole.then_some(header))
}
