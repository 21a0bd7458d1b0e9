//! Checks the parents of a differencing disk, which the caller looks up.

use std::path::Path;

use super::advice::Advised;
use super::checker::Checker;
use super::lookup::{ChainState, FoundParent};
use super::rules;
use crate::error::Result;
use crate::vhd::parent::resized_alone;
use crate::vhd::{DynamicHeader, Footer, Timestamp};

/// The longest chain that Xen tools accept.
const XEN_CHAIN: usize = 30;

impl Checker<'_> {
    /// Looks up the parent and checks it. Returns whether there is one.
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
                let advice = trouble.advised(rule);
                add.add_advising(rule, "chain", at, (&trouble.found, expected), advice);
            }
            ChainState::Missing(trouble) => {
                let rule = &rules::PARENT_MISSING;
                let expected = format_args!("the disk with the unique id {id}");
                let advice = trouble.advised(rule);
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
                let advice = trouble.advised(rule);
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
            let advice = Advised::Own(resized_alone(Path::new(&parent.file), size));
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
