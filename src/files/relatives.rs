//! Finds the children of an image.
//!
//! A parent contains no references to its children, so they have to be searched for before it is changed or removed.

use std::fs;
use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use super::folder::{Folder, Seen, is_image_with, stamp_at};
use super::places::{Places, folder_of};
use super::{OpenImage, ParentOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::remedy::{Act, Choice, Remedy, Step, Tool};
use crate::storage::{File, Stamp};
use crate::text::shown;
use crate::vhd::UniqueId;

/// The most files named in a message.
const MOST_NAMED: usize = 10;

/// How to treat an image that others have as their parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Orphans {
    /// Refuse to change or replace it.
    #[default]
    Refuse,
    /// Change it: they will read differently, or not at all.
    Allow,
}

/// The children of an image, as far as they were found.
#[derive(Debug, Default)]
pub struct Children {
    /// Their files, each with its virtual size.
    pub found: Vec<(PathBuf, u64)>,
    /// The folders in which they were looked for.
    pub folders: Vec<PathBuf>,
    /// Errors for what couldn't be inspected.
    pub unread: Vec<Error>,
}

impl Children {
    /// Their files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.found.iter().map(|(path, _)| path.clone()).collect()
    }

    /// The folders, as text.
    pub fn looked_in(&self) -> String {
        let folders: Vec<String> = self
            .folders
            .iter()
            .map(|folder| folder_name(folder))
            .collect();
        folders.join(" and ")
    }

    /// Returns the children, or fails if something couldn't be inspected for a temporary reason, which proves nothing.
    /// Files of other users and damaged ones are only reported.
    pub(super) fn sure(self, orphans: Orphans) -> Result<Self> {
        let passing = |error: &Error| {
            error.kind() == ErrorKind::Io && error.io_kind() != Some(IoKind::PermissionDenied)
        };
        self.unless(orphans, passing)
    }

    /// Returns the children, or fails if anything couldn't be inspected: for changes that can't be undone.
    pub(super) fn certain(self, orphans: Orphans) -> Result<Self> {
        self.unless(orphans, |_| true)
    }

    fn unless(mut self, orphans: Orphans, unsure: impl Fn(&Error) -> bool) -> Result<Self> {
        if orphans == Orphans::Allow {
            return Ok(self);
        }
        let Some(at) = self.unread.iter().position(unsure) else {
            return Ok(self);
        };
        Err(self.unread.swap_remove(at).override_remedy(
            Remedy::new(
                "it may be an image that is read through the one that would change or go: remove the cause, or ",
            )
            .named("give ")
            .step(Step::Choose(Choice::IgnoreUnreadChildren), "go on without it")
            .text(" if it isn't"),
        ))
    }

    /// Fails if there are any.
    pub(super) fn refuse(&self, parent: &Path) -> Result<()> {
        let Some((first, _)) = self.found.first() else {
            return Ok(());
        };
        let children = names_of(self.found.iter().map(|(path, _)| path.as_path()));
        Err(Error::usage(
            "other images have this one as their parent, and would not read as before",
        )
        .with_path(parent)
        .with_found(children)
        .with_expected(format_args!("no child in {}", self.looked_in()))
        .with_remedy(
            Remedy::new("make each an image of its own")
                .named(" with ")
                .step(Step::Use(Tool::Convert), "")
                .named(", as in ")
                .step(Step::Do(Act::Copy, first.clone()), "")
                .text(", and remove it; or give it another parent")
                .named(", as in ")
                .step(
                    Step::Rebase {
                        child: first.clone(),
                        parent: None,
                        unchecked: false,
                    },
                    "",
                )
                .text("; with ")
                .step(Step::Choose(Choice::Overwrite), "leave to overwrite")
                .text(" they are lost"),
        ))
    }
}

/// Lists paths as text; if there are many, only the first ones.
pub fn names_of<'a>(paths: impl ExactSizeIterator<Item = &'a Path>) -> String {
    let more = paths.len().saturating_sub(MOST_NAMED);
    let names: Vec<String> = paths
        .take(MOST_NAMED)
        .map(|path| shown(path).to_string())
        .collect();
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn folder_name(folder: &Path) -> String {
    if folder.as_os_str().is_empty() {
        "the current folder".to_owned()
    } else {
        shown(folder).to_string()
    }
}

/// An image whose children are searched for.
#[derive(Debug)]
pub(super) struct Parent {
    path: PathBuf,
    stamp: Stamp,
    id: Option<UniqueId>,
}

impl Parent {
    pub(super) fn of(image: &OpenImage) -> Self {
        Self {
            path: image.path().to_path_buf(),
            stamp: *image.stamp(),
            id: image.vhd().map(|vhd| vhd.footer().unique_id),
        }
    }

    /// The file at `path`, whatever it is.
    pub(super) fn at(path: &Path) -> Result<Self> {
        let seen = Seen::look(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            stamp: match &seen {
                Some(seen) => seen.stamp,
                None => File::open(path)?.stamp()?,
            },
            id: seen.map(|seen| seen.id()),
        })
    }

    /// Looks for children in the folder of the image, in those of `options`, and in `more`, ignoring the files in
    /// `except`. A VHD is a child if its parent's id is the image's, unless it finds another file with that id. A raw
    /// image has no id, and its children are identified by its name.
    pub(super) fn children(
        &self,
        options: &ParentOptions,
        more: &[&Path],
        except: &[&Stamp],
    ) -> Children {
        let mut children = Children::default();
        let own = folder_of(&self.path);
        let folders = std::iter::once(own.as_path())
            .chain(options.folders.iter().map(PathBuf::as_path))
            .chain(more.iter().copied());
        let mut identities = Vec::new();
        let mut known: Vec<Stamp> = except.iter().map(|stamp| **stamp).collect();
        known.push(self.stamp);
        for folder in folders {
            let real = fs::canonicalize(if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            })
            .ok();
            if identities.contains(&real) && real.is_some() {
                continue;
            }
            identities.push(real);
            let looked = Folder::look(folder);
            children.folders.push(folder.to_path_buf());
            children.unread.extend(looked.unread);
            for seen in looked.images {
                if known.iter().any(|stamp| stamp.same_file(&seen.stamp)) {
                    continue;
                }
                if seen.is_beyond_judgement() {
                    let error =
                        Error::damaged("this VHD is damaged: its parent can't be determined");
                    children.unread.push(error.with_path(&seen.path));
                    continue;
                }
                match self.is_parent_of(&seen, options) {
                    Ok(false) => {}
                    Ok(true) => {
                        known.push(seen.stamp);
                        let size = seen.glance.footer.current_size;
                        children.found.push((seen.path, size));
                    }
                    // By its id it is a child; an inaccessible other file proves nothing.
                    Err(error) => {
                        let unsure =
                            Error::new(error.kind(), "the parent of this VHD can't be determined");
                        let unsure = unsure.with_path(&seen.path).with_source(error.to_string());
                        children.unread.push(unsure);
                    }
                }
            }
        }
        children
    }

    /// Returns whether a VHD is a child of the image. Fails if another file that could be its parent can't be
    /// inspected.
    fn is_parent_of(&self, seen: &Seen, options: &ParentOptions) -> Result<bool> {
        let found = seen.ask(|request| {
            let same = match self.id {
                Some(id) => !id.is_nil() && request.parent_id == id,
                None => request.parent_id.is_nil(),
            };
            if !same {
                return Ok(false);
            }
            let places = Places::of(
                request,
                &ParentOptions {
                    files: Vec::new(),
                    ..options.clone()
                },
            );
            let ours = |path: &Path| {
                let found = stamp_at(path)?;
                Ok(found.is_some_and(|found| Stamp::from(&found).same_file(&self.stamp)))
            };
            let Some(id) = self.id else {
                for path in places.candidates.iter().chain(&places.ignoring_case()) {
                    if ours(path)? {
                        return Ok(true);
                    }
                }
                return Ok(false);
            };
            // Copies have the same id: a child uses the one that it finds.
            for path in &places.candidates {
                if ours(path)? {
                    return Ok(true);
                }
                if is_image_with(path, id)? {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        found.unwrap_or(Ok(false))
    }
}

/// The children of an open image. On a device, none are searched for.
pub(super) fn children_of(image: &OpenImage, options: &ParentOptions) -> Children {
    if image.file().is_block_device() {
        return Children::default();
    }
    Parent::of(image).children(options, &[], &[])
}

/// Fails if other images have this one, which is about to be changed, as their parent.
pub(super) fn refuse_orphans(image: &OpenImage, options: &ParentOptions) -> Result<()> {
    let children = children_of(image, options).sure(Orphans::Refuse)?;
    children.refuse(image.path())
}

/// As [`refuse_orphans`], for the file at `path`, which is about to be replaced.
pub(super) fn refuse_orphans_of(path: &Path) -> Result<()> {
    if !fs::metadata(path).is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    let options = ParentOptions::default();
    let children = Parent::at(path)?.children(&options, &[], &[]);
    let children = children.sure(Orphans::Refuse)?;
    children.refuse(path).map_err(|error| {
        error.override_remedy(
            Remedy::new("choose another name for the output; or ")
                .named("give ")
                .step(Step::Choose(Choice::LoseChildren), "have them lost")
                .text(", and they are lost"),
        )
    })
}
