//! Walks two trees in parallel, and finds which names were added, removed or moved, and which files have different
//! content.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};

use super::changed::{FileChange, FileChangeKind, Owned, Wrong};
use super::files::list;
use super::model::{Entry, FileSystem, Node, NodeId, NodeKind, Stored};
use super::ranges::Touched;
use crate::error::Result;

/// The maximum depth of folders.
const DEEPEST: usize = 255;

/// The most folders that are walked, which takes 64 MiB.
const MOST_FOLDERS: usize = 2 << 20;

/// Memory for changed files, in bytes; further ones are summed up.
const MOST_MEMORY: usize = 64 << 20;

/// The name of that sum.
const MORE: &str = "files that are too many to list";

/// The result of a walk.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) entries: Vec<FileChange>,
    pub(super) areas: BTreeMap<&'static str, u64>,
}

/// A name that is in one tree only.
#[derive(Debug)]
struct Single {
    /// Its folder, if that is also in one tree only.
    parent: Option<usize>,
    path: Vec<u8>,
    node: Node,
}

struct Walk<'a> {
    base: Option<&'a dyn FileSystem>,
    target: &'a dyn FileSystem,
    touched: &'a Touched,
    owned: &'a mut HashMap<NodeId, Owned>,
    wrong: &'a mut Wrong,
    found: Walked,
    removed: Vec<Single>,
    created: Vec<Single>,
    seen: [HashSet<NodeId>; 2],
    path: Vec<u8>,
    depth: usize,
    memory: usize,
}

/// Walks both trees. Without a base, every file is new.
pub(super) fn walk(
    base: Option<&dyn FileSystem>,
    target: &dyn FileSystem,
    touched: &Touched,
    owned: &mut HashMap<NodeId, Owned>,
    wrong: &mut Wrong,
) -> Result<Walked> {
    let mut walk = Walk {
        base,
        target,
        touched,
        owned,
        wrong,
        found: Walked::default(),
        removed: Vec::new(),
        created: Vec::new(),
        seen: [HashSet::new(), HashSet::new()],
        path: Vec::new(),
        depth: 0,
        memory: 0,
    };
    let root = target.node(target.root());
    let Some(root) = walk.wrong.pass(root)? else {
        return Ok(walk.found);
    };
    match base {
        Some(fs) => {
            let old = fs.node(fs.root());
            if let Some(old) = walk.wrong.pass(old)? {
                walk.pair(&old, &root)?;
            }
        }
        None => walk.subtree(Side::Target, &root, None)?,
    }
    walk.match_up()?;
    let mut found = walk.found;
    found
        .entries
        .sort_by(|a, b| a.path.cmp(&b.path).then(a.change.cmp(&b.change)));
    Ok(found)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Base,
    Target,
}

impl Walk<'_> {
    /// Returns whether to enter a folder: each only once, and none too deep.
    fn enter(&mut self, side: Side, id: NodeId) -> bool {
        let seen = match side {
            Side::Base => self.seen.first_mut(),
            Side::Target => self.seen.last_mut(),
        };
        let Some(seen) = seen else { return false };
        if self.depth >= DEEPEST || seen.len() >= MOST_FOLDERS || !seen.insert(id) {
            let fs = if side == Side::Base {
                self.base.unwrap_or(self.target)
            } else {
                self.target
            };
            let at = fs.record(id).map_or(0, |range| range.start);
            let error = fs.volume().damaged(
                "a folder has two names, or folders are too deep or too many",
                at,
            );
            self.wrong.add(&error);
            return false;
        }
        true
    }

    /// Returns whether the node is certain to be the same in both trees.
    fn is_same(&self, id: NodeId) -> bool {
        let record = self.target.record(id);
        // In a newly created file system it may be elsewhere.
        if self.base.and_then(|base| base.record(id)) != record {
            return false;
        }
        !self.owned.contains_key(&id) && record.is_some_and(|record| !self.touched.any_in(&record))
    }

    /// Returns whether a folder that is the same node in both trees has the same names.
    fn has_same_names(&self, node: &Node) -> Result<bool> {
        if !self.is_same(node.id) {
            return Ok(false);
        }
        let mut same = true;
        self.target.runs(node, &mut |run| {
            same &= !self
                .touched
                .any_in(&(run.place..run.place.saturating_add(run.len)));
            Ok(())
        })?;
        Ok(same)
    }

    /// Compares two folders.
    fn pair(&mut self, old: &Node, new: &Node) -> Result<()> {
        let Some(base) = self.base else { return Ok(()) };
        // Both are recorded, whatever becomes of the other.
        let entered = [
            self.enter(Side::Base, old.id),
            self.enter(Side::Target, new.id),
        ];
        if entered != [true, true] {
            return Ok(());
        }
        let same = old.id == new.id && self.has_same_names(new).unwrap_or(false);
        let Some(after) = self.wrong.pass(list(self.target, new))? else {
            return Ok(());
        };
        if same {
            for entry in &after {
                self.name(Some(entry), Some(entry))?;
            }
            return Ok(());
        }
        let Some(before) = self.wrong.pass(list(base, old))? else {
            return Ok(());
        };
        let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
        loop {
            let order = match (before.peek(), after.peek()) {
                (Some(old), Some(new)) => old.name.cmp(&new.name),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => return Ok(()),
            };
            let old = if order.is_le() { before.next() } else { None };
            let new = if order.is_ge() { after.next() } else { None };
            self.name(old, new)?;
        }
    }

    /// Processes a name that is in one folder or in both.
    fn name(&mut self, old: Option<&Entry>, new: Option<&Entry>) -> Result<()> {
        let Some(name) = old.or(new).map(|entry| &entry.name) else {
            return Ok(());
        };
        let len = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(name);
        self.depth += 1;
        let done = self.named(old, new);
        self.depth -= 1;
        self.path.truncate(len);
        done
    }

    fn named(&mut self, old: Option<&Entry>, new: Option<&Entry>) -> Result<()> {
        if let (Some(old), Some(new)) = (old, new)
            && old.id == new.id
            && new.folder == Some(false)
            && self.is_same(new.id)
        {
            return Ok(());
        }
        let old = match (old, self.base) {
            (Some(entry), Some(fs)) => self.wrong.pass(fs.node(entry.id))?,
            _ => None,
        };
        let new = match new {
            Some(entry) => self.wrong.pass(self.target.node(entry.id))?,
            None => None,
        };
        match (old, new) {
            (Some(old), Some(new))
                if old.kind == NodeKind::Folder && new.kind == NodeKind::Folder =>
            {
                if has_other_attributes(&old, &new, false) {
                    self.tell(
                        FileChangeKind::Attributes,
                        &self.path.clone(),
                        Some(&old),
                        Some(&new),
                        None,
                    );
                }
                self.pair(&old, &new)
            }
            (Some(old), Some(new)) if old.kind == new.kind => {
                if self.has_other_content(&old, &new)? {
                    self.tell(
                        FileChangeKind::Modified,
                        &self.path.clone(),
                        Some(&old),
                        Some(&new),
                        None,
                    );
                } else if has_other_attributes(&old, &new, true) {
                    self.tell(
                        FileChangeKind::Attributes,
                        &self.path.clone(),
                        Some(&old),
                        Some(&new),
                        None,
                    );
                }
                Ok(())
            }
            (old, new) => {
                if let Some(old) = old {
                    self.single(Side::Base, &old, None)?;
                }
                match new {
                    Some(new) => self.single(Side::Target, &new, None),
                    None => Ok(()),
                }
            }
        }
    }

    /// Records a name that is in one tree only, and everything in it.
    fn single(&mut self, side: Side, node: &Node, parent: Option<usize>) -> Result<()> {
        let size = self.path.len() + 2 * size_of::<Single>();
        let mut own = None;
        if self.memory + size <= MOST_MEMORY {
            self.memory += size;
            let single = Single {
                parent,
                path: self.path.clone(),
                node: node.clone(),
            };
            let list = if side == Side::Base {
                &mut self.removed
            } else {
                &mut self.created
            };
            own = Some(list.len());
            list.push(single);
        } else if side == Side::Target {
            self.sum_up(node.id);
        }
        if node.kind == NodeKind::Folder {
            self.subtree(side, node, own)
        } else {
            Ok(())
        }
    }

    fn subtree(&mut self, side: Side, node: &Node, own: Option<usize>) -> Result<()> {
        if !self.enter(side, node.id) {
            return Ok(());
        }
        let fs = match (side, self.base) {
            (Side::Base, Some(base)) => base,
            _ => self.target,
        };
        let Some(entries) = self.wrong.pass(list(fs, node))? else {
            return Ok(());
        };
        for entry in entries {
            let Some(child) = self.wrong.pass(fs.node(entry.id))? else {
                continue;
            };
            let len = self.path.len();
            self.path.push(b'/');
            self.path.extend_from_slice(&entry.name);
            self.depth += 1;
            let done = self.single(side, &child, own);
            self.depth -= 1;
            self.path.truncate(len);
            done?;
        }
        Ok(())
    }

    /// Finds renamed nodes, and reports all names that are in one tree only.
    fn match_up(&mut self) -> Result<()> {
        let (removed, created) = (
            std::mem::take(&mut self.removed),
            std::mem::take(&mut self.created),
        );
        let mut by_identity: HashMap<(u128, NodeKind), Vec<usize>> = HashMap::new();
        for (n, single) in removed.iter().enumerate().rev() {
            by_identity
                .entry((single.node.identity, single.node.kind))
                .or_default()
                .push(n);
        }
        let mut moved_from = vec![None; created.len()];
        let mut gone = vec![true; removed.len()];
        for (n, new) in created.iter().enumerate() {
            let key = (new.node.identity, new.node.kind);
            let Some(old_n) = by_identity.get_mut(&key).and_then(Vec::pop) else {
                self.tell(
                    FileChangeKind::Created,
                    &new.path,
                    None,
                    Some(&new.node),
                    None,
                );
                continue;
            };
            let Some(old) = removed.get(old_n) else {
                continue;
            };
            if let (Some(from), Some(gone)) = (moved_from.get_mut(n), gone.get_mut(old_n)) {
                *from = Some(old_n);
                *gone = false;
            }
            let with_parent = old.parent.is_some()
                && new
                    .parent
                    .and_then(|parent| moved_from.get(parent).copied().flatten())
                    == old.parent
                && last_of(&old.path) == last_of(&new.path);
            if !with_parent {
                self.tell(
                    FileChangeKind::Renamed,
                    &new.path,
                    Some(&old.node),
                    Some(&new.node),
                    Some(&old.path),
                );
            } else if new.node.kind != NodeKind::Folder
                && self.has_other_content(&old.node, &new.node)?
            {
                self.tell(
                    FileChangeKind::Modified,
                    &new.path,
                    Some(&old.node),
                    Some(&new.node),
                    None,
                );
            } else if has_other_attributes(&old.node, &new.node, new.node.kind != NodeKind::Folder)
            {
                self.tell(
                    FileChangeKind::Attributes,
                    &new.path,
                    Some(&old.node),
                    Some(&new.node),
                    None,
                );
            }
        }
        for (old, gone) in removed.iter().zip(gone) {
            if gone {
                self.tell(
                    FileChangeKind::Removed,
                    &old.path,
                    Some(&old.node),
                    None,
                    None,
                );
            }
        }
        Ok(())
    }

    /// Returns whether the content of a file was written: its bytes changed or moved.
    fn has_other_content(&mut self, old: &Node, new: &Node) -> Result<bool> {
        let written = self.owned.get(&new.id).is_some_and(|owned| owned.bytes > 0);
        if written || old.size != new.size {
            return Ok(true);
        }
        let Some(base) = self.base else {
            return Ok(true);
        };
        let before = self.wrong.pass(layout(base, old))?;
        let after = self.wrong.pass(layout(self.target, new))?;
        Ok(before != after)
    }

    /// Adds up bytes of a node that isn't listed.
    fn sum_up(&mut self, id: NodeId) {
        if let Some(owned) = self.owned.get_mut(&id).filter(|owned| !owned.told) {
            owned.told = true;
            *self.found.areas.entry(MORE).or_default() += owned.bytes;
        }
    }

    fn tell(
        &mut self,
        change: FileChangeKind,
        path: &[u8],
        old: Option<&Node>,
        new: Option<&Node>,
        was: Option<&[u8]>,
    ) {
        let Some(node) = new.or(old) else { return };
        self.memory += path.len() + was.map_or(0, <[u8]>::len) + size_of::<FileChange>();
        if self.memory > 2 * MOST_MEMORY {
            if new.is_some() {
                self.sum_up(node.id);
            }
            return;
        }
        let mut changed_bytes = 0;
        if new.is_some()
            && let Some(owned) = self.owned.get_mut(&node.id).filter(|owned| !owned.told)
        {
            owned.told = true;
            changed_bytes = owned.bytes;
        }
        self.found.entries.push(FileChange {
            path: path.to_vec(),
            change,
            kind: node.kind,
            was: was.map(<[u8]>::to_vec),
            size_before: old.map(|node| node.size),
            size_after: new.map(|node| node.size),
            changed_bytes,
        });
    }
}

fn last_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

fn has_other_attributes(old: &Node, new: &Node, times: bool) -> bool {
    (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid)
        || times && old.modified != new.modified
}

/// A hash of the content's layout: holes and unwritten space are treated alike.
fn layout(fs: &dyn FileSystem, node: &Node) -> Result<u64> {
    let mut hash = DefaultHasher::new();
    if let Stored::Inline(bytes) = &node.stored {
        bytes.hash(&mut hash);
        return Ok(hash.finish());
    }
    let mut held: Option<(u64, u64, u64)> = None;
    fs.runs(node, &mut |run| {
        let len = run.len.min(node.size.saturating_sub(run.logical));
        if !run.written || len == 0 {
            return Ok(());
        }
        match &mut held {
            Some((logical, place, joined))
                if *logical + *joined == run.logical && *place + *joined == run.place =>
            {
                *joined += len;
            }
            held => {
                held.hash(&mut hash);
                *held = Some((run.logical, run.place, len));
            }
        }
        Ok(())
    })?;
    held.hash(&mut hash);
    Ok(hash.finish())
}
