//! Opening a VHD, based on a check of its structures.

use super::check::{self, Facts, Footers, Place, Report, Why, no_vhd};
use super::dynamic::Dynamic;
use super::image::Unwritten;
use super::parent::{self, Backing};
use super::salvage::{self, Salvaged};
use super::table::Table;
use super::{
    DiskType, DynamicHeader, Footer, ParentPath, ParentRequest, ParentResolver, SECTOR_SIZE,
    VhdImage,
};
use crate::error::{Error, Result};
use crate::page::PageRange;
use crate::storage::ReadAt;

/// How to treat the parent of a differencing disk.
#[allow(missing_debug_implementations, reason = "it borrows a trait")]
pub enum ParentPolicy<'a> {
    /// Refuse the disk, since it can't be read without its parent.
    Refused,
    /// Open the disk without its parent, to inspect its structures and the data it stores itself. Reading anything else
    /// is an error.
    LeftOut,
    /// Open its parent through the resolver.
    Resolved(&'a mut dyn ParentResolver),
}

impl<S: ReadAt> VhdImage<S> {
    /// Opens the VHD in `storage`. If [`check`](super::check) finds errors, fails with the first one. Bitmaps aren't
    /// checked: nothing found in them is an error.
    ///
    /// The trailing footer is in force, and its copy at the start only if the trailing one is damaged (specification,
    /// "Hard Disk Footer Format"). A differencing disk is refused, since it can't be read without its parent.
    pub fn open(storage: S) -> Result<Self> {
        Self::open_over(storage, ParentPolicy::Refused)
    }

    /// As [`open`](Self::open), but has `resolver` open the parent of a differencing disk.
    pub fn open_with(storage: S, resolver: &mut dyn ParentResolver) -> Result<Self> {
        Self::open_over(storage, ParentPolicy::Resolved(resolver))
    }

    /// As [`open`](Self::open), but treats the parent of a differencing disk according to `family`.
    pub fn open_over(storage: S, family: ParentPolicy<'_>) -> Result<Self> {
        Self::open_as(storage, family, None)
    }

    /// As [`open_over`](Self::open_over), but as a disk of type `told`, if it can be read as that type, whatever the
    /// footer says.
    pub fn open_as(storage: S, family: ParentPolicy<'_>, told: Option<DiskType>) -> Result<Self> {
        let parts = check::judge(&storage, told).and_then(|report| {
            report.refuse_errors()?;
            Parts::new(&report, None, &storage, family)
        });
        Self::of_parts(parts, storage)
    }

    /// Opens what is left of a damaged VHD, read-only: the ranges in [`lost`](Self::lost) read as if they had never
    /// been stored. The errors are among the [`warnings`](Self::warnings). A fixed disk that is followed by data is
    /// extended to its footer.
    ///
    /// # Errors
    ///
    /// [`Damaged`](crate::error::ErrorKind::Damaged) if the location of the data can't be determined.
    pub fn salvage(storage: S, family: ParentPolicy<'_>) -> Result<Self> {
        Self::salvage_as(storage, family, None)
    }

    /// As [`salvage`](Self::salvage), but as a disk of type `told`, if it can be read as that type.
    pub fn salvage_as(
        storage: S,
        family: ParentPolicy<'_>,
        told: Option<DiskType>,
    ) -> Result<Self> {
        let parts = check::judge(&storage, told).and_then(|report| {
            let left = if report.errors > 0 || report.facts.slack_has_data {
                let left = salvage::salvage(&report.facts);
                Some(left.map_err(|error| match report.first_remedy() {
                    Some(remedy) => error.override_remedy(remedy),
                    None => error,
                })?)
            } else {
                None
            };
            Parts::new(&report, left, &storage, family)
        });
        Self::of_parts(parts, storage)
    }

    fn of_parts(parts: Result<Parts>, storage: S) -> Result<Self> {
        match parts {
            Ok(parts) => Ok(Self {
                footer: parts.footer,
                dynamic: parts.dynamic,
                end: parts.end,
                unwritten: parts.unwritten,
                warnings: {
                    let named = |warning: Error| warning.with_path(storage.name());
                    parts.warnings.into_iter().map(named).collect()
                },
                lost: parts.lost,
                is_told: parts.is_told,
                slack_has_data: parts.slack_has_data,
                parent_paths: parts.parent_paths,
                storage,
            }),
            Err(error) => Err(error.with_path(storage.name())),
        }
    }
}

/// An image without its storage.
struct Parts {
    footer: Footer,
    dynamic: Option<Dynamic>,
    end: u64,
    unwritten: Unwritten,
    warnings: Vec<Error>,
    lost: Vec<PageRange>,
    is_told: bool,
    slack_has_data: bool,
    parent_paths: Vec<ParentPath>,
}

impl Parts {
    /// Builds the parts from `report`; `left` describes the rest of a damaged disk.
    fn new<S: ReadAt>(
        report: &Report,
        left: Option<Salvaged>,
        storage: &S,
        family: ParentPolicy<'_>,
    ) -> Result<Self> {
        let facts = &report.facts;
        let believed = facts.footers.believed_as_taken();
        let believed = believed.ok_or_else(|| no_vhd(&facts.footers))?;
        let footer = left
            .as_ref()
            .map_or(&believed.footer, |left| &left.footer)
            .clone();
        let differencing = footer.disk_type == DiskType::Differencing;
        if differencing && matches!(family, ParentPolicy::Refused) {
            return Err(needs_parent(&footer, believed.at));
        }
        let data_end = facts.footers.data_end();
        let mut parts = Self {
            dynamic: None,
            end: data_end,
            unwritten: unwritten(report, &footer),
            warnings: report.told(),
            lost: Vec::new(),
            is_told: facts.footers.is_told(),
            slack_has_data: facts.slack_has_data && left.is_none(),
            parent_paths: Vec::new(),
            footer,
        };
        parts.warnings.extend(told(&facts.footers));
        if parts.footer.disk_type.is_sparse() {
            parts.read_blocks(facts, left.as_ref(), storage)?;
        }
        parts.lost = left.map(|left| left.lost).unwrap_or_default();
        if let Some(dynamic) = parts.dynamic.as_mut().filter(|_| differencing) {
            parts.parent_paths = parent::read_paths(storage, &dynamic.header)?;
            if let ParentPolicy::Resolved(resolver) = family {
                let (footer, paths) = (&parts.footer, &parts.parent_paths);
                dynamic.beneath =
                    resolve(storage.name(), footer, &dynamic.header, paths, resolver)?;
            } else {
                dynamic.beneath = Backing::Unknown;
            }
        }
        Ok(parts)
    }

    fn read_blocks<S: ReadAt>(
        &mut self,
        facts: &Facts,
        left: Option<&Salvaged>,
        storage: &S,
    ) -> Result<()> {
        let (header, _) = facts
            .header
            .as_ref()
            .ok_or_else(|| no_vhd(&facts.footers))?;
        let header = left
            .and_then(|left| left.header.as_ref())
            .unwrap_or(header)
            .clone();
        let block_size = u64::from(header.block_size).max(SECTOR_SIZE);
        let blocks = self.footer.current_size.div_ceil(block_size);
        let mut table = Table::read(storage, header.table_offset, blocks)?;
        for block in left.iter().flat_map(|_| &facts.lost.blocks) {
            table.lose(*block);
        }
        let mut data_end = self.end;
        if facts.footers.displaced.is_some() && left.is_none() {
            // Data after the footer is kept: new blocks, and the footer, go after it.
            data_end = facts.footers.file_len.next_multiple_of(SECTOR_SIZE);
        }
        let mut dynamic = Dynamic::new(header, table, blocks, data_end);
        dynamic.reads_zeros_behind = left.is_some();
        dynamic.shares_tail = facts.shares_tail;
        if let Some(left) = left {
            dynamic.lost.clone_from(&left.lost);
            for block in &facts.lost.bitmaps {
                dynamic.set_known_full(*block);
            }
        }
        let used_end = facts.used_end.unwrap_or(0);
        self.end = data_end.next_multiple_of(SECTOR_SIZE).max(used_end);
        self.dynamic = Some(dynamic);
        Ok(())
    }
}

/// Determines which footers are missing, misplaced or wrong.
fn unwritten(report: &Report, footer: &Footer) -> Unwritten {
    let footers = &report.facts.footers;
    let is_short = footers.trailing.as_ref().is_some_and(|seen| seen.is_short);
    let is_sparse = footer.disk_type.is_sparse();
    Unwritten {
        trailing: match footers.in_force {
            Some(Place::Trailing) => is_short && is_sparse || report.found("type-label"),
            Some(Place::Displaced) => is_sparse,
            Some(Place::Copy) | None => true,
        },
        copy: is_sparse && report.found("footer-copy-damaged")
            || report.found("footer-copy-differs"),
    }
}

fn resolve(
    child: &std::path::Path,
    footer: &Footer,
    header: &DynamicHeader,
    paths: &[ParentPath],
    resolver: &mut dyn ParentResolver,
) -> Result<Backing> {
    let request = ParentRequest {
        child,
        child_id: footer.unique_id,
        parent_id: header.parent_unique_id,
        parent_timestamp: header.parent_timestamp,
        parent_name: &header.parent_name(),
        paths,
    };
    Backing::resolve(&request, footer.current_size, resolver)
}

/// The warning if the disk is read as another type than its footer's because the caller asked for it.
fn told(footers: &Footers) -> Option<Error> {
    let taken = footers.taken.filter(|taken| taken.why == Why::AsTold)?;
    let seen = footers.believed()?;
    let error =
        Error::damaged("the disk is read as the specified type, not as the one in its footer")
            .with_field("footer.disk_type")
            .with_offset(seen.at.saturating_add(60))
            .with_found(seen.footer.disk_type)
            .with_expected(taken.disk_type);
    Some(error)
}

fn needs_parent(footer: &Footer, at: u64) -> Error {
    Error::unsupported("this is a differencing VHD: most of its data is in its parent")
        .with_field("footer.disk_type")
        .with_offset(at.saturating_add(60))
        .with_found(footer.disk_type)
        .with_expected("fixed or dynamic")
        .with_hint("open it together with its parent")
}
