//! The interface by which a check learns about parents.

use super::advice::Advised;
use super::rules::Rule;
use crate::error::Result;
use crate::remedy::Remedy;
use crate::vhd::{DynamicHeader, Footer, Timestamp, UniqueId};

/// Looks up the parent of a differencing disk, by the rules and permissions of the caller.
pub trait ChainLookup {
    /// Looks up the parent that `header` of the disk with the footer `child` refers to, and its own parents.
    ///
    /// # Errors
    ///
    /// Fails if something prevented the lookup, which says nothing about the chain: missing permissions, a failing
    /// device, or a file that is locked or changing.
    fn look_up(&self, child: &Footer, header: &DynamicHeader) -> Result<ChainState>;
}

/// The result of looking up a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainState {
    /// The parent can be read, and so can its own parents.
    Found(FoundParent),
    /// Nothing is known, because the child can't be opened, or because its parent is raw and wasn't given.
    Unknown,
    /// None of the files that the child names exists; with what was tried, and advice.
    Missing(Trouble),
    /// Only a different disk was found; with which one, and advice.
    Another(Trouble),
    /// The parent is the child's own file.
    Itself(String),
    /// A parent is one of its own descendants.
    Loop(String),
    /// The chain has more than this many files.
    TooDeep(usize),
    /// The parent, or one of its own, can't be read; with the reason, and advice.
    Damaged(Trouble),
}

/// A description of the file found in place of a usable parent, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// A short description of what was found.
    pub found: String,
    /// Advice, if it can be more specific than that of the rule.
    pub remedy: Option<Remedy>,
}

impl Trouble {
    /// This remedy or, if there is none, the advice of `rule`.
    pub(super) fn advised(&self, rule: &'static Rule) -> Advised {
        let own = self.remedy.clone().map(Advised::Own);
        own.unwrap_or(Advised::Kind(rule.advice))
    }
}

/// A parent that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundParent {
    /// Its file, for display.
    pub file: String,
    /// Its identity; `None` for a raw image.
    pub unique_id: Option<UniqueId>,
    /// Its virtual size in bytes.
    pub virtual_size: u64,
    /// Modification time of its file.
    pub modified: Option<Timestamp>,
    /// Number of files in the chain, from the child to the last parent.
    pub depth: usize,
}
