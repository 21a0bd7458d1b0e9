//! Many files, of which only so many are open at a time.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{File, ReadAt, Stamp};
use crate::error::{Error, ErrorKind, Result};

/// The files that are open now. The one that was used least recently is closed when there would be too many: an
/// ordinary process may have 1024.
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
    /// Keeps `most` files open, at least one.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            inner: Mutex::default(),
        })
    }

    /// A file to read from whenever it is needed. It is looked at once now.
    pub fn open(self: &Arc<Self>, path: impl Into<PathBuf>) -> Result<PooledFile> {
        let path = path.into();
        let file = File::open(&path)?;
        let stamp = file.stamp()?;
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.next += 1;
        let id = inner.next;
        inner.insert(id, Arc::new(file), self.most);
        drop(inner);
        Ok(PooledFile {
            handles: Arc::clone(self),
            id,
            path,
            stamp,
        })
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

/// A file that is opened again when it is needed and was closed meanwhile.
#[derive(Debug)]
pub struct PooledFile {
    handles: Arc<Handles>,
    id: u64,
    path: PathBuf,
    stamp: Stamp,
}

impl PooledFile {
    /// Identity, size and times when it was opened first. It is never read in another state.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    fn file(&self) -> Result<Arc<File>> {
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
                Error::new(ErrorKind::Changed, "the file was changed while it was used")
                    .with_path(&self.path)
                    .with_hint("run the command again"),
            );
        }
        let file = Arc::new(file);
        lock().insert(self.id, Arc::clone(&file), self.handles.most);
        Ok(file)
    }
}

impl Drop for PooledFile {
    fn drop(&mut self) {
        let inner = &self.handles.inner;
        let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.open.remove(&self.id);
    }
}

impl ReadAt for PooledFile {
    fn name(&self) -> &Path {
        &self.path
    }

    fn byte_len(&self) -> Result<u64> {
        self.file()?.byte_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file()?.read_exact_at(buf, offset)
    }

    fn data_range(&self, within: Range<u64>) -> Result<Option<Range<u64>>> {
        self.file()?.data_range(within)
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
        fs::write(folder.path().join("0"), [9; 9]).unwrap();
        let error = files[0].read_exact_at(&mut byte, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed);
    }
}
