//! Parents of differencing disks: a child's references to its parent, and the backing image.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DynamicHeader, PlatformCode, SECTOR_SIZE, Timestamp, UniqueId};
use crate::error::{Error, Reason, Result};
use crate::image::{
    Extent, ExtentState, Extents, Image, IoHints, extents_or_zeros, read_or_zeros, zeros,
};
use crate::page::{PageRange, to_usize};
use crate::remedy::{Act, Choice, Remedy, Step};
use crate::storage::ReadAt;
use crate::text::shown;

/// The longest locator data that is read. Windows paths have at most 32767 characters of two bytes.
const MAX_LOCATOR: u32 = 64 << 10;

/// An open parent.
#[derive(Clone)]
pub struct Parent {
    /// Its virtual disk.
    pub image: Arc<dyn Image>,
    /// Its name in messages.
    pub name: PathBuf,
    /// `footer.unique_id`; `None` for a raw image, which has no identity.
    pub unique_id: Option<UniqueId>,
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parent")
            .field("name", &self.name)
            .field("unique_id", &self.unique_id)
            .finish_non_exhaustive()
    }
}

/// The text of a parent locator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentPath {
    /// Index of the locator, of eight.
    pub locator: usize,
    /// Its format.
    pub platform_code: PlatformCode,
    /// The path or URL as found. Invalid characters become U+FFFD.
    pub text: String,
}

/// A differencing disk's description of its parent.
#[derive(Debug, Clone)]
pub struct ParentRequest<'a> {
    /// The child's file.
    pub child: &'a Path,
    /// The child's own `footer.unique_id`.
    pub child_id: UniqueId,
    /// `header.parent_unique_id`: the required identity of the parent. All zeros mean a raw image.
    pub parent_id: UniqueId,
    /// `header.parent_timestamp`: when the parent was last changed. Some programs leave it zero.
    pub parent_timestamp: Timestamp,
    /// `header.parent_unicode_name`: a file name, or a whole path.
    pub parent_name: &'a str,
    /// The readable parent locators.
    pub paths: &'a [ParentPath],
}

/// Finds and opens parents. A VHD opens other files only through a resolver provided by the caller.
pub trait ParentResolver {
    /// Opens the parent described by `request`. The caller checks its identity as well.
    fn resolve(&mut self, request: &ParentRequest<'_>) -> Result<Parent>;
}

/// The backing image, which is read where a disk stores nothing.
#[derive(Debug, Clone)]
pub(super) enum Backing {
    /// Zeros: a dynamic disk.
    Zeros,
    /// The parent of a differencing disk, and zeros beyond its end.
    Parent(Parent),
    /// The parent wasn't opened.
    Unknown,
}

impl Backing {
    /// Resolves the backing of the differencing disk of `request`: opens the parent and verifies it.
    pub(super) fn resolve(
        request: &ParentRequest<'_>,
        child_size: u64,
        resolver: &mut dyn ParentResolver,
    ) -> Result<Self> {
        let parent = resolver.resolve(request)?;
        Self::of(request, child_size, parent)
    }

    /// `parent` as the backing of the differencing disk of `request`, if it is the right one.
    pub(super) fn of(request: &ParentRequest<'_>, child_size: u64, parent: Parent) -> Result<Self> {
        let expected = (!request.parent_id.is_nil()).then_some(request.parent_id);
        if parent.unique_id != expected {
            return Err(wrong_parent(request, &parent.name, parent.unique_id));
        }
        check_sizes(child_size, &parent)?;
        Ok(Self::Parent(parent))
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self {
            Self::Zeros => buf.fill(0),
            Self::Parent(parent) => {
                read_or_zeros(&parent.image, buf, offset)?;
            }
            Self::Unknown => {
                return Err(Error::unsupported(
                    "this part of the disk is in the parent, which isn't open",
                )
                .with_hint("open the image together with its parent"));
            }
        }
        Ok(())
    }

    pub(super) fn extents(&self, within: PageRange) -> Extents<'_> {
        match self {
            Self::Zeros => zeros(within),
            Self::Parent(parent) => extents_or_zeros(&parent.image, within),
            Self::Unknown => Box::new(std::iter::once(Ok(Extent {
                range: within,
                state: ExtentState::Data,
            }))),
        }
    }

    /// Hints for efficient reading.
    pub(super) fn io(&self) -> IoHints {
        match self {
            Self::Parent(parent) => parent.image.io(),
            Self::Zeros | Self::Unknown => IoHints::LOCAL,
        }
    }

    /// Returns whether any of `range` may be nonzero.
    pub(super) fn may_hold_data(&self, range: PageRange) -> Result<bool> {
        for extent in self.extents(range) {
            if extent?.state == ExtentState::Data {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The error for an image that was specified as the parent but is a different disk.
pub fn wrong_parent(request: &ParentRequest<'_>, found: &Path, id: Option<UniqueId>) -> Error {
    let is = match id {
        Some(id) => format!("the unique id {id}"),
        None => "no unique id, being a raw image".to_owned(),
    };
    let wanted = if request.parent_id.is_nil() {
        "a raw image".to_owned()
    } else {
        format!("the unique id {}", request.parent_id)
    };
    let name = match request.parent_name {
        "" => String::new(),
        name => format!(" of {}", shown(name)),
    };
    Error::damaged(format!("{} is not the parent", shown(found)))
        .with_reason(Reason::WrongParent)
        .with_path(request.child)
        .with_field("header.parent_unique_id")
        .with_found(format_args!("{is} in {}", shown(found)))
        .with_expected(format_args!(
            "{wanted}{name}, which this image (unique id {}) names as its parent",
            request.child_id
        ))
        .with_remedy(
            Remedy::new("name the right file")
                .named(" with ")
                .step(Step::Choose(Choice::NamedParent), "")
                .text("; to read it over another one from now on: ")
                .step(
                    Step::Rebase {
                        child: request.child.to_path_buf(),
                        parent: None,
                        unchecked: true,
                    },
                    "have it name that one as its parent without comparing them",
                )
                .text(", which is right only if ")
                .named("FILE")
                .otherwise("the new parent")
                .text(" holds what the parent held"),
        )
}

/// The advice where a parent, the file `parent`, is larger than its child, which has `size` bytes.
pub(super) fn resized_alone(parent: &Path, size: u64) -> Remedy {
    Remedy::new("one of the two was resized alone: if it was the parent, ")
        .step(
            Step::Do(Act::Resize(size), parent.to_path_buf()),
            "giving it back the size of the child",
        )
        .text(" takes that back")
}

/// Fails if the child is smaller than its parent.
pub(super) fn check_sizes(child_size: u64, parent: &Parent) -> Result<()> {
    let parent_size = parent.image.virtual_size();
    if child_size >= parent_size {
        return Ok(());
    }
    Err(
        Error::damaged("a differencing VHD can't be smaller than its parent")
            .with_field("footer.current_size")
            .with_found(format_args!("{child_size} bytes"))
            .with_expected(format_args!(
                "at least {parent_size} bytes, the size of {}",
                shown(&parent.name)
            ))
            .with_remedy(resized_alone(&parent.name, child_size)),
    )
}

/// Fails if a VHD's id is all zeros: a child that refers to it would seem to have a raw parent.
pub(super) fn refuse_nil(parent: &Parent) -> Result<()> {
    if !parent.unique_id.is_some_and(|id| id.is_nil()) {
        return Ok(());
    }
    Err(Error::usage("a VHD without a unique id can't be a parent")
        .with_path(&parent.name)
        .with_field("footer.unique_id")
        .with_found("all zeros")
        .with_hint(
            "converting it to a VHD would keep its id: convert it to a raw image first, and that to a new VHD",
        ))
}

/// Reads the locators of `header` from `storage`. Unreadable ones are skipped: another may do, and a check reports what
/// is wrong with them.
pub fn read_paths<S: ReadAt + ?Sized>(
    storage: &S,
    header: &DynamicHeader,
) -> Result<Vec<ParentPath>> {
    let len = storage.byte_len()?;
    let mut paths = Vec::new();
    for (n, locator) in header.parent_locators.iter().enumerate() {
        let size = u64::from(locator.data_length);
        let end = locator.data_offset.checked_add(size);
        let is_inside = end.is_some_and(|end| end <= len);
        if !locator.is_used() || locator.data_length > MAX_LOCATOR || !is_inside {
            continue;
        }
        let mut bytes = vec![0; to_usize(size)];
        storage.read_exact_at(&mut bytes, locator.data_offset)?;
        paths.extend(locator.text(&bytes).map(|text| ParentPath {
            locator: n,
            platform_code: locator.platform_code,
            text,
        }));
    }
    Ok(paths)
}

/// A new differencing disk's description of its parent.
#[derive(Debug, Clone)]
pub struct NewParent {
    /// The parent itself.
    pub parent: Parent,
    /// When it was last changed.
    pub timestamp: Timestamp,
    /// Its file name.
    pub file_name: String,
    /// Windows-style path relative to the child's folder.
    pub relative: String,
    /// Path with a drive or a server, if known. Windows refuses a child whose absolute path is wrong, so it is omitted
    /// rather than guessed.
    pub absolute: Option<String>,
}

impl NewParent {
    /// Builds the locators of a file that stores their data at `at`, and that data, in whole sectors.
    pub(super) fn locators(&self, at: u64) -> Result<(Vec<super::ParentLocator>, Vec<u8>)> {
        let mut data: Vec<u8> = Vec::new();
        let mut locators = Vec::new();
        let relative = (PlatformCode::W2RU, &self.relative);
        let absolute = self.absolute.as_ref();
        let absolute = absolute.map(|path| (PlatformCode::W2KU, path));
        for (code, text) in std::iter::once(relative).chain(absolute) {
            let bytes = super::locator::utf16_bytes(text);
            let length = u32::try_from(bytes.len())
                .ok()
                .filter(|len| *len <= MAX_LOCATOR);
            let length = length.ok_or_else(|| Error::usage("the parent's path is too long"))?;
            let data_offset = at + data.len() as u64;
            data.extend(bytes);
            let sector = to_usize(SECTOR_SIZE);
            data.resize(data.len().next_multiple_of(sector), 0);
            locators.push(super::ParentLocator {
                platform_code: code,
                // In bytes: Windows refuses the sectors that the specification prescribes.
                data_space: u32::try_from(at + data.len() as u64 - data_offset).unwrap_or(length),
                data_length: length,
                reserved: 0,
                data_offset,
            });
        }
        Ok((locators, data))
    }
}
