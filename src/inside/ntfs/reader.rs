//! Reads the records of a file.

use super::Ntfs;
use super::record::{Attribute, File, NUMBER, Value, kind, put_right};
use crate::error::Result;
use crate::inside::model::{NodeId, Run};
use crate::inside::read::{Fields, utf16};
use crate::page::to_usize;

/// The most records over which a file may be spread.
const MOST_PARTS: usize = 4096;

impl Ntfs<'_> {
    /// Reads a record and restores the last two bytes of each sector, which are stored elsewhere.
    pub(super) fn fields(&self, number: u64) -> Result<Fields> {
        let place = self.record_place(number)?;
        let f = self.volume.fields(place, to_usize(self.record))?;
        put_right(f, *b"FILE")
    }

    pub(super) fn attributes(&self, f: &Fields) -> Result<Vec<Attribute>> {
        let mut at = usize::from(f.u16(20)?);
        let mut found = Vec::new();
        while at + 8 <= f.bytes.len() {
            let kind = f.u32(at)?;
            if kind == u32::MAX {
                break;
            }
            let len = to_usize(u64::from(f.u32(at + 4)?));
            if len < 24 || len > f.bytes.len() - at {
                return Err(f.damaged("an attribute has an impossible length"));
            }
            let a = f.sub(at, len)?;
            let name = utf16(a.part(usize::from(a.u16(10)?), 2 * usize::from(a.u8(9)?))?);
            let value = if a.u8(8)? == 0 {
                let len = to_usize(u64::from(a.u32(16)?));
                Value::Resident(a.sub(a.u16(20)?.into(), len)?)
            } else {
                let first = a.u64(16)?;
                Value::Runs {
                    first,
                    size: if first == 0 { a.u64(48)? } else { 0 },
                    written: if first == 0 { a.u64(56)? } else { 0 },
                    runs: self.runs_of(&a, first)?,
                }
            };
            found.push(Attribute {
                kind,
                name,
                flags: a.u16(12)?,
                value,
            });
            at += len;
        }
        Ok(found)
    }

    /// Decodes pairs of a length and a distance from the previous location, each in as few bytes as it needs.
    fn runs_of(&self, a: &Fields, first: u64) -> Result<Vec<Run>> {
        let mut at = usize::from(a.u16(32)?);
        let (mut vcn, mut lcn) = (first, 0_i64);
        let mut runs: Vec<Run> = Vec::new();
        loop {
            let head = a.u8(at)?;
            if head == 0 {
                return Ok(runs);
            }
            let (lens, places) = (usize::from(head & 15), usize::from(head >> 4));
            if lens == 0 || lens > 8 || places > 8 {
                return Err(a.damaged("a run has an impossible length"));
            }
            let number = |bytes: &[u8], signed: bool| {
                let fill = if signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0) {
                    0xFF
                } else {
                    0
                };
                let mut wide = [fill; 8];
                wide.iter_mut()
                    .zip(bytes)
                    .for_each(|(to, byte)| *to = *byte);
                wide.iter()
                    .rev()
                    .fold(0_u64, |n, byte| n << 8 | u64::from(*byte))
            };
            let len = number(a.part(at + 1, lens)?, false);
            let place = a.part(at + 1 + lens, places)?;
            let end = vcn.checked_add(len).filter(|end| *end <= 1 << 52);
            let (Some(end), 1..) = (end, len) else {
                return Err(a.damaged("a run has an impossible length"));
            };
            if !place.is_empty() {
                lcn = lcn.wrapping_add(number(place, true).cast_signed());
                let start = u64::try_from(lcn).ok();
                let start = start.filter(|start| {
                    start
                        .checked_add(len)
                        .is_some_and(|end| end <= self.clusters)
                });
                let start =
                    start.ok_or_else(|| a.damaged("a run is beyond the end of the file system"))?;
                runs.push(Run {
                    logical: vcn * self.cluster,
                    place: start * self.cluster,
                    len: len * self.cluster,
                    written: true,
                });
            }
            (vcn, at) = (end, at + 1 + lens + places);
        }
    }

    /// The other records of a file, from its attribute list.
    pub(super) fn other_records(&self, id: NodeId, attributes: &[Attribute]) -> Result<Vec<u64>> {
        let Some(list) = attributes
            .iter()
            .find(|attribute| attribute.kind == kind::LIST)
        else {
            return Ok(Vec::new());
        };
        let f = match &list.value {
            Value::Resident(f) => f.clone(),
            Value::Runs { size, runs, .. } => {
                let len = to_usize(*size);
                let mut bytes = Vec::new();
                for run in runs {
                    let left = len.saturating_sub(bytes.len());
                    bytes.extend(self.volume.bytes(run.place, to_usize(run.len).min(left))?);
                }
                Fields {
                    bytes,
                    at: runs.first().map_or(0, |run| self.volume.on_disk(run.place)),
                }
            }
        };
        let (mut at, mut found) = (0, Vec::new());
        while at + 26 <= f.bytes.len() {
            let len = usize::from(f.u16(at + 4)?);
            if len < 26 {
                break;
            }
            let number = f.u64(at + 16)? & NUMBER;
            if number != id && !found.contains(&number) {
                if found.len() == MOST_PARTS {
                    return Err(f.damaged("a file is spread over impossibly many records"));
                }
                found.push(number);
            }
            at += len;
        }
        Ok(found)
    }

    pub(super) fn file(&self, id: NodeId) -> Result<File> {
        let base = self.fields(id)?;
        if base.u16(22)? & 1 == 0 || base.u64(32)? & NUMBER != 0 {
            return Err(base
                .damaged("this record doesn't belong to a file")
                .with_found(id));
        }
        let mut attributes = self.attributes(&base)?;
        for number in self.other_records(id, &attributes)? {
            let f = self.fields(number)?;
            if f.u64(32)? & NUMBER == id {
                attributes.extend(self.attributes(&f)?);
            }
        }
        Ok(File { base, attributes })
    }
}
