//! Three stores of one disk, pruned, copied and sent through pipes in any order: a copy always goes on from the newest
//! point of its target, whether or not its source still has that, and never brings the whole disk again.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vhdkit::files::{OpenOptions, open_image};
use vhdkit::image::Image;
use vhdkit::parallel::Workers;
use vhdkit::progress::Silent;
use vhdkit::snapshot::{
    Access, After, Decision, Disk, Future, Manifest, NewPoint, ReadData, ReceiverState,
    STORE_VERSION, Span, Standing, Time, Work, copy_disk, create, init, prune, receive, send,
    verify, write_standing,
};

use crate::disk::{Random, TestFolder, assert_same};

/// Windows of the disk, and the bytes of each that hold something.
const WINDOWS: usize = 8;
const WINDOW: usize = 1 << 20;
const FILLED: usize = 128 << 10;

/// What differs between one snapshot and the next at most: so many places, of so many bytes.
const CHANGES: usize = 4;
const LONGEST: usize = 8 * 512;

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
    Pipe {
        from: usize,
        to: usize,
    },
}

fn pair() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![Just((0, 1)), Just((1, 2)), Just((0, 2))]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<u64>(), prop::bool::weighted(0.2))
            .prop_map(|(seed, forget)| Step::Create { seed, forget }),
        3 => (0..3_usize, any::<u32>()).prop_map(|(at, mask)| Step::Prune { at, mask }),
        2 => pair().prop_map(|(from, to)| Step::Copy { from, to }),
        3 => pair().prop_map(|(from, to)| Step::Pipe { from, to }),
    ]
}

struct Stores {
    folder: TestFolder,
    workers: Workers,
    /// What every snapshot holds, by its number in the order of creation.
    all: Vec<Vec<u8>>,
    /// The snapshots that each store has.
    points: [Vec<usize>; 3],
    counts: [Counts; 2],
    /// Whether a snapshot was sent as what differs from one of which only the window hashes were known.
    coarse: bool,
}

/// What copies did, or pipes.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    runs: usize,
    /// Those in which the source didn't have the target's newest snapshot any more.
    bridged: usize,
    snapshots: usize,
    /// After the first base of each target.
    bytes: u64,
    /// If each of these runs had brought the whole disk.
    whole: u64,
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
            Step::Pipe { from, to } => self.pipe(from, to),
        }
    }

    fn create(&mut self, seed: u64, forget: bool) {
        let mut random = Random::new(seed);
        let mut bytes = self.all.last().cloned().unwrap_or_else(|| {
            let mut bytes = vec![0; WINDOWS * WINDOW];
            for window in bytes.chunks_mut(WINDOW) {
                window[..FILLED].copy_from_slice(&random.bytes(FILLED));
            }
            bytes
        });
        for _ in 0..=random.below(CHANGES) {
            let within = random.below((FILLED - LONGEST) / 512) * 512;
            let at = random.below(WINDOWS) * WINDOW + within;
            let len = 512 * (1 + random.below(LONGEST / 512));
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

    /// The snapshots that `to` lacks of `from`; `None` if that isn't a copy.
    fn lacking(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        let (source, target) = (&self.points[from], &self.points[to]);
        let newest = target.last();
        let later = source.iter().filter(|n| newest.is_none_or(|at| *n > at));
        let ahead = newest > source.last();
        (!source.is_empty() && !ahead).then(|| later.copied().collect())
    }

    /// Notes what came.
    fn arrived(
        &mut self,
        (from, to, way): (usize, usize, usize),
        came: &[usize],
        arrived: &[(Manifest, u64)],
    ) {
        let names = arrived.iter().map(|(point, _)| point.name.clone());
        assert!(names.eq(came.iter().map(|n| format!("s{n}"))));
        let newest = self.points[to].last().copied();
        self.counts[way].runs += 1;
        self.counts[way].snapshots += came.len();
        if let Some(newest) = newest {
            let mut before = newest;
            for ((point, bytes), n) in arrived.iter().zip(came) {
                let most = self.most(before, *n);
                assert!(!point.is_base());
                assert!(*bytes < most, "{bytes} bytes, {most} at most");
                self.counts[way].bytes += bytes;
                before = *n;
            }
            let bridged = !self.points[from].contains(&newest) && !came.is_empty();
            self.counts[way].bridged += usize::from(bridged);
            self.counts[way].whole += (WINDOWS * FILLED) as u64 * u64::from(!came.is_empty());
        }
        self.points[to].extend(came);
    }

    fn copy(&mut self, from: usize, to: usize) {
        let Some(came) = self.lacking(from, to) else {
            return;
        };
        let copied = copy_disk((&self.path(from), &self.path(to)), "web", self.work());
        assert!(copied.error.is_none(), "{:?}", copied.error);
        let points = copied.points.into_iter();
        let points: Vec<_> = points.map(|p| (p.manifest, p.bytes)).collect();
        self.arrived((from, to, 0), &came, &points);
    }

    fn pipe(&mut self, from: usize, to: usize) {
        let Some(came) = self.lacking(from, to) else {
            return;
        };
        let (source, target, work) = (self.path(from), self.path(to), self.work());
        let scratch = self.folder.path(".");
        // What the far side prints is enough if its newest snapshot is still here.
        let (standing, _) = Standing::find(&target, "web").unwrap();
        let standing: Standing = standing.to_string().parse().unwrap();
        let mut disk = Disk::open(&source, "web", Access::Read).unwrap();
        let span = |after| Span {
            after: Some(after),
            until: None,
        };
        let mut stream = Vec::new();
        let place = Path::new("stream");
        let sent = send(
            &mut disk,
            span(After::Point(&standing)),
            (&mut stream, place),
            work,
        );
        let newest = self.points[to].last();
        let is_here = newest.is_none_or(|newest| self.points[from].contains(newest));
        assert_eq!(sent.is_ok(), is_here, "{sent:?}");
        // With its window hashes it need not be.
        let mut state = Vec::new();
        write_standing((&target, "web"), (&mut state, place), work).unwrap();
        let state = ReceiverState::read((state.as_slice(), place), &scratch).unwrap();
        assert_eq!(state.standing(), standing);
        let mut other = Vec::new();
        let after = After::State(&state);
        let sent = send(&mut disk, span(after), (&mut other, place), work).unwrap();
        assert!(!is_here || stream == other);
        drop(disk);
        let received = receive(
            &target,
            None,
            (other.as_slice(), place),
            Future::Refused,
            work,
        );
        assert!(received.error.is_none(), "{:?}", received.error);
        let manifests = 8192 * (1 + sent.points.len());
        assert!(other.len() < manifests + sent.points.iter().map(length).sum::<usize>());
        let points: Vec<_> = received
            .points
            .into_iter()
            .map(|point| (point.clone(), point.data.length))
            .collect();
        self.coarse |= !is_here;
        self.arrived((from, to, 1), &came, &points);
    }

    /// How many bytes may come at most for snapshot `n` after that of number `before`.
    fn most(&self, before: usize, n: usize) -> u64 {
        // So many bytes differ at most, of which random ones can't be packed.
        if !self.coarse {
            return 4096 + 2 * (CHANGES * LONGEST * (n - before)) as u64;
        }
        // Whole windows; a copy passes on what came to its source so.
        let [before, after] = [before, n].map(|n| self.all[n].chunks(WINDOW));
        let differ = before.zip(after).filter(|(a, b)| a != b).count();
        (4096 + differ * (FILLED + 4096)) as u64
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

fn length(point: &Manifest) -> usize {
    usize::try_from(point.data.length).unwrap()
}

#[test]
fn whatever_is_pruned_copies_go_on() {
    let totals = RefCell::new([Counts::default(); 2]);
    let law = |steps: Vec<Step>| {
        let mut stores = Stores {
            folder: TestFolder::in_memory(),
            workers: Workers::new(NonZeroUsize::new(2)).unwrap(),
            all: Vec::new(),
            points: [Vec::new(), Vec::new(), Vec::new()],
            counts: Default::default(),
            coarse: false,
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
                if steps.len().is_multiple_of(2) {
                    stores.copy(from, to);
                } else {
                    stores.pipe(from, to);
                }
            }
            let newest = stores.all.len() - 1;
            prop_assert!(
                stores
                    .points
                    .iter()
                    .all(|points| points.last() == Some(&newest))
            );
        }
        stores.check();
        for (total, counts) in totals.borrow_mut().iter_mut().zip(stores.counts) {
            total.runs += counts.runs;
            total.bridged += counts.bridged;
            total.snapshots += counts.snapshots;
            total.bytes += counts.bytes;
            total.whole += counts.whole;
        }
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(60))
        .run(&prop::collection::vec(step(), 6..30), law)
        .unwrap();
    for (way, counts) in ["copies", "pipes"].into_iter().zip(totals.into_inner()) {
        let Counts {
            runs,
            bridged,
            snapshots,
            bytes,
            whole,
        } = counts;
        println!(
            "{runs} {way} of {snapshots} snapshots, {bridged} of them after the target's newest was gone in the source: \
             {bytes} bytes once the disk was there; the whole disk each time would have been {whole}"
        );
        assert!(bridged > 3 && bytes < whole / 2);
    }
}
