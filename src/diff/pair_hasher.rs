//! Computes both content digests of a comparison, hashing equal parts of the disks once.

use crate::image::{CHUNK_SIZE, DIGEST_WINDOW, WindowHasher, WindowHashes};

/// In a chunk with differences, the size of the parts that are hashed once if they are equal.
const HASHED_APART: usize = 64 << 10;

/// Hashes the same window of two images, once as long as they are equal.
pub(super) struct PairHasher {
    target: WindowHasher,
    /// The base's own hasher, from the first difference in a digest window to its end.
    base: Option<WindowHasher>,
    base_done: WindowHashes,
    target_done: WindowHashes,
    fed: u64,
}

impl PairHasher {
    pub(super) fn new() -> Self {
        Self {
            target: WindowHasher::new(),
            base: None,
            base_done: WindowHashes::default(),
            target_done: WindowHashes::default(),
            fed: 0,
        }
    }

    /// Adds the parts of a whole chunk that lie within each image. `same` means that the chunk has no differences.
    pub(super) fn update(&mut self, base: &[u8], target: &[u8], same: bool) {
        let same = same && base.len() == target.len();
        match &mut self.base {
            None if same => self.target.update(target),
            Some(hasher) if same => self.target.update_both(hasher, target),
            hasher => {
                let hasher = hasher.get_or_insert_with(|| self.target.clone());
                Self::update_differing([hasher, &mut self.target], [base, target]);
            }
        }
        self.count();
    }

    /// Hashes equal parts once.
    fn update_differing(hashers: [&mut WindowHasher; 2], bytes: [&[u8]; 2]) {
        let [base_hasher, target_hasher] = hashers;
        let [base, target] = bytes.map(|bytes| bytes.chunks(HASHED_APART));
        let common = base.len().min(target.len());
        for (base, target) in base.clone().zip(target.clone()) {
            if base == target {
                target_hasher.update_both(base_hasher, target);
            } else {
                base_hasher.update(base);
                target_hasher.update(target);
            }
        }
        base.skip(common).for_each(|part| base_hasher.update(part));
        target
            .skip(common)
            .for_each(|part| target_hasher.update(part));
    }

    pub(super) fn update_zeros(&mut self, base: u64, target: u64) {
        if self.base.is_none() && base != target {
            self.base = Some(self.target.clone());
        }
        if let Some(hasher) = &mut self.base {
            hasher.update_zeros(base);
        }
        self.target.update_zeros(target);
        self.count();
    }

    /// At the end of each digest window, the two count as equal again.
    fn count(&mut self) {
        self.fed += CHUNK_SIZE as u64;
        if self.fed == DIGEST_WINDOW {
            self.close();
        }
    }

    fn close(&mut self) {
        let target = std::mem::replace(&mut self.target, WindowHasher::new()).finish();
        let base = self
            .base
            .take()
            .map_or_else(|| target.clone(), WindowHasher::finish);
        self.base_done.append(base);
        self.target_done.append(target);
        self.fed = 0;
    }

    pub(super) fn finish(mut self) -> (WindowHashes, WindowHashes) {
        if self.fed > 0 {
            self.close();
        }
        (self.base_done, self.target_done)
    }
}
