//! What is looked at before and after reading a disk whose lock isn't held.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind as IoKind;
use std::path::Path;

use super::file_names::{file_names, is_part};
use super::layout::{DELETING, WINDOWS};
use crate::error::{Error, Result};
use crate::storage::{Stamp, on_disk};

/// The files of a disk, by which a change shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen(BTreeMap<String, Option<Stamp>>);

impl Seen {
    #[expect(
        clippy::case_sensitive_file_extension_comparisons,
        reason = "the names of a store are as they are written"
    )]
    pub(super) fn at(folder: &Path) -> Result<Self> {
        // What is half copied, and what is being written, belongs to no snapshot yet.
        let counts = |name: &String| !is_part(name) && !name.starts_with('.');
        let names = file_names(folder)?;
        let names = names.iter().filter(|name| counts(name)).cloned();
        names
            .chain([DELETING.to_owned()])
            .map(|name| {
                let told = name == DELETING || name == WINDOWS || name.ends_with(".json");
                let stamp = if told {
                    stamp(&folder.join(&name))?
                } else {
                    None
                };
                Ok((name, stamp))
            })
            .collect::<Result<_>>()
            .map(Self)
    }
}

fn stamp(path: &Path) -> Result<Option<Stamp>> {
    match fs::symlink_metadata(on_disk(path)) {
        Ok(found) => Ok(Some(Stamp::from(&found))),
        Err(e) if e.kind() == IoKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("cannot look at", e).with_path(path)),
    }
}
