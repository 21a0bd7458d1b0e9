//! Finds the data that two images share because one is a clone of the other, or both of a third, on a file system with
//! shared extents.

use std::collections::VecDeque;

use super::{Format, OpenImage};
use crate::image::{ExtentState, Image as _, Ranges, SharedExtents, WINDOW_SIZE, whole};
use crate::page::{PAGE_SIZE, PageRange};
use crate::storage::{PhysicalExtent, SharedPhysical};
use crate::vhd::StoredRun;

/// Reports equal ranges of two images by their physical locations. Nothing is known about differencing VHDs, or about
/// images on different file systems or on one whose answers aren't reliable.
#[derive(Debug, Clone, Copy)]
pub struct Clones<'a> {
    base: &'a OpenImage,
    target: &'a OpenImage,
}

impl<'a> Clones<'a> {
    /// Prepares the comparison of these two images.
    pub fn new(base: &'a OpenImage, target: &'a OpenImage) -> Self {
        Self { base, target }
    }
}

impl SharedExtents for Clones<'_> {
    fn equal_ranges(&self) -> Ranges<'_> {
        let spaces = self.base.file().space().zip(self.target.file().space());
        let same_space = spaces.is_some_and(|(base, target)| base.is_same(&target));
        match (DiskPlaces::of(self.base), DiskPlaces::of(self.target)) {
            (Some(base), Some(target)) if same_space => Box::new(same_places(base, target)),
            _ => Box::new(std::iter::empty()),
        }
    }
}

/// The whole pages that have the same location in both.
fn same_places(
    mut base: impl Iterator<Item = PhysicalExtent>,
    mut target: impl Iterator<Item = PhysicalExtent>,
) -> impl Iterator<Item = PageRange> {
    let mut pair = base.next().zip(target.next());
    std::iter::from_fn(move || {
        while let Some((a, b)) = pair {
            pair = match a.end.cmp(&b.end) {
                std::cmp::Ordering::Less => base.next().zip(Some(b)),
                std::cmp::Ordering::Greater => Some(a).zip(target.next()),
                std::cmp::Ordering::Equal => base.next().zip(target.next()),
            };
            let same = a
                .cut(&(b.start..b.end))
                .zip(b.cut(&(a.start..a.end)))
                .filter(|(a, b)| a.at == b.at)
                .and_then(|(a, _)| whole_pages(a));
            if same.is_some() {
                return same;
            }
        }
        None
    })
}

fn whole_pages(place: PhysicalExtent) -> Option<PageRange> {
    let start = place.start.checked_next_multiple_of(PAGE_SIZE)?;
    PageRange::new(start, place.end - place.end % PAGE_SIZE).filter(|range| !range.is_empty())
}

/// The physical locations of a virtual disk's data, as far as they are certain, in order of the disk.
struct DiskPlaces<'a> {
    runs: Box<dyn Iterator<Item = (PageRange, u64)> + 'a>,
    file: SharedPhysical<'a>,
    ready: VecDeque<PhysicalExtent>,
}

impl<'a> DiskPlaces<'a> {
    fn of(image: &'a OpenImage) -> Option<Self> {
        Some(Self {
            runs: stored_runs(image)?,
            file: image.file().shared_places(),
            ready: VecDeque::new(),
        })
    }
}

impl Iterator for DiskPlaces<'_> {
    type Item = PhysicalExtent;

    fn next(&mut self) -> Option<PhysicalExtent> {
        while self.ready.is_empty() {
            let (range, at) = self.runs.next()?;
            let places = self.file.within(at..at.checked_add(range.len())?);
            self.ready.extend(places.map(|place| PhysicalExtent {
                start: range.start() + (place.start - at),
                end: range.start() + (place.end - at),
                at: place.at,
            }));
        }
        self.ready.pop_front()
    }
}

/// The stored pieces of the disk, none larger than a window, with their offsets in the file. Read errors are ignored:
/// the comparison will encounter them.
fn stored_runs(image: &OpenImage) -> Option<Box<dyn Iterator<Item = (PageRange, u64)> + '_>> {
    let disk = whole(image);
    match (image.format(), image.vhd()) {
        (Format::Differencing, _) => None,
        (Format::Raw | Format::Fixed, _) | (_, None) => {
            let stored = image.extents(disk).map_while(Result::ok);
            let data = stored.filter(|extent| extent.state == ExtentState::Data);
            Some(Box::new(data.flat_map(|extent| {
                let windows = extent.range.windows(WINDOW_SIZE);
                windows.map(|range| (range, range.start()))
            })))
        }
        (Format::Dynamic, Some(vhd)) => {
            let runs = vhd.stored_runs(disk).map_while(Result::ok);
            Some(Box::new(
                runs.filter_map(|StoredRun { range, at }| Some((range, at?))),
            ))
        }
    }
}
