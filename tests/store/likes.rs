//! Three stores of machines that begin as snapshots of one another, pruned, copied, deleted and rebased in any order:
//! every point that is there reads as what it was made of, and nothing that a disk depends on goes.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use proptest::prelude::*;
use vhdkit::ErrorKind;
use vhdkit::files::{OpenOptions, open_image};
use vhdkit::image::Image;
use vhdkit::parallel::Workers;
use vhdkit::progress::Silent;
use vhdkit::snapshot::{
    Access, Amount, Disk, NewPoint, OtherPoint, Policy, ReadData, STORE_VERSION, Time, Work,
    copy_disks, create, decide, delete, disks, init, prune, rebase_disk, verify,
};

use crate::disk::{Random, TestFolder, assert_same};

const SIZE: usize = 1 << 20;
const NAMES: [&str; 4] = ["d0", "d1", "d2", "d3"];

/// What is done in one step: `at` and `to` are stores, `disk` and `other` disks.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The next snapshot of a disk in the first store; a new disk may begin as the newest of another one.
    Create {
        disk: usize,
        like: Option<usize>,
        full: bool,
        seed: u64,
    },
    Rebase {
        at: usize,
        disk: usize,
        like: Option<usize>,
    },
    Prune {
        at: usize,
        disk: usize,
        keep: u32,
    },
    Delete {
        at: usize,
        disk: usize,
        point: usize,
    },
    Copy {
        from: usize,
        to: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let disk = || 0..NAMES.len();
    prop_oneof![
        6 => (disk(), prop::option::of(disk()), prop::bool::weighted(0.1), any::<u64>())
            .prop_map(|(disk, like, full, seed)| Step::Create { disk, like, full, seed }),
        2 => (0..3_usize, disk(), prop::option::of(disk()))
            .prop_map(|(at, disk, like)| Step::Rebase { at, disk, like }),
        2 => (0..3_usize, disk(), 1..3_u32).prop_map(|(at, disk, keep)| Step::Prune { at, disk, keep }),
        3 => (0..3_usize, disk(), 0..4_usize).prop_map(|(at, disk, point)| Step::Delete { at, disk, point }),
        2 => prop_oneof![Just((0, 1)), Just((1, 2)), Just((0, 2))].prop_map(|(from, to)| Step::Copy { from, to }),
    ]
}

struct World {
    folder: TestFolder,
    workers: Workers,
    /// What each snapshot holds, by its name, which no other one has.
    all: BTreeMap<String, Vec<u8>>,
    /// The snapshots that each store should have, by disk.
    points: [BTreeMap<&'static str, Vec<String>>; 3],
    refused: usize,
    likes: usize,
}

impl World {
    fn new() -> Self {
        let world = Self {
            folder: TestFolder::in_memory(),
            workers: Workers::new(NonZeroUsize::new(2)).unwrap(),
            all: BTreeMap::new(),
            points: Default::default(),
            refused: 0,
            likes: 0,
        };
        for n in 0..3 {
            init(&world.path(n), STORE_VERSION).unwrap();
        }
        world
    }

    fn path(&self, n: usize) -> PathBuf {
        self.folder.path(["a", "b", "c"][n])
    }

    fn work(&self) -> Work<'_> {
        Work {
            workers: &self.workers,
            progress: &Silent,
        }
    }

    fn has(&self, at: usize, disk: usize) -> bool {
        self.points[at].contains_key(NAMES[disk])
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Create {
                disk,
                like,
                full,
                seed,
            } => self.create(disk, like, full, seed),
            Step::Rebase { at, disk, like } => self.rebase(at, disk, like),
            Step::Prune { at, disk, keep } => self.prune(at, disk, keep),
            Step::Delete { at, disk, point } => self.delete(at, disk, point),
            Step::Copy { from, to } => self.copy(from, to),
        }
    }

    fn create(&mut self, disk: usize, like: Option<usize>, full: bool, seed: u64) {
        let mut random = Random::new(seed);
        let is_new = !self.has(0, disk);
        let like = like.filter(|like| is_new && *like != disk && self.has(0, *like));
        let before = match (is_new, like) {
            (false, _) => self.points[0][NAMES[disk]].last(),
            (true, Some(like)) => self.points[0][NAMES[like]].last(),
            (true, None) => None,
        };
        let before = before.map(|name| self.all[name].clone());
        let mut bytes = before.unwrap_or_else(|| random.bytes(SIZE));
        // Now and then nothing changes: then several have the same content.
        for _ in 0..random.below(3) {
            let at = random.below(bytes.len() / 512 - 8) * 512;
            let len = 512 * (1 + random.below(8));
            let new = random.bytes(len);
            bytes[at..at + new.len()].copy_from_slice(&new);
        }
        if random.below(4) == 0 {
            bytes.resize(SIZE + 4096 * random.below(64), 0);
        }
        let image = self.folder.file("image.raw", &bytes);
        let image = open_image(&image, &OpenOptions::default()).unwrap();
        let name = format!("s{}", self.all.len());
        let new = NewPoint {
            name: name.clone(),
            full: full && like.is_none(),
            like: like.map(|like| OtherPoint {
                disk: NAMES[like].to_owned(),
                snapshot: None,
            }),
            time: Some(Time::from_unix(
                1_700_000_000 + i64::try_from(self.all.len()).unwrap(),
            )),
            ..NewPoint::default()
        };
        let mut there = Disk::open(&self.path(0), NAMES[disk], Access::Create).unwrap();
        let created = create(&mut there, &image, &new, self.work()).unwrap();
        assert_eq!(created.manifest.like.is_some(), like.is_some());
        self.likes += usize::from(like.is_some());
        self.points[0]
            .entry(NAMES[disk])
            .or_default()
            .push(name.clone());
        self.all.insert(name, bytes);
    }

    fn rebase(&mut self, at: usize, disk: usize, like: Option<usize>) {
        let like = like.filter(|like| *like != disk && self.has(at, *like));
        if !self.has(at, disk) {
            return;
        }
        let mut there = Disk::open(&self.path(at), NAMES[disk], Access::Write).unwrap();
        let like = like.map(|like| OtherPoint {
            disk: NAMES[like].to_owned(),
            snapshot: None,
        });
        match rebase_disk(&mut there, like.as_ref(), self.work()) {
            Ok(done) => assert_eq!(done.point.like.is_some(), like.is_some()),
            // It would go round in a circle.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                assert!(like.is_some(), "{error}");
                self.refused += 1;
            }
        }
    }

    fn prune(&mut self, at: usize, disk: usize, keep: u32) {
        if !self.has(at, disk) {
            return;
        }
        let mut there = Disk::open(&self.path(at), NAMES[disk], Access::Write).unwrap();
        let policy = Policy {
            last: Some(Amount::AtMost(keep)),
            ..Policy::default()
        };
        let decisions = decide(&mut there, &policy).unwrap();
        prune(&mut there, &decisions, self.work()).unwrap();
        let kept = decisions.iter().filter(|decision| decision.is_kept());
        let kept: Vec<String> = kept.map(|decision| decision.point.name.clone()).collect();
        self.points[at].insert(NAMES[disk], kept);
    }

    fn delete(&mut self, at: usize, disk: usize, point: usize) {
        let Some(points) = self.points[at].get_mut(NAMES[disk]) else {
            return;
        };
        let point = point % points.len();
        let (name, store) = (points[point].clone(), self.folder.path(["a", "b", "c"][at]));
        let work = Work {
            workers: &self.workers,
            progress: &Silent,
        };
        let mut there = Disk::open(&store, NAMES[disk], Access::Write).unwrap();
        let stood_on = there.dependants().unwrap();
        match delete(&mut there, &name, true, work) {
            Ok(_) => {
                points.remove(point);
                if points.is_empty() {
                    self.points[at].remove(NAMES[disk]);
                    there.discard_if_empty();
                }
            }
            Err(error) => {
                assert!(!stood_on.is_empty(), "{error}");
                assert!(error.to_string().contains("another disk begins"), "{error}");
                self.refused += 1;
            }
        }
    }

    fn copy(&mut self, from: usize, to: usize) {
        let names: Vec<String> = self.points[from].keys().map(ToString::to_string).collect();
        let copied = copy_disks((&self.path(from), &self.path(to)), &names, 2, self.work());
        for copied in copied {
            // Histories diverge where both deleted, and a target may be past what a disk begins as.
            if let Some(error) = copied.error {
                assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
            }
            let name = NAMES.iter().find(|name| **name == copied.disk).unwrap();
            let came = copied
                .points
                .iter()
                .map(|point| point.manifest.name.clone());
            let came: Vec<String> = came.collect();
            if !came.is_empty() {
                self.points[to].entry(name).or_default().extend(came);
            }
        }
    }

    fn check(&self) {
        for at in 0..3 {
            let names = disks(&self.path(at)).unwrap();
            assert!(names.iter().eq(self.points[at].keys()), "{at}: {names:?}");
            for name in names {
                let mut disk = Disk::open(&self.path(at), &name, Access::Read).unwrap();
                let points = disk.points().iter().map(|point| &point.name);
                assert!(points.eq(&self.points[at][name.as_str()]), "{at} {name}");
                for point in disk.points() {
                    let image = disk.image(point).unwrap();
                    let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
                    image.read_exact_at(&mut bytes, 0).unwrap();
                    assert_same(&bytes, &self.all[&point.name], &point.name);
                }
                let found = verify(&mut disk, ReadData::All, self.work()).unwrap();
                let found = found.into_findings().unwrap();
                assert!(found.is_empty(), "{at} {name}: {}", found[0].error);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn whatever_is_done_every_point_stays_what_it_was(steps in prop::collection::vec(step(), 8..40)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.check();
    }
}
