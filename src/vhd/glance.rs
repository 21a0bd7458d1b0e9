//! What a VHD says of itself and of its parent, at the cost of a few sectors.

use super::{
    DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, ParentPath, UniqueId, VhdImage,
    read_paths,
};
use crate::error::Result;
use crate::storage::ReadAt;

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;
const HEADER_LEN: u64 = HEADER_SIZE as u64;

/// What [`VhdImage::glance`] saw.
#[derive(Debug, Clone)]
pub struct Glance {
    /// The footer at the end of the file, or else its copy at the start.
    pub footer: Footer,
    /// The dynamic disk header, if there is one where the footer says, or else in the usual place.
    pub header: Option<DynamicHeader>,
    /// What its locators say, for a differencing disk.
    pub paths: Vec<ParentPath>,
    /// Whether footer and header, as far as the disk has one, have their right checksums.
    pub intact: bool,
}

impl Glance {
    /// The identity of the parent that a differencing disk names; all zeros stand for a raw image.
    pub fn parent_id(&self) -> Option<UniqueId> {
        let header = self.header.as_ref()?;
        let differencing = self.footer.disk_type == DiskType::Differencing;
        // Of one whose footers are damaged, the header alone can tell that it has a parent.
        let named = !self.intact && !header.parent_unique_id.is_nil();
        (differencing || named).then_some(header.parent_unique_id)
    }
}

impl<S: ReadAt> VhdImage<S> {
    /// Looks at both ends of `storage`, and at the header that a footer there points at: for searches among many files,
    /// most of which are none. Nothing that is said is checked but for its checksum. `None` if there is no footer at
    /// either end; unlike [`probe`](Self::probe), a footer within the file isn't looked for.
    pub fn glance(storage: &S) -> Result<Option<Glance>> {
        let len = storage.byte_len()?;
        if len < FOOTER_LEN {
            return Ok(None);
        }
        let mut copy = [0; FOOTER_SIZE];
        storage.read_exact_at(&mut copy, 0)?;
        let mut end = [0; FOOTER_SIZE];
        storage.read_exact_at(&mut end, len - FOOTER_LEN)?;
        // The last byte is missing from what some old programs wrote.
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
