//! The parents of a differencing disk, which somebody else looks up.

use super::Checker;
use super::advice::Advice;
use super::rules::{self, Rule};
use crate::error::{Result, quoted};
use crate::vhd::{DynamicHeader, Footer, Timestamp, UniqueId};

/// The longest chain that Xen tools take.
const XEN_CHAIN: usize = 30;

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
    fn advice(&self, rule: &'static Rule) -> Advice {
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

impl Checker<'_> {
    /// Has the parent looked up and judges what is found; says whether there was one.
    pub(super) fn chain(
        &mut self,
        footer: &Footer,
        header: &DynamicHeader,
        header_at: u64,
    ) -> Result<bool> {
        let Some(lookup) = self.options.chain else {
            return Ok(false);
        };
        let add = &mut self.findings;
        let at = header_at;
        let id = header.parent_unique_id;
        match lookup.look_up(footer, header)? {
            ChainState::Found(parent) => {
                self.parent_found(footer, header, header_at, &parent);
                return Ok(true);
            }
            ChainState::Unknown => {}
            ChainState::Another(trouble) => {
                let rule = &rules::PARENT_MISMATCH;
                let expected = format_args!("the unique id {id}");
                let advice = trouble.advice(rule);
                add.add_advising(rule, "chain", at, (&trouble.found, expected), advice);
            }
            ChainState::Missing(trouble) => {
                let rule = &rules::PARENT_MISSING;
                let expected = format_args!("the disk with the unique id {id}");
                let advice = trouble.advice(rule);
                add.add_advising(rule, "chain", at, (&trouble.found, expected), advice);
            }
            ChainState::Itself(file) => {
                add.add(&rules::PARENT_SELF, "chain", at, file, "another file");
            }
            ChainState::Loop(file) => {
                let expected = "a parent that isn't in the chain yet";
                add.add(&rules::PARENT_LOOP, "chain", at, file, expected);
            }
            ChainState::TooDeep(most) => {
                let found = format_args!("more than {most} files");
                let expected = format_args!("at most {most} files");
                add.add(&rules::CHAIN_DEPTH, "chain", at, found, expected);
            }
            ChainState::Damaged(trouble) => {
                let rule = &rules::PARENT_DAMAGED;
                let expected = "a parent that can be read";
                let advice = trouble.advice(rule);
                add.add_advising(rule, "chain", at, (&trouble.found, expected), advice);
            }
        }
        Ok(false)
    }

    fn parent_found(
        &mut self,
        footer: &Footer,
        header: &DynamicHeader,
        at: u64,
        parent: &FoundParent,
    ) {
        let add = &mut self.findings;
        let wanted = header.parent_unique_id;
        if let Some(id) = parent.unique_id.filter(|id| *id != wanted) {
            let found = format_args!("{id} in {}", parent.file);
            add.add(&rules::PARENT_MISMATCH, "chain", at + 40, found, wanted);
        }
        if parent.virtual_size > footer.current_size {
            let found = format_args!("{} bytes in {}", parent.virtual_size, parent.file);
            let size = footer.current_size;
            let expected = format_args!("at most {size} bytes");
            let advice = Advice::Text(format!(
                "one of the two was resized alone: if it was the parent, vhd resize {} --size {size} takes that back",
                quoted(&parent.file)
            ));
            let rule = &rules::PARENT_LARGER;
            add.add_advising(rule, "chain", at, (found, expected), advice);
        }
        let stamp = header.parent_timestamp;
        if let Some(modified) = parent.modified
            && stamp != Timestamp(0)
            && stamp != modified
            && stamp.since_1970() != modified
        {
            let found = format_args!("{modified} of {}", parent.file);
            add.add(&rules::PARENT_TIMESTAMP, "chain", at + 56, found, stamp);
        }
        if parent.depth > XEN_CHAIN {
            let found = format_args!("{} files", parent.depth);
            let expected = format_args!("at most {XEN_CHAIN} files");
            add.add(&rules::CHAIN_LONG, "chain", at, found, expected);
        }
    }
}
