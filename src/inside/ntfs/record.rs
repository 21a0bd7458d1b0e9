//! Records of the file table and their attributes.

use crate::error::Result;
use crate::inside::model::Run;
use crate::inside::read::Fields;

/// The lower 48 bits of a reference are the record number.
pub(super) const NUMBER: u64 = (1 << 48) - 1;

/// The most runs of an attribute that are read.
pub(super) const MOST_RUNS: usize = 4 << 20;

pub(super) mod kind {
    pub(crate) const LIST: u32 = 0x20;
    pub(crate) const STANDARD: u32 = 0x10;
    pub(crate) const DATA: u32 = 0x80;
    pub(crate) const INDEX_ROOT: u32 = 0x90;
    pub(crate) const INDEX: u32 = 0xA0;
    pub(crate) const BITMAP: u32 = 0xB0;
    pub(crate) const REPARSE: u32 = 0xC0;
}

/// An attribute of a record.
#[derive(Debug)]
pub(super) struct Attribute {
    pub(super) kind: u32,
    pub(super) name: String,
    pub(super) flags: u16,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Resident(Fields),
    Runs {
        first: u64,
        size: u64,
        written: u64,
        runs: Vec<Run>,
    },
}

/// A file, assembled from its records.
pub(super) struct File {
    pub(super) base: Fields,
    pub(super) attributes: Vec<Attribute>,
}

impl File {
    pub(super) fn parts(&self, kind: u32, name: &str) -> impl Iterator<Item = &Attribute> {
        self.attributes
            .iter()
            .filter(move |part| part.kind == kind && part.name == name)
    }

    /// The runs of an attribute in order, its size, and its initialized length.
    pub(super) fn runs(&self, kind: u32, name: &str) -> Result<(Vec<Run>, u64, u64)> {
        let (mut all, mut total, mut filled): (Vec<Run>, _, _) = (Vec::new(), 0, 0);
        for part in self.parts(kind, name) {
            if let Value::Runs {
                first,
                size,
                written,
                runs,
            } = &part.value
            {
                if *first == 0 {
                    (total, filled) = (*size, *written);
                }
                all.extend(runs);
                if all.len() > MOST_RUNS {
                    return Err(self.base.damaged("a file has impossibly many runs"));
                }
            }
        }
        all.sort_by_key(|run| run.logical);
        Ok((all, total, filled))
    }
}

/// Restores the last two bytes of each sector of a record, which are stored elsewhere in it.
pub(super) fn put_right(mut f: Fields, magic: [u8; 4]) -> Result<Fields> {
    const SECTOR: usize = 512;
    if f.part(0, 4)? != magic {
        return Err(f.damaged("a record begins with a different signature"));
    }
    let (at, count) = (usize::from(f.u16(4)?), usize::from(f.u16(6)?));
    if count == 0 || (count - 1) * SECTOR > f.bytes.len() {
        return Err(f.damaged("a record has an impossible number of sectors"));
    }
    let mark = f.part(at, 2)?.to_vec();
    for n in 1..count {
        let kept = f.part(at + 2 * n, 2)?.to_vec();
        let end = n * SECTOR - 2;
        if f.part(end, 2)? != mark {
            return Err(f.damaged("a record was only partly written"));
        }
        if let Some(there) = f.bytes.get_mut(end..end + 2) {
            there.copy_from_slice(&kept);
        }
    }
    Ok(f)
}
