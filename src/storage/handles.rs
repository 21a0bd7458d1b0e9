//! A pool of many files, of which only a limited number is open at a time.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{File, ReadAt, Stamp};
use crate::error::{Error, ErrorKind, Result};

/// The files that are open. Opening one more than the limit closes the least recently used one: an ordinary process may
/// have only 1024 open.
#[derive(Debug)]
pub struct Handles {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    clock: u64,
    open: HashMap<u64, (u64, Arc<File>)>,
}

impl Handles {
    /// Creates a pool that keeps up to `most` files open, at least one.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            inner: Mutex::default(),
        })
    }

    /// Adds a file to read from whenever needed. It is opened once now, to record its state.
    pub fn open(self: &Arc<Self>, path: impl Into<PathBuf>) -> Result<PooledFile> {
        let path = path.into();
        let file = File::open(&path)?;
        let stamp = file.stamp()?;
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.next += 1;
        let id = inner.next;
        inner.insert(id, Arc::new(file), self.most);
        drop(inner);
        Ok(PooledFile(Arc::new(Pooled {
            handles: Arc::clone(self),
            id,
            path,
            stamp,
            held: OnceLock::new(),
        })))
    }
}

impl Inner {
    fn insert(&mut self, id: u64, file: Arc<File>, most: usize) {
        while self.open.len() >= most {
            let oldest = self.open.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(id, _)| *id) else {
                break;
            };
            self.open.remove(&oldest);
        }
        self.clock += 1;
        self.open.insert(id, (self.clock, file));
    }
}

/// A file that is reopened on demand after it was closed. Clones are handles to the same file.
#[derive(Debug, Clone)]
pub struct PooledFile(Arc<Pooled>);

#[derive(Debug)]
struct Pooled {
    handles: Arc<Handles>,
    id: u64,
    path: PathBuf,
    stamp: Stamp,
    /// The file, if it is held open.
    held: OnceLock<Arc<File>>,
}

impl PooledFile {
    /// The stamp of the file when it was first opened. It is never read in a different state.
    pub fn stamp(&self) -> &Stamp {
        &self.0.stamp
    }

    /// Keeps the file open until this and all its clones are dropped, even if it is renamed or removed meanwhile. It
    /// doesn't count towards the pool's limit.
    pub fn hold(&self) -> Result<()> {
        if self.0.held.get().is_none() {
            let file = self.0.file()?;
            self.0.release();
            // If another thread was faster, its handle is just as good.
            let _ = self.0.held.set(file);
        }
        Ok(())
    }

    /// Fails if the file was changed since it was first opened. One that is [held](Self::hold) may have been renamed or
    /// removed.
    pub fn check_unchanged(&self) -> Result<()> {
        match self.0.held.get() {
            Some(file) => file.check_content_unchanged(&self.0.stamp),
            None => super::check_unchanged_at(&self.0.path, &self.0.stamp),
        }
    }
}

impl Pooled {
    fn file(&self) -> Result<Arc<File>> {
        if let Some(file) = self.held.get() {
            return Ok(Arc::clone(file));
        }
        let lock = || {
            let inner = &self.handles.inner;
            inner.lock().unwrap_or_else(PoisonError::into_inner)
        };
        let mut inner = lock();
        inner.clock += 1;
        let now = inner.clock;
        if let Some((used, file)) = inner.open.get_mut(&self.id) {
            *used = now;
            return Ok(Arc::clone(file));
        }
        drop(inner);
        let file = File::open(&self.path)?;
        if file.stamp()? != self.stamp {
            return Err(
                Error::new(ErrorKind::Changed, "the file changed while it was in use")
                    .with_path(&self.path)
                    .with_hint("run the command again"),
            );
        }
        let file = Arc::new(file);
        lock().insert(self.id, Arc::clone(&file), self.handles.most);
        Ok(file)
    }

    /// Removes the file from the pool.
    fn release(&self) {
        let inner = &self.handles.inner;
        let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.open.remove(&self.id);
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.release();
    }
}

impl ReadAt for PooledFile {
    fn name(&self) -> &Path {
        &self.0.path
    }

    fn byte_len(&self) -> Result<u64> {
        self.0.file()?.byte_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.file()?.read_exact_at(buf, offset)
    }

    fn data_range(&self, within: Range<u64>) -> Result<Option<Range<u64>>> {
        self.0.file()?.data_range(within)
    }
}

/// Returns roughly how many more files this process may keep open, with some headroom for everything else.
pub fn room_for_files() -> usize {
    /// Headroom for pipes, terminals, locks, output files, and what libraries open.
    const OTHERS: usize = 128;
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    limit
        .unwrap_or(usize::MAX)
        .saturating_sub(open)
        .saturating_sub(OTHERS)
}

/// Raises this process's limit of open files as far as the system allows, up to some ten thousand. Child processes
/// inherit it.
pub fn allow_many_files() {
    const MANY: u64 = 1 << 16;
    let found = getrlimit(Resource::Nofile);
    let wanted = found.maximum.map_or(MANY, |most| most.min(MANY));
    if found.current.is_some_and(|now| now < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: found.maximum,
        };
        // With a lower limit, chains that are too long are read through the pool.
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn more_files_than_may_be_open_are_read_and_a_replaced_one_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let handles = Handles::new(3);
        let files: Vec<_> = (0..10_u8)
            .map(|n| {
                let path = folder.path().join(n.to_string());
                fs::write(&path, [n; 8]).unwrap();
                handles.open(path).unwrap()
            })
            .collect();
        let mut byte = [0];
        for _ in 0..2 {
            for (n, file) in files.iter().enumerate() {
                file.read_exact_at(&mut byte, 7).unwrap();
                assert_eq!(usize::from(byte[0]), n);
                assert!(handles.inner.lock().unwrap().open.len() <= 3);
            }
        }
        // A held file outlives its name and isn't counted.
        files[1].hold().unwrap();
        fs::remove_file(folder.path().join("1")).unwrap();
        fs::write(folder.path().join("1"), [7; 8]).unwrap();
        for file in &files {
            file.read_exact_at(&mut byte, 7).unwrap();
        }
        files[1].read_exact_at(&mut byte, 0).unwrap();
        assert_eq!(byte, [1]);
        files[1].check_unchanged().unwrap();
        files[2].check_unchanged().unwrap();
        files[2].hold().unwrap();
        fs::write(folder.path().join("2"), [9; 9]).unwrap();
        let error = files[2].check_unchanged().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed);
        fs::write(folder.path().join("0"), [9; 9]).unwrap();
        let error = files[0].read_exact_at(&mut byte, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed);
    }
}
