//! Finds the parents of differencing VHDs among files.
//!
//! A child may come from anywhere, so its references aren't followed blindly: of the paths it contains, only those to
//! its own folder or below are used, and only an image with the right unique id is accepted. Anything else has to be
//! allowed by the user.

use std::fs;
use std::path::{Path, PathBuf};

use super::folder::{Folder, is_image_with};
use super::options::ParentOptions;
use super::places::{Places, folder_of};
use crate::error::{Error, ErrorKind, Reason, Result};
use crate::remedy::{Choice, Remedy, Step};
use crate::storage::{File, Stamp};
use crate::text::shown;
use crate::vhd::{Parent, ParentRequest, ParentResolver, UniqueId, VhdImage, wrong_parent};

/// The most images in a chain, including the child itself.
pub const MAX_CHAIN: usize = 64;

/// The images of a chain that are being opened, from the top down.
#[derive(Debug, Default)]
pub(super) struct Trail {
    links: Vec<(PathBuf, Stamp)>,
    /// Whether any of [`ParentOptions::files`] was a parent.
    named_used: bool,
}

impl Trail {
    pub(super) fn push(&mut self, path: &Path, stamp: Stamp) {
        self.links.push((path.to_path_buf(), stamp));
    }

    /// Fails if parents were specified for the image at `path`, which has this one, and none of them was it.
    pub(super) fn check_used(
        &self,
        path: &Path,
        parent: Option<(&Path, Option<UniqueId>)>,
        options: &ParentOptions,
    ) -> Result<()> {
        let (Some(named), Some((parent, id))) = (options.files.first(), parent) else {
            return Ok(());
        };
        if self.named_used {
            return Ok(());
        }
        let id = id.map_or_else(|| "none".into(), |id| id.to_string());
        Err(
            Error::usage(format!("{} is not a parent of this image", shown(named)))
                .with_path(path)
                .with_field("header.parent_unique_id")
                .with_expected(format_args!("{id}, which is {}", shown(parent)))
                .with_remedy(
                    Remedy::default()
                        .named("omit ")
                        .step(Step::Choose(Choice::NamedParent), "name no parent")
                        .text(" to take that one"),
                ),
        )
    }
}

/// Finds the parent of one child.
#[derive(Debug)]
pub(super) struct Finder<'a> {
    options: &'a ParentOptions,
    trail: &'a mut Trail,
}

/// The relation of a file to a child.
enum Candidate {
    Missing,
    /// A different disk, with its unique id if it is a VHD.
    Other(Option<UniqueId>),
    /// An image of the chain to which the child belongs.
    Loop(PathBuf),
    Right(Stamp),
}

impl<'a> Finder<'a> {
    pub(super) fn new(options: &'a ParentOptions, trail: &'a mut Trail) -> Self {
        Self { options, trail }
    }

    fn judge(&self, path: &Path, parent_id: UniqueId) -> Result<Candidate> {
        let there = match fs::metadata(path) {
            Ok(found) => !found.is_dir(),
            Err(e) => !is_missing(&e),
        };
        if !there {
            return Ok(Candidate::Missing);
        }
        let file = File::open(path)?;
        let footer = VhdImage::probe(&file)?.map(|hint| hint.footer);
        let id = footer.map(|footer| footer.unique_id);
        if id != (!parent_id.is_nil()).then_some(parent_id) {
            return Ok(Candidate::Other(id));
        }
        let stamp = file.stamp()?;
        let same = self
            .trail
            .links
            .iter()
            .find(|(_, link)| link.same_file(&stamp));
        Ok(match same {
            Some((link, _)) => Candidate::Loop(link.clone()),
            None => Candidate::Right(stamp),
        })
    }

    /// The file of the parent described by `request`, and whether it is a raw image.
    pub(super) fn find(&mut self, request: &ParentRequest<'_>) -> Result<(PathBuf, bool)> {
        if self.trail.links.len() >= MAX_CHAIN {
            return Err(too_deep(request, &self.trail.links));
        }
        let raw = request.parent_id.is_nil();
        if raw && !self.options.allow_raw {
            return Err(raw_parent(request));
        }
        let places = Places::of(request, self.options);
        let mut other: Option<(PathBuf, Option<UniqueId>)> = None;
        let mut cycle = None;
        for path in &places.candidates {
            match self.judge(path, request.parent_id)? {
                Candidate::Right(_) => return Ok(self.taken(path, raw)),
                Candidate::Missing => {}
                Candidate::Other(id) => other = other.or_else(|| Some((path.clone(), id))),
                Candidate::Loop(link) => cycle = cycle.or(Some(link)),
            }
        }
        // A file with another name is identified only by its id.
        let alike = if raw {
            Vec::new()
        } else {
            places.ignoring_case()
        };
        let mut right: Vec<(PathBuf, Stamp)> = Vec::new();
        for path in alike {
            match self.judge(&path, request.parent_id)? {
                Candidate::Right(stamp) if right.iter().any(|(_, s)| s.same_file(&stamp)) => {}
                Candidate::Right(stamp) => right.push((path, stamp)),
                Candidate::Missing => {}
                Candidate::Other(id) => other = other.or(Some((path, id))),
                Candidate::Loop(link) => cycle = cycle.or(Some(link)),
            }
        }
        match right.as_slice() {
            [] => {}
            [(path, _)] => return Ok(self.taken(path, raw)),
            [(a, _), (b, _), ..] => return Err(ambiguous(request, a, b)),
        }
        Err(match (cycle, other) {
            (Some(link), _) => in_a_loop(request, &link),
            (None, Some((path, id))) => wrong_parent(request, &path, id),
            (None, None) => missing(request, &places, self.options),
        })
    }

    fn taken(&mut self, path: &Path, raw: bool) -> (PathBuf, bool) {
        self.trail.named_used |= self.options.files.iter().any(|file| file == path);
        (path.to_path_buf(), raw)
    }
}

/// The places where the parent of the differencing VHD at `child` may be, and the child's unique id, without looking
/// there. Returns `None` for any other image.
pub(super) fn places(
    child: &Path,
    options: &ParentOptions,
) -> Result<Option<(UniqueId, Vec<PathBuf>)>> {
    struct Asked<'a> {
        options: &'a ParentOptions,
        found: Option<(UniqueId, Vec<PathBuf>)>,
    }
    impl ParentResolver for Asked<'_> {
        fn resolve(&mut self, request: &ParentRequest<'_>) -> Result<Parent> {
            let places = Places::of(request, self.options);
            let alike = places.ignoring_case();
            let candidates = places.candidates.into_iter().chain(alike);
            self.found = Some((request.child_id, candidates.collect()));
            Err(Error::usage("the parent isn't wanted"))
        }
    }
    let mut asked = Asked {
        options,
        found: None,
    };
    // Any problem with the image is reported when it is opened.
    let _ = VhdImage::open_with(File::open(child)?, &mut asked);
    Ok(asked.found)
}

fn is_missing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(
        error.kind(),
        NotFound | NotADirectory | InvalidInput | InvalidFilename
    )
}

/// The error for a parent that wasn't found in any of the places.
fn missing(request: &ParentRequest<'_>, places: &Places, options: &ParentOptions) -> Error {
    const SHOWN: usize = 2;
    let tried: Vec<String> = places
        .candidates
        .iter()
        .map(|path| shown(path).to_string())
        .collect();
    let found = match tried.get(..SHOWN) {
        _ if tried.is_empty() => "no name to look for".to_owned(),
        Some(first) if tried.len() > SHOWN => {
            format!(
                "no {}, nor in {} more places",
                first.join(", no "),
                tried.len() - SHOWN
            )
        }
        _ => format!("no {}", tried.join(", no ")),
    };
    let name = match request.parent_name {
        "" => String::new(),
        name => format!(" of {}", shown(name)),
    };
    Error::new(
        ErrorKind::Io,
        "the parent of this differencing VHD was not found",
    )
    .with_reason(Reason::ParentNotFound)
    .with_path(request.child)
    .with_field("header.parent_unique_id")
    .with_found(found)
    .with_expected(format_args!(
        "the unique id {}{name}, which this image (unique id {}) names as its parent",
        request.parent_id, request.child_id
    ))
    .with_remedy(how_to_find(request, places, options))
}

/// Where the parent is, if it is visible but isn't used from there; otherwise what can be done.
fn how_to_find(request: &ParentRequest<'_>, places: &Places, options: &ParentOptions) -> Remedy {
    let id = request.parent_id;
    for place in &places.elsewhere {
        // This is only for advice: places that can't be inspected aren't suggested.
        let is_there = is_image_with(place, id).unwrap_or(false);
        if let (Some(folder), true) = (place.parent(), is_there) {
            return Remedy::new(
                "it is where the child refers to, but such a path isn't followed unless allowed: ",
            )
            .named("give ")
            .step(
                Step::SearchParentIn(folder.to_path_buf()),
                format!("name the folder {}", shown(&folder)),
            );
        }
    }
    let folders = std::iter::once(folder_of(request.child)).chain(options.folders.iter().cloned());
    let named = folders
        .map(|folder| Folder::look(&folder))
        .find_map(|folder| {
            let mut with_id = folder
                .images
                .into_iter()
                .filter(|seen| seen.is_image_with(id));
            with_id.next().map(|seen| seen.path)
        });
    if let Some(parent) = named {
        let has_id = format!(
            "{} has that unique id: have the child name it",
            shown(&parent)
        );
        return Remedy::new(has_id).named(" with ").step(
            Step::Rebase {
                child: request.child.to_path_buf(),
                parent: Some(parent),
                unchecked: false,
            },
            "",
        );
    }
    nowhere()
}

/// The advice if a parent isn't visible anywhere.
fn nowhere() -> Remedy {
    Remedy::new("put the parent next to it, or specify its location with ")
        .step(Step::Choose(Choice::Parent), "its file")
        .text(" or ")
        .step(Step::Choose(Choice::ParentFolder), "its folder")
}

/// The error for several files that could be the parent, none of which has exactly the right name.
fn ambiguous(request: &ParentRequest<'_>, a: &Path, b: &Path) -> Error {
    Error::usage("two files could be the parent: both have its unique id, and its name except for upper and lower case")
        .with_path(request.child)
        .with_field("header.parent_unique_id")
        .with_found(format_args!("{} and {}", shown(a), shown(b)))
        .with_expected(format_args!("one file with the unique id {}", request.parent_id))
        .with_remedy(
            Remedy::new("name the right one")
                .named(" with ")
                .step(Step::Choose(Choice::NamedParent), "")
                .text(", or rename it to the name by which the child refers to it"),
        )
}

fn in_a_loop(request: &ParentRequest<'_>, link: &Path) -> Error {
    Error::damaged("the chain of parents contains a loop")
        .with_reason(Reason::ParentsInCircle)
        .with_path(request.child)
        .with_field("header.parent_unique_id")
        .with_found(format_args!(
            "the unique id {} of {}, which itself is read through this image (unique id {})",
            request.parent_id,
            shown(&link),
            request.child_id
        ))
        .with_expected("a parent outside of the chain so far")
        .with_remedy(
            Remedy::new("one of the files was replaced by another: name the right parent")
                .named(" with ")
                .step(Step::Choose(Choice::NamedParent), ""),
        )
}

fn too_deep(request: &ParentRequest<'_>, links: &[(PathBuf, Stamp)]) -> Error {
    let first = links
        .first()
        .map(|(path, _)| path.to_string_lossy().into_owned());
    Error::unsupported(format!(
        "the chain of parents is longer than {MAX_CHAIN} images"
    ))
    .with_reason(Reason::TooManyParents)
        .with_path(request.child)
        .with_field("header.parent_unique_id")
        .with_found(format_args!(
            "one more parent, {} (unique id {}), of the last image (unique id {}) of the chain that starts at {}",
            request.parent_name,
            request.parent_id,
            request.child_id,
            first.unwrap_or_default()
        ))
        .with_expected(format_args!("at most {MAX_CHAIN} images"))
        .with_hint("merge some of them first")
}

fn raw_parent(request: &ParentRequest<'_>) -> Error {
    Error::unsupported(
        "the parent of this differencing VHD is a raw image, which can't be distinguished from any other",
    )
    .with_path(request.child)
    .with_field("header.parent_unique_id")
    .with_found(match request.parent_name {
        "" => "all zeros, and no name".to_owned(),
        name => format!("all zeros, for {}", shown(name)),
    })
    .with_expected("the unique id of a VHD")
    .with_remedy(
        Remedy::new("if you are sure that the parent is the right one, and unchanged, ")
            .named("give ")
            .step(Step::Choose(Choice::RawParent), "allow a raw parent"),
    )
}
