//! Looks up the parents of a differencing VHD for a check.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::ParentOptions;
use super::open::{OpenImage, open_parent};
use super::parents::{MAX_CHAIN, Trail};
use crate::error::{Error, ErrorKind, Reason, Result};
use crate::image::Image as _;
use crate::remedy::{Act, Remedy, Step};
use crate::storage::File;
use crate::text::shown;
use crate::vhd::{
    ChainLookup, ChainState, DynamicHeader, Footer, FoundParent, ParentRequest, Timestamp, Trouble,
    read_paths,
};

/// Looks up the parents of the image at a path.
pub(super) struct ParentLookup<'a> {
    child: &'a Path,
    parents: &'a ParentOptions,
}

impl<'a> ParentLookup<'a> {
    pub(super) fn new(child: &'a Path, parents: &'a ParentOptions) -> Self {
        Self { child, parents }
    }

    fn parent(&self, child: &Footer, header: &DynamicHeader) -> Result<ChainState> {
        if header.parent_unique_id.is_nil() && !self.parents.allow_raw {
            return Ok(ChainState::Unknown);
        }
        let file = File::open(self.child)?;
        let mut trail = Trail::default();
        trail.push(self.child, file.stamp()?);
        let paths = read_paths(&file, header)?;
        let request = ParentRequest {
            child: self.child,
            child_id: child.unique_id,
            parent_id: header.parent_unique_id,
            parent_timestamp: header.parent_timestamp,
            parent_name: &header.parent_name(),
            paths: &paths,
        };
        let parent = open_parent(&request, self.parents, &mut trail)?;
        Ok(ChainState::Found(found(&parent)?))
    }

    /// Converts the error of a search to the state of the chain.
    fn state_of(&self, error: &Error) -> ChainState {
        let own = error.path() == Some(self.child);
        match error.reason() {
            Some(Reason::ParentsInCircle) if own => {
                ChainState::Itself(self.child.to_string_lossy().into_owned())
            }
            Some(Reason::ParentsInCircle) => ChainState::Loop(error.to_string()),
            Some(Reason::TooManyParents) => ChainState::TooDeep(MAX_CHAIN),
            Some(Reason::ParentNotFound) if own => ChainState::Missing(trouble(error)),
            Some(Reason::WrongParent) if own => ChainState::Another(trouble(error)),
            _ => ChainState::Damaged(unreadable(error)),
        }
    }
}

impl ChainLookup for ParentLookup<'_> {
    fn look_up(&self, child: &Footer, header: &DynamicHeader) -> Result<ChainState> {
        match self.parent(child, header) {
            // A missing file was established by looking; any other failure says nothing about the chain.
            Err(error) if error.says_nothing() => Err(error),
            Err(error) => Ok(self.state_of(&error)),
            found => found,
        }
    }
}

/// The findings of a search that didn't find the parent, without the parts that the finding states itself.
fn trouble(error: &Error) -> Trouble {
    Trouble {
        found: error.found().unwrap_or(error.message()).to_owned(),
        remedy: error_remedy(error),
    }
}

/// Why a file of the chain can't be read: its name and the message. Checking that file reports the rest.
fn unreadable(error: &Error) -> Trouble {
    let file = error.path();
    let found = match file {
        Some(file) => format!("{}: {}", shown(file), error.message()),
        None => error.message().to_owned(),
    };
    let damaged = [ErrorKind::Damaged, ErrorKind::Unsupported].contains(&error.kind());
    let remedy = match file.filter(|_| damaged) {
        Some(file) => Some(
            Remedy::new("for details: ")
                .step(Step::Do(Act::Check, file.to_path_buf()), "check that file"),
        ),
        None => error_remedy(error),
    };
    Trouble { found, remedy }
}

fn error_remedy(error: &Error) -> Option<Remedy> {
    let usual = || error.hint().map(Remedy::from);
    error.remedy().cloned().or_else(usual)
}

fn found(parent: &OpenImage) -> Result<FoundParent> {
    Ok(FoundParent {
        file: parent.path().to_string_lossy().into_owned(),
        unique_id: parent.vhd().map(|vhd| vhd.footer().unique_id),
        virtual_size: parent.virtual_size(),
        modified: Some(Timestamp::from_unix(parent.file().metadata()?.mtime())),
        depth: parent.chain().count() + 1,
    })
}
