//! What whoever checks a file tells of its parents.

use super::advice::Advice;
use super::rules::Rule;
use crate::error::Result;
use crate::vhd::{DynamicHeader, Footer, Timestamp, UniqueId};

/// Looks up the parent of a differencing disk, by the rules and permissions of whoever asks for the check.
pub trait ChainLookup {
    /// What is to be found of the parent that `header` of the disk with the footer `child` names, and of its own
    /// parents.
    ///
    /// # Errors
    ///
    /// What kept it from being looked at, which says nothing about the chain: no permission, a device that fails, a
    /// file that is locked or changes.
    fn look_up(&self, child: &Footer, header: &DynamicHeader) -> Result<ChainState>;
}

/// What was found of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainState {
    /// The parent can be read, and so can its own parents.
    Found(FoundParent),
    /// Nothing is known, because the child can't be opened, or because its parent is raw and none was named.
    Unknown,
    /// No file that the child names is there; what was tried, and what to do about it.
    Missing(Trouble),
    /// Only another disk was found; which, and what to do about it.
    Another(Trouble),
    /// The parent is the child's own file.
    Itself(String),
    /// A file further up is one of those below it.
    Loop(String),
    /// The chain has more than so many files.
    TooDeep(usize),
    /// The parent, or one of its own, can't be read; why, and what to do about it.
    Damaged(Trouble),
}

/// What was found instead of a parent, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What was found, in a few words.
    pub found: String,
    /// What to do, if more is known than the rule says.
    pub advice: Option<String>,
}

impl Trouble {
    /// The advice: this one's, or else that of `rule`.
    pub(super) fn advice(&self, rule: &'static Rule) -> Advice {
        let own = self.advice.clone().map(Advice::Text);
        own.unwrap_or(Advice::Template(rule.advice))
    }
}

/// A parent that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundParent {
    /// Its file, for people.
    pub file: String,
    /// Its identity; `None` for a raw image.
    pub unique_id: Option<UniqueId>,
    /// Its virtual size in bytes.
    pub virtual_size: u64,
    /// When its file was last changed.
    pub modified: Option<Timestamp>,
    /// Files of the chain, from the child to the last parent.
    pub depth: usize,
}
