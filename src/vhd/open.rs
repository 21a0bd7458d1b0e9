//! Opening: which footer is in force, and whether everything that reading relies on is right.

use super::dynamic::Dynamic;
use super::image::Unwritten;
use super::parent::Beneath;
use super::{
    DiskType, FOOTER_SIZE, Footer, FooterPlace, HEADER_SIZE, ParentPath, ParentRequest,
    ParentResolver, ProbeHint, SECTOR_SIZE, VhdImage, layout, parent,
};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::ReadAt;

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;

impl<S: ReadAt> VhdImage<S> {
    /// Opens the VHD in `storage` and checks everything that reading relies on; the first fault is the error.
    ///
    /// The trailing footer is in force, its copy at the start only where the trailing one is damaged
    /// (specification, "Hard Disk Footer Format"). A differencing disk is refused: it can't be read without its
    /// parent.
    pub fn open(storage: S) -> Result<Self> {
        Self::open_over(storage, Family::Refused)
    }

    /// As [`open`](Self::open), and has `resolver` open the parent of a differencing disk.
    pub fn open_with(storage: S, resolver: &mut dyn ParentResolver) -> Result<Self> {
        Self::open_over(storage, Family::Resolved(resolver))
    }

    /// As [`open`](Self::open), but opens a differencing disk without its parent: to look at its structures and
    /// at what it stores itself. To read what it doesn't store is an error.
    pub fn open_alone(storage: S) -> Result<Self> {
        Self::open_over(storage, Family::LeftOut)
    }

    fn open_over(storage: S, family: Family<'_>) -> Result<Self> {
        let opened = Opening::new(&storage).and_then(|opening| opening.open(&storage, family));
        match opened {
            Ok(opened) => Ok(Self {
                footer: opened.footer,
                dynamic: opened.dynamic,
                end: opened.end,
                unwritten: opened.unwritten,
                warnings: {
                    let named = |warning: Error| warning.path(storage.name());
                    opened.warnings.into_iter().map(named).collect()
                },
                parent_paths: opened.parent_paths,
                storage,
            }),
            Err(error) => Err(error.path(storage.name())),
        }
    }
}

/// What to do about the parent of a differencing disk.
enum Family<'a> {
    Refused,
    LeftOut,
    Resolved(&'a mut dyn ParentResolver),
}

/// A footer as found, and whether to believe it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) footer: Footer,
    pub(super) place: FooterPlace,
    at: u64,
    fault: Option<Error>,
}

impl Found {
    fn new(bytes: &[u8; FOOTER_SIZE], place: FooterPlace, at: u64) -> Self {
        let footer = Footer::decode(bytes);
        Self {
            fault: footer.verify_intact(at).err(),
            footer,
            place,
            at,
        }
    }

    /// Whether it was meant as a footer, be it damaged.
    pub(super) fn has_cookie(&self) -> bool {
        [Footer::COOKIE, Footer::POISON].contains(&self.footer.cookie)
    }

    pub(super) fn into_hint(self) -> ProbeHint {
        ProbeHint {
            place: self.place,
            footer: self.footer,
            intact: self.fault.is_none(),
        }
    }

    fn is_poisoned(&self) -> bool {
        self.footer.cookie == Footer::POISON
    }
}

/// The last footer of a file of `len` bytes, or what stands in its place; `None` if the file is shorter.
pub(super) fn read_trailing<S: ReadAt>(storage: &S, len: u64) -> Result<Option<Found>> {
    let mut bytes = [0; FOOTER_SIZE];
    if len % SECTOR_SIZE == SECTOR_SIZE - 1 {
        // Before Virtual PC 2004 the last reserved byte was left out.
        let at = len - (FOOTER_LEN - 1);
        storage.read_exact_at(&mut bytes[..FOOTER_SIZE - 1], at)?;
        let found = Found::new(&bytes, FooterPlace::Trailing511, at);
        if found.has_cookie() {
            return Ok(Some(found));
        }
    }
    let Some(at) = len.checked_sub(FOOTER_LEN) else {
        return Ok(None);
    };
    storage.read_exact_at(&mut bytes, at)?;
    Ok(Some(Found::new(&bytes, FooterPlace::Trailing, at)))
}

/// What stands where a dynamic disk has the copy of its footer; `None` if the file is too short for one.
pub(super) fn read_copy<S: ReadAt>(storage: &S, len: u64) -> Result<Option<Found>> {
    if len < FOOTER_LEN + HEADER_SIZE as u64 {
        return Ok(None);
    }
    let mut bytes = [0; FOOTER_SIZE];
    storage.read_exact_at(&mut bytes, 0)?;
    Ok(Some(Found::new(&bytes, FooterPlace::Copy, 0)))
}

/// An image without its storage.
struct Opened {
    footer: Footer,
    dynamic: Option<Dynamic>,
    end: u64,
    unwritten: Unwritten,
    warnings: Vec<Error>,
    parent_paths: Vec<ParentPath>,
}

/// What is known once the footers were read.
struct Opening {
    footer: Footer,
    /// Where the footer in force stands.
    footer_at: u64,
    /// Where what the footer describes must end.
    data_end: u64,
    unwritten: Unwritten,
    warnings: Vec<Error>,
}

impl Opening {
    /// Chooses the footer.
    fn new<S: ReadAt>(storage: &S) -> Result<Self> {
        let file_len = storage.byte_len()?;
        let Some(trailing) = read_trailing(storage, file_len)? else {
            return Err(Error::damaged("the file is too short for a VHD")
                .field("file_size")
                .found(format_args!("{file_len} bytes"))
                .expected("at least 1024 bytes")
                .hint("the file was cut off: copy it again from its source"));
        };
        let copy = read_copy(storage, file_len)?;
        if trailing.fault.is_none() {
            trailing.footer.verify(trailing.at)?;
            return Self::by_trailing(trailing, copy);
        }
        Self::by_copy(file_len, trailing, copy)
    }

    fn by_trailing(trailing: Found, copy: Option<Found>) -> Result<Self> {
        let mut unwritten = Unwritten::default();
        let mut warnings = Vec::new();
        if trailing.footer.disk_type.is_sparse() {
            unwritten.trailing = trailing.place == FooterPlace::Trailing511;
            if let Some(warning) = copy.and_then(|copy| copy_differs(&trailing.footer, copy)) {
                warnings.push(warning);
                unwritten.copy = true;
            }
        } else if let Some(copy) = copy.filter(|copy| copy.fault.is_none()) {
            warnings.push(nested(&trailing, &copy)?);
        }
        Ok(Self {
            footer: trailing.footer,
            footer_at: trailing.at,
            data_end: trailing.at,
            unwritten,
            warnings,
        })
    }

    fn by_copy(file_len: u64, trailing: Found, copy: Option<Found>) -> Result<Self> {
        let data_end = if trailing.has_cookie() {
            trailing.at
        } else {
            file_len
        };
        let (is_cookie, poisoned) = (trailing.has_cookie(), trailing.is_poisoned());
        let Found { footer, fault, .. } = trailing;
        let fault = fault.unwrap_or_else(|| Error::damaged("there is no VHD footer"));
        let Some(copy) = copy.filter(Found::has_cookie) else {
            return Err(fault);
        };
        // A fixed disk's first sector is the guest's: another disk's footer there is no copy of this one.
        let foreign =
            footer.disk_type == DiskType::Fixed && footer.unique_id != copy.footer.unique_id;
        if poisoned || (is_cookie && foreign) {
            return Err(fault);
        }
        if let Some(copy_fault) = copy.fault {
            return Err(if is_cookie { fault } else { copy_fault });
        }
        if !copy.footer.disk_type.is_sparse() {
            return Err(fault);
        }
        copy.footer.verify(0)?;
        Ok(Self {
            footer: copy.footer,
            footer_at: 0,
            data_end,
            unwritten: Unwritten {
                trailing: true,
                copy: false,
            },
            warnings: vec![
                Error::damaged("the trailing footer is damaged or missing, read through its copy")
                    .field(fault.field_name().unwrap_or("footer").to_string())
                    .offset(fault.at().unwrap_or(data_end))
                    .hint(
                        "the end of the file may be missing: compare it with its source, or convert it to a new file",
                    ),
            ],
        })
    }

    fn open<S: ReadAt>(mut self, storage: &S, family: Family<'_>) -> Result<Opened> {
        let differencing = self.footer.disk_type == DiskType::Differencing;
        if differencing && matches!(family, Family::Refused) {
            return Err(Error::unsupported(
                "this is a differencing VHD: most of its data is in its parent",
            )
            .field("footer.disk_type")
            .offset(self.footer_at + 60)
            .found(self.footer.disk_type)
            .expected("fixed or dynamic")
            .hint("open it together with its parent"));
        }
        self.warn_of_geometry();
        if self.footer.disk_type == DiskType::Fixed {
            self.check_fixed()?;
            return Ok(self.opened(None));
        }
        let frame = layout::Frame {
            footer: &self.footer,
            footer_at: self.footer_at,
            data_end: self.data_end,
        };
        let (mut dynamic, last) = layout::read(storage, &frame)?;
        let mut end = self.data_end.next_multiple_of(SECTOR_SIZE);
        if let Some(last) = last {
            let (blocks_end, warning) = layout::check_last(storage, &dynamic, last)?;
            end = end.max(blocks_end);
            self.warnings.extend(warning);
        }
        let mut parent_paths = Vec::new();
        if differencing {
            let header_at = self.footer.data_offset;
            let (paths, warnings) = parent::read_paths(storage, &dynamic.header, header_at)?;
            self.warnings.extend(warnings);
            parent_paths = paths;
            dynamic.beneath = self.beneath(storage, &dynamic, &parent_paths, family)?;
        }
        let mut opened = self.opened(Some(dynamic));
        opened.end = end;
        opened.parent_paths = parent_paths;
        Ok(opened)
    }

    fn beneath<S: ReadAt>(
        &self,
        storage: &S,
        dynamic: &Dynamic,
        paths: &[ParentPath],
        family: Family<'_>,
    ) -> Result<Beneath> {
        let Family::Resolved(resolver) = family else {
            return Ok(Beneath::Unknown);
        };
        let request = ParentRequest {
            child: storage.name(),
            child_id: self.footer.unique_id,
            parent_id: dynamic.header.parent_unique_id,
            parent_timestamp: dynamic.header.parent_timestamp,
            parent_name: &dynamic.header.parent_name(),
            paths,
        };
        Beneath::resolve(&request, self.footer.current_size, resolver)
    }

    fn opened(self, dynamic: Option<Dynamic>) -> Opened {
        Opened {
            footer: self.footer,
            dynamic,
            end: self.data_end,
            unwritten: self.unwritten,
            warnings: self.warnings,
            parent_paths: Vec::new(),
        }
    }

    fn warn_of_geometry(&mut self) {
        let Footer {
            disk_geometry,
            current_size,
            creator_application,
            ..
        } = self.footer;
        let largest = disk_geometry == super::Geometry::for_size(u64::MAX);
        if creator_application.size_may_be_read_from_geometry()
            && disk_geometry.size() != current_size
            && !largest
        {
            self.warnings.push(
                Error::damaged(
                    "some programs take this disk for one of another size, by its geometry",
                )
                .field("footer.disk_geometry")
                .offset(self.footer_at + 56)
                .found(format_args!(
                    "{disk_geometry}, {} bytes",
                    disk_geometry.size()
                ))
                .expected(format_args!(
                    "{current_size} bytes, as footer.current_size has it"
                ))
                .hint("with qemu, give force_size_calc=current_size"),
            );
        }
    }

    fn check_fixed(&mut self) -> Result<()> {
        let (have, need) = (self.data_end, self.footer.current_size);
        if have < need {
            return Err(Error::damaged("the file is too short for its virtual disk")
                .field("footer.current_size")
                .offset(self.footer_at + 48)
                .found(format_args!("{need} bytes"))
                .expected(format_args!(
                    "at most {have} bytes, which is what stands before the footer"
                ))
                .hint("the file was cut or put together wrongly: copy it again from its source"));
        }
        if have > need {
            self.warnings.push(
                Error::damaged("the file is longer than its virtual disk")
                    .field("file_size")
                    .found(format_args!("{have} bytes before the footer"))
                    .expected(format_args!("{need} bytes"))
                    .hint("the surplus is not read; the cloud refuses such files: convert it to a new one"),
            );
        }
        Ok(())
    }
}

/// The warning that the copy of a good trailing footer isn't its copy.
fn copy_differs(trailing: &Footer, copy: Found) -> Option<Error> {
    let hint = "the trailing footer is in force; converting to a new file writes both alike";
    if let Some(fault) = copy.fault {
        return Some(
            Error::damaged("the copy of the footer at the start of the file is damaged")
                .field(fault.field_name().unwrap_or("footer").to_string())
                .offset(fault.at().unwrap_or(0))
                .hint(hint),
        );
    }
    if copy.footer == *trailing {
        return None;
    }
    let (ours, theirs) = (trailing.fields(), copy.footer.fields());
    let (ours, theirs) = ours
        .into_iter()
        .zip(theirs)
        .find(|(a, b)| a != b && a.name != "checksum")?;
    Some(
        Error::damaged("the two footers differ")
            .field(format!("footer.{}", theirs.name))
            .offset(theirs.offset as u64)
            .found(format_args!("{} in the copy", theirs.value))
            .expected(format_args!("{} as in the trailing footer", ours.value))
            .hint(hint),
    )
}

/// A fixed disk whose first sector is an intact footer: the guest's business, unless both name the same disk.
fn nested(trailing: &Found, first_sector: &Found) -> Result<Error> {
    let inner = &first_sector.footer;
    if inner.unique_id == trailing.footer.unique_id && inner.disk_type.is_sparse() {
        return Err(Error::new(
            ErrorKind::Damaged,
            "the two footers disagree on the type of the disk",
        )
        .field("footer.disk_type")
        .offset(trailing.at + 60)
        .found(trailing.footer.disk_type)
        .expected(format_args!(
            "{}, as in the copy at offset 0",
            inner.disk_type
        ))
        .hint("the file is damaged: copy it again from its source"));
    }
    Ok(
        Error::damaged("the disk's own first sector looks like a VHD footer; the trailing footer is in force")
            .field("footer.cookie")
            .offset(0)
            .found(format_args!("the footer of a {} disk", inner.disk_type))
            .hint("programs that look at the start of the file take it for another disk: tell them the format"),
    )
}
