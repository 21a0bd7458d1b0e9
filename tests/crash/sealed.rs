//! Folders of disks whose files are encrypted as those of an encrypted store are, but keep their names, so that they can be
//! laid out anywhere.

use std::sync::{Arc, LazyLock};

use vhdkit::Result;
use vhdkit::age::{ChunkKey, Identity, open_header, start};
use vhdkit::storage::{ChunkSeal, Seal};

static KEY: LazyLock<Identity> = LazyLock::new(|| Identity::random().unwrap());

/// Encrypts contents, and no names.
#[derive(Debug)]
pub(crate) struct OpenNames;

struct Chunks(ChunkKey);

impl ChunkSeal for Chunks {
    fn seal(&self, n: u64, last: bool, chunk: &mut [u8]) -> Result<[u8; 16]> {
        self.0.seal(n, last, chunk)
    }

    fn open<'a>(&self, n: u64, last: bool, stored: &'a mut [u8]) -> Option<&'a mut [u8]> {
        self.0.open(n, last, stored)
    }
}

impl Seal for OpenNames {
    fn start(&self) -> Result<(Vec<u8>, Arc<dyn ChunkSeal>)> {
        let (head, key) = start(&KEY.recipient())?;
        Ok((head, Arc::new(Chunks(key))))
    }

    fn open(&self, head: &[u8]) -> Result<(usize, Arc<dyn ChunkSeal>)> {
        let opening = open_header(head, &KEY)?;
        Ok((opening.len, Arc::new(Chunks(opening.key))))
    }

    fn hide(&self, _: &str, name: &str) -> String {
        name.to_owned()
    }

    fn reveal(&self, _: &str, hidden: &str) -> Option<String> {
        Some(hidden.to_owned())
    }
}
