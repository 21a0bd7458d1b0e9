//! Three stores of one disk, pruned and copied in any order: a copy always goes on from the newest point of its target,
//! whether or not its source still has that, and never brings the whole disk again.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use proptest::prelude::*;
use vhdkit::files::{OpenOptions, open_image};
use vhdkit::image::Image;
use vhdkit::parallel::Workers;
use vhdkit::progress::Silent;
use vhdkit::snapshot::{
    Access, Decision, Disk, NewPoint, ReadData, STORE_VERSION, Time, Work, copy_disk, create, init,
    prune, verify,
};

use crate::disk::{Random, TestFolder, assert_same};

const SIZE: usize = 3 << 20;

/// What is done in one step; `from` and `to` are stores.
#[derive(Debug, Clone)]
enum Step {
    /// The first store gets a snapshot; after some the list of window hashes is lost.
    Create {
        seed: u64,
        forget: bool,
    },
    /// One loses what the bits of `mask` don't keep, but never its newest.
    Prune {
        at: usize,
        mask: u32,
    },
    Copy {
        from: usize,
        to: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<u64>(), prop::bool::weighted(0.2))
            .prop_map(|(seed, forget)| Step::Create { seed, forget }),
        3 => (0..3_usize, any::<u32>()).prop_map(|(at, mask)| Step::Prune { at, mask }),
        4 => prop_oneof![Just((0, 1)), Just((1, 2)), Just((0, 2))]
            .prop_map(|(from, to)| Step::Copy { from, to }),
    ]
}

struct Stores {
    folder: TestFolder,
    workers: Workers,
    /// What every snapshot holds, by its number in the order of creation.
    all: Vec<Vec<u8>>,
    /// The snapshots that each store has.
    points: [Vec<usize>; 3],
    bridged: usize,
}

impl Stores {
    fn path(&self, n: usize) -> PathBuf {
        self.folder.path(["a", "b", "c"][n])
    }

    fn work(&self) -> Work<'_> {
        Work {
            workers: &self.workers,
            progress: &Silent,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Create { seed, forget } => self.create(seed, forget),
            Step::Prune { at, mask } => self.prune(at, mask),
            Step::Copy { from, to } => self.copy(from, to),
        }
    }

    fn create(&mut self, seed: u64, forget: bool) {
        let mut random = Random::new(seed);
        let mut bytes = self
            .all
            .last()
            .cloned()
            .unwrap_or_else(|| random.bytes(SIZE));
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() / 512 - 8) * 512;
            let len = 512 * (1 + random.below(8));
            let new = random.bytes(len);
            bytes[at..at + new.len()].copy_from_slice(&new);
        }
        let image = self.folder.file("image.raw", &bytes);
        let image = open_image(&image, &OpenOptions::default()).unwrap();
        let n = self.all.len();
        let new = NewPoint {
            name: format!("s{n}"),
            time: Some(Time::from_unix(1_700_000_000 + i64::try_from(n).unwrap())),
            ..NewPoint::default()
        };
        let mut disk = Disk::open(&self.path(0), "web", Access::Create).unwrap();
        create(&mut disk, &image, &new, self.work()).unwrap();
        drop(disk);
        self.points[0].push(n);
        self.all.push(bytes);
        if forget {
            let _ = std::fs::remove_file(self.path(0).join("web/newest.windows"));
        }
    }

    fn prune(&mut self, at: usize, mask: u32) {
        let Some(newest) = self.points[at].last().copied() else {
            return;
        };
        let stays = |n: usize| n == newest || (mask >> (n % 32)) & 1 == 1;
        let mut disk = Disk::open(&self.path(at), "web", Access::Write).unwrap();
        let decisions: Vec<Decision> = disk
            .points()
            .iter()
            .zip(&self.points[at])
            .map(|(point, n)| Decision {
                point: point.clone(),
                reasons: if stays(*n) {
                    vec!["kept".to_owned()]
                } else {
                    Vec::new()
                },
            })
            .collect();
        prune(&mut disk, &decisions, self.work()).unwrap();
        self.points[at].retain(|n| stays(*n));
    }

    fn copy(&mut self, from: usize, to: usize) {
        let (source, target) = (&self.points[from], &self.points[to]);
        let ahead = target.last() > source.last();
        if source.is_empty() || ahead {
            return;
        }
        let newest = target.last().copied();
        let copied = copy_disk((&self.path(from), &self.path(to)), "web", self.work());
        assert!(copied.error.is_none(), "{:?}", copied.error);
        let came: Vec<usize> = source
            .iter()
            .copied()
            .filter(|n| newest.is_none_or(|newest| *n > newest))
            .collect();
        let names: Vec<String> = copied
            .points
            .iter()
            .map(|p| p.manifest.name.clone())
            .collect();
        assert!(
            names
                .iter()
                .eq(&came.iter().map(|n| format!("s{n}")).collect::<Vec<_>>())
        );
        if let Some(newest) = newest {
            // So many bytes differ at most, of which random ones can't be packed.
            for (copied, n) in copied.points.iter().zip(&came) {
                let changes = 4 * 8 * 512 * (n - newest);
                assert!(!copied.manifest.is_base());
                assert!(
                    copied.bytes < 4096 + 2 * changes as u64,
                    "{} bytes",
                    copied.bytes
                );
            }
            self.bridged += usize::from(!source.contains(&newest) && !came.is_empty());
        }
        self.points[to].extend(came);
    }

    fn check(&self) {
        for n in 0..3 {
            if self.points[n].is_empty() {
                continue;
            }
            let mut disk = Disk::open(&self.path(n), "web", Access::Read).unwrap();
            let names = disk.points().iter().map(|point| point.name.clone());
            assert!(names.eq(self.points[n].iter().map(|n| format!("s{n}"))));
            for (point, n) in disk.points().iter().zip(&self.points[n]) {
                let image = disk.image(point).unwrap();
                let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
                image.read_exact_at(&mut bytes, 0).unwrap();
                assert_same(&bytes, &self.all[*n], &point.name);
            }
            let found = verify(&mut disk, ReadData::All, self.work()).unwrap();
            assert!(found.into_findings().unwrap().is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn whatever_is_pruned_copies_go_on(steps in prop::collection::vec(step(), 6..30)) {
        let mut stores = Stores {
            folder: TestFolder::in_memory(),
            workers: Workers::new(NonZeroUsize::new(2)).unwrap(),
            all: Vec::new(),
            points: [Vec::new(), Vec::new(), Vec::new()],
            bridged: 0,
        };
        for n in 0..3 {
            init(&stores.path(n), STORE_VERSION).unwrap();
        }
        for step in &steps {
            stores.step(step);
        }
        // In the end all have the newest one.
        if !stores.all.is_empty() {
            stores.prune(0, 0);
            for (from, to) in [(0, 1), (1, 2), (0, 2)] {
                stores.copy(from, to);
            }
            let newest = stores.all.len() - 1;
            prop_assert!(stores.points.iter().all(|points| points.last() == Some(&newest)));
        }
        stores.check();
    }
}
