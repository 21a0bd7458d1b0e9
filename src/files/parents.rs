//! Finding the parents of differencing VHDs among files.
//!
//! A child is data from somewhere, so what it says of its parent is not obeyed but checked: of the paths that it
//! names, only those that lead to its own folder or below are followed, and only an image with the right unique id
//! is taken. Everything else has to be allowed by whoever runs the program.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open::open_link;
use super::{Format, FormatChoice, OpenImage, OpenOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{File, IoPolicy, Stamp};
use crate::text::shown;
use crate::vhd::{Parent, ParentRequest, ParentResolver, UniqueId, VhdImage, wrong_parent};

/// Images in a chain at most, the child itself included.
pub const MAX_CHAIN: usize = 64;

/// Where parents may be looked for, beyond the child's own folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParentOptions {
    /// Images of which each child takes the one with the right unique id.
    pub files: Vec<PathBuf>,
    /// Folders in which to look for the file names that a child gives its parent.
    pub folders: Vec<PathBuf>,
    /// Whether a child that names no unique id is read over a raw image, which can't be told from any other.
    pub allow_raw: bool,
    /// Whether to open parents without locks: for code that holds them itself.
    pub no_lock: bool,
    /// Whether to open the child without its parent: to look at what it says and stores itself.
    pub leave_out: bool,
}

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

    /// An error if parents were named for `image`, which has one, and none of them was it.
    pub(super) fn check_used(&self, image: &OpenImage, options: &ParentOptions) -> Result<()> {
        let (Some(named), Some(parent)) = (options.files.first(), image.parent()) else {
            return Ok(());
        };
        if self.named_used {
            return Ok(());
        }
        let id = |vhd: Option<&VhdImage<File>>| {
            vhd.map_or_else(|| "none".into(), |vhd| vhd.footer().unique_id.to_string())
        };
        Err(
            Error::usage(format!("{} is no parent of this image", shown(&named)))
                .path(image.path())
                .field("header.parent_unique_id")
                .expected(format_args!(
                    "{}, which is {}",
                    id(parent.vhd()),
                    shown(parent.path())
                ))
                .hint("leave --parent away to take that one"),
        )
    }
}

/// Finds the parent of one child.
#[derive(Debug)]
pub(super) struct Finder<'a> {
    options: &'a ParentOptions,
    /// Whether to read damaged parents as far as they go.
    salvage: bool,
    io: IoPolicy,
    settle: bool,
    trail: &'a mut Trail,
    /// What was found.
    pub(super) found: Option<Arc<OpenImage>>,
}

/// What a file is to a child.
enum Candidate {
    Missing,
    /// Another disk, with this unique id if it is a VHD.
    Other(Option<UniqueId>),
    /// An image of the chain that the child is part of.
    Loop(PathBuf),
    Right,
}

impl<'a> Finder<'a> {
    pub(super) fn new(options: &'a ParentOptions, salvage: bool, trail: &'a mut Trail) -> Self {
        Self {
            options,
            salvage,
            io: IoPolicy::default(),
            settle: false,
            trail,
            found: None,
        }
    }

    /// Has what it finds read in this way.
    pub(super) fn reading(mut self, options: &OpenOptions) -> Self {
        (self.io, self.settle) = (options.io, options.settle);
        self
    }

    fn judge(&self, path: &Path, parent_id: UniqueId) -> Result<Candidate> {
        if fs::metadata(path).is_err_and(|e| is_missing(&e)) {
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
            None => Candidate::Right,
        })
    }

    fn open(&mut self, path: &Path, raw: bool) -> Result<Parent> {
        self.trail.named_used |= self.options.files.iter().any(|file| file == path);
        let format = if raw {
            FormatChoice::Only(Format::Raw)
        } else {
            FormatChoice::AnyVhd
        };
        let options = OpenOptions {
            format: Some(format),
            no_lock: self.options.no_lock,
            salvage: self.salvage,
            parents: self.options.clone(),
            io: self.io,
            settle: self.settle,
            ..OpenOptions::default()
        };
        let image = Arc::new(open_link(path, &options, self.trail)?);
        self.found = Some(Arc::clone(&image));
        Ok(Parent {
            name: path.to_path_buf(),
            unique_id: image.vhd().map(|vhd| vhd.footer().unique_id),
            image,
        })
    }
}

impl ParentResolver for Finder<'_> {
    fn resolve(&mut self, request: &ParentRequest<'_>) -> Result<Parent> {
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
                Candidate::Right => return self.open(path, raw),
                Candidate::Missing => {}
                Candidate::Other(id) => other = other.or_else(|| Some((path.clone(), id))),
                Candidate::Loop(link) => cycle = cycle.or(Some(link)),
            }
        }
        Err(match (cycle, other) {
            (Some(link), _) => in_a_loop(request, &link),
            (None, Some((path, id))) => wrong_parent(request, &path, id),
            (None, None) => places.missing(request),
        })
    }
}

/// Where the parent of the differencing VHD at `child` may be, and the child's unique id; nothing is looked for
/// there. `None` for any other image.
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
            let candidates = Places::of(request, self.options).candidates;
            self.found = Some((request.child_id, candidates));
            Err(Error::usage("the parent isn't wanted"))
        }
    }
    let mut asked = Asked {
        options,
        found: None,
    };
    // Whatever is wrong with the image comes out when it is opened.
    let _ = VhdImage::open_with(File::open(child)?, &mut asked);
    Ok(asked.found)
}

/// Where the parent of one child may be.
struct Places {
    candidates: Vec<PathBuf>,
    /// Paths that the child names and that aren't followed.
    refused: Vec<String>,
}

impl Places {
    fn of(request: &ParentRequest<'_>, options: &ParentOptions) -> Self {
        let folder = folder_of(request.child);
        let (mut below, mut names, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for path in request.paths {
            let relative = matches!(&path.platform_code.0, b"W2ru" | b"Wi2r");
            match followed(&path.text).filter(|_| relative) {
                Some(path) => below.push(folder.join(path)),
                None if !path.text.is_empty() => refused.push(path.text.clone()),
                None => {}
            }
            names.extend(file_name(&path.text));
        }
        // The field holds a whole path when some versions of Windows wrote it.
        let name = file_name(request.parent_name);
        names.splice(0..0, name.clone());
        let within = |folder: &PathBuf| names.iter().map(|name| folder.join(name)).collect();
        let allowed: Vec<Vec<PathBuf>> = options.folders.iter().map(within).collect();
        let mut candidates: Vec<PathBuf> = Vec::new();
        let all = options
            .files
            .iter()
            .cloned()
            .chain(allowed.into_iter().flatten());
        for path in all.chain(below).chain(name.map(|name| folder.join(name))) {
            if !candidates.contains(&path) {
                candidates.push(path);
            }
        }
        Self {
            candidates,
            refused,
        }
    }

    fn missing(&self, request: &ParentRequest<'_>) -> Error {
        let mut found = String::from("nothing");
        for (n, path) in self.candidates.iter().enumerate() {
            let lead = if n == 0 { " at " } else { " or " };
            // Writing to a string can't fail.
            let _ = write!(found, "{lead}{}", shown(&path));
        }
        if let Some(path) = self.refused.first() {
            let _ = write!(
                found,
                "; the path \"{path}\" leads elsewhere and isn't followed"
            );
        }
        Error::new(
            ErrorKind::Io,
            "the parent of this differencing VHD was not found",
        )
        .path(request.child)
        .field("header.parent_unique_id")
        .found(found)
        .expected(format_args!(
            "{} with the unique id {}, of which this image (unique id {}) is a child",
            if request.parent_name.is_empty() {
                "an image"
            } else {
                request.parent_name
            },
            request.parent_id,
            request.child_id
        ))
        .hint(
            "put the parent beside it, or say where it is with --parent FILE or --parent-path DIR",
        )
    }
}

fn is_missing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(
        error.kind(),
        NotFound | NotADirectory | InvalidInput | InvalidFilename
    )
}

/// The folder in which the image really lies, as it was written where possible.
fn folder_of(path: &Path) -> PathBuf {
    let is_link = fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
    let path = match fs::canonicalize(path) {
        Ok(target) if is_link => target,
        _ => path.to_path_buf(),
    };
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// A path of Windows or Unix as one that leads to the folder it starts from or below; `None` for any other:
/// absolute ones, drives, servers, devices, and those that go up.
fn followed(text: &str) -> Option<PathBuf> {
    let text = text.trim_end_matches('\0');
    if text.starts_with(['/', '\\']) || text.contains([':', '\0']) {
        return None;
    }
    let mut path = PathBuf::new();
    for part in text.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => return None,
            part => path.push(part),
        }
    }
    (!path.as_os_str().is_empty()).then_some(path)
}

/// The last part of a path of Windows or Unix.
fn file_name(text: &str) -> Option<String> {
    let name = text.rsplit(['/', '\\']).next().unwrap_or_default();
    let is_name = !matches!(name, "" | "." | "..") && !name.contains('\0');
    is_name.then(|| name.to_owned())
}

/// What [`Finder`] says of a chain that leads back into itself.
pub(super) const IN_A_CIRCLE: &str = "the chain of parents goes round in a circle";

fn in_a_loop(request: &ParentRequest<'_>, link: &Path) -> Error {
    Error::damaged(IN_A_CIRCLE)
        .path(request.child)
        .field("header.parent_unique_id")
        .found(format_args!(
            "the unique id {} of {}, which itself is read through this image (unique id {})",
            request.parent_id,
            shown(&link),
            request.child_id
        ))
        .expected("a parent outside of the chain so far")
        .hint("one of the files was replaced by another: name the right parent with --parent")
}

/// How what [`Finder`] says of too long a chain begins.
pub(super) const TOO_LONG: &str = "the chain of parents is longer";

fn too_deep(request: &ParentRequest<'_>, links: &[(PathBuf, Stamp)]) -> Error {
    let first = links
        .first()
        .map(|(path, _)| path.to_string_lossy().into_owned());
    Error::unsupported(format!("{TOO_LONG} than {MAX_CHAIN} images"))
        .path(request.child)
        .field("header.parent_unique_id")
        .found(format_args!(
            "one more parent, {} (unique id {}), of the last image (unique id {}) of the chain that starts at {}",
            request.parent_name,
            request.parent_id,
            request.child_id,
            first.unwrap_or_default()
        ))
        .expected(format_args!("at most {MAX_CHAIN} images"))
        .hint("merge some of them first")
}

fn raw_parent(request: &ParentRequest<'_>) -> Error {
    Error::unsupported(
        "the parent of this differencing VHD is a raw image, which can't be told from any other",
    )
    .path(request.child)
    .field("header.parent_unique_id")
    .found(format_args!("all zeros, for {}", request.parent_name))
    .expected("the unique id of a VHD")
    .hint("if you are sure that the parent is the right one, and unchanged, give --raw-parent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_lead_down_are_followed() {
        for (text, path) in [
            ("base.vhd", "base.vhd"),
            (".\\base.vhd", "base.vhd"),
            ("./a/b.vhd", "a/b.vhd"),
            ("a\\.\\b//c.vhd", "a/b/c.vhd"),
            ("base.vhd\0", "base.vhd"),
        ] {
            assert_eq!(followed(text), Some(path.into()), "{text}");
        }
        for text in [
            "",
            ".",
            "\\",
            "/etc/passwd",
            "\\\\server\\share\\b.vhd",
            "\\\\.\\PhysicalDrive0",
            "\\\\?\\C:\\b.vhd",
            "C:\\b.vhd",
            "C:b.vhd",
            "..\\b.vhd",
            "a/../../b.vhd",
            "a\0b",
        ] {
            assert_eq!(followed(text), None, "{text}");
        }
    }

    #[test]
    fn the_file_name_of_a_path_of_any_system() {
        assert_eq!(
            file_name("C:\\disks\\base.vhd").as_deref(),
            Some("base.vhd")
        );
        assert_eq!(
            file_name("file:///disks/base.vhd").as_deref(),
            Some("base.vhd")
        );
        assert_eq!(file_name("base.vhd").as_deref(), Some("base.vhd"));
        for text in ["", "..", "a\\..", "a/"] {
            assert_eq!(file_name(text), None, "{text}");
        }
    }
}
