//! The model of a store: a list of names and bytes. Whatever is done to a store and to the one that copies go to, in
//! whatever order and wherever copies are cut off, every point in time of both holds what the model says.
//!
//! A program of its own, without commands: a child that another test is about to start has every lock of its parent for
//! a moment.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use proptest::sample::Index;
use vhdkit::ErrorKind;
use vhdkit::diff::{Compression, DiffOptions, write_diff};
use vhdkit::files::{
    Format, InPlace, NewImage, NewImageOptions, OpenImage, OpenOptions, Output, ParentOptions,
    open_image, side_of,
};
use vhdkit::image::{CopyOptions, Image, NoneShared, RawImage, copy};
use vhdkit::parallel::Workers;
use vhdkit::progress::{Progress, Silent};
use vhdkit::snapshot::{
    Access, After, Amount, BaseForm, Disk, Future, NewPoint, Policy, ReadData, STORE_VERSION, Span,
    Time, Work, add_diff, copy_disk, create, decide, delete, init, prune, receive, restore,
    restore_in_place, restore_to_child, send, verify,
};
use vhdkit::storage::{Audience, Memory, Overwrite};

use crate::disk::{TestFolder, assert_same};

const PAGE: usize = 512;
const FORMATS: [Format; 3] = [Format::Raw, Format::Fixed, Format::Dynamic];
/// Pages of disks: one, around a digest window, around a window.
const SIZES: [usize; 6] = [1, 100, 2047, 2050, 8192, 8195];

/// What is done, mostly to the first of two stores.
#[derive(Debug, Clone)]
enum Step {
    Create {
        there: bool,
        edits: Vec<Edit>,
        size: Option<usize>,
        how: How,
    },
    Delete {
        there: bool,
        which: Index,
    },
    Prune {
        there: bool,
        last: u32,
    },
    /// A copy to the other store, cancelled after so many windows or pieces if at all.
    Copy(Option<i64>),
    /// A stream to the other store, after the snapshot that it stands at or from the beginning; cut off somewhere.
    Send {
        after: bool,
        cut: Option<Index>,
    },
    Restore {
        which: Index,
        from: Index,
        how: usize,
    },
    /// The window hashes are lost.
    Forget,
    /// The other store is lost.
    Lose,
    Verify,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Image(Format),
    Full(Format),
    /// By a diff that was made elsewhere.
    Diff,
}

/// Pages from somewhere on get one byte each, or become zero.
#[derive(Debug, Clone)]
struct Edit {
    at: usize,
    len: usize,
    byte: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let edit = (0..9000_usize, 1..40_usize, 0..4_u8).prop_map(|(at, len, byte)| Edit {
        at,
        len,
        byte: byte * 37,
    });
    let how = prop_oneof![
        5 => (0..3_usize).prop_map(|n| How::Image(FORMATS[n])),
        1 => (0..3_usize).prop_map(|n| How::Full(FORMATS[n])),
        2 => Just(How::Diff),
    ];
    let size = prop_oneof![4 => Just(None), 1 => (0..SIZES.len()).prop_map(|n| Some(SIZES[n]))];
    let there = prop::bool::weighted(0.1);
    prop_oneof![
        8 => (there, prop::collection::vec(edit, 0..5), size, how)
            .prop_map(|(there, edits, size, how)| Step::Create { there, edits, size, how }),
        3 => (there, any::<Index>()).prop_map(|(there, which)| Step::Delete { there, which }),
        1 => (there, 1..4_u32).prop_map(|(there, last)| Step::Prune { there, last }),
        3 => prop_oneof![Just(None), (0..12_i64).prop_map(Some)].prop_map(Step::Copy),
        3 => (any::<bool>(), prop_oneof![Just(None), any::<Index>().prop_map(Some)])
            .prop_map(|(after, cut)| Step::Send { after, cut }),
        2 => (any::<Index>(), any::<Index>(), 0..4_usize)
            .prop_map(|(which, from, how)| Step::Restore { which, from, how }),
        1 => Just(Step::Forget),
        1 => Just(Step::Lose),
        1 => Just(Step::Verify),
    ]
}

type Points = Vec<(String, Vec<u8>)>;

struct World {
    folder: TestFolder,
    workers: Workers,
    /// What the two stores hold.
    points: [Points; 2],
    /// Whether a snapshot is on its way to the second one.
    partial: bool,
    time: i64,
}

/// Cancels after some checks.
struct CancelledAfter(AtomicI64);

impl Progress for CancelledAfter {
    fn is_cancelled(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) <= 0
    }
}

impl World {
    fn store(&self, there: bool) -> PathBuf {
        self.folder.path(if there { "far" } else { "store" })
    }

    fn work(&self) -> Work<'_> {
        Work {
            workers: &self.workers,
            progress: &Silent,
        }
    }

    fn open(&self, there: bool, access: Access) -> Disk {
        Disk::open(&self.store(there), "web", access).unwrap()
    }

    /// An image file of these bytes.
    fn image(&self, name: &str, format: Format, bytes: &[u8]) -> OpenImage {
        let path = self.folder.path(name);
        let options = NewImageOptions {
            format,
            virtual_size: bytes.len() as u64,
            block_size: None,
            identity: None,
            parent: None,
            overwrite: Overwrite::EvenAParent,
            made_from: Audience::default(),
            dense: false,
        };
        let mut new = NewImage::create(&path, &options).unwrap();
        let source = RawImage::open(Memory::new(bytes.to_vec())).unwrap();
        let options = CopyOptions {
            work: Work::new(&self.workers, &Silent),
            digest: false,
        };
        copy(&source, new.image_mut(), options).unwrap();
        new.publish().unwrap();
        open(&path)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Create {
                there,
                edits,
                size,
                how,
            } => self.create(*there, edits, *size, *how),
            Step::Delete { there, which } => self.delete(*there, *which),
            Step::Prune { there, last } => self.prune(*there, *last),
            Step::Copy(cancel) => self.copy(*cancel),
            Step::Send { after, cut } => self.send(*after, cut.as_ref()),
            Step::Restore { which, from, how } => self.restore(*which, *from, *how),
            Step::Forget => {
                let _ = std::fs::remove_file(self.store(false).join("web/newest.windows"));
            }
            Step::Lose => {
                let _ = std::fs::remove_dir_all(self.store(true).join("web"));
                self.points[1].clear();
                self.partial = false;
            }
            Step::Verify => {
                for there in [false, true] {
                    if self.is_there(there) {
                        let mut disk = self.open(there, Access::Read);
                        let found = verify(&mut disk, ReadData::All, self.work())
                            .unwrap()
                            .into_findings()
                            .unwrap();
                        assert!(found.is_empty(), "{found:?}");
                    }
                }
            }
        }
        self.check();
    }

    fn is_there(&self, there: bool) -> bool {
        self.store(there).join("web").exists()
    }

    fn create(&mut self, there: bool, edits: &[Edit], size: Option<usize>, how: How) {
        let last = self.points[usize::from(there)].last();
        let before = last.map_or_else(|| vec![0; 2050 * PAGE], |(_, bytes)| bytes.clone());
        let mut bytes = before.clone();
        if let Some(size) = size {
            bytes.resize(size * PAGE, 0);
        }
        let pages = bytes.len() / PAGE;
        for edit in edits {
            let start = edit.at % pages;
            for page in start..(start + edit.len).min(pages) {
                // Pages of one byte are as good as any; their number makes them differ.
                let fill = edit.byte.wrapping_mul(1 + u8::try_from(page % 7).unwrap());
                bytes[page * PAGE..][..PAGE].fill(fill);
            }
        }
        self.time += 60;
        let name = format!("s{}", self.time / 60);
        let new = NewPoint {
            name: name.clone(),
            time: Some(Time::from_unix(self.time)),
            full: matches!(how, How::Full(_)),
            // A disk may have bases of both forms.
            base: Some(if edits.len().is_multiple_of(2) {
                BaseForm::Packed
            } else {
                BaseForm::Image
            }),
            ..NewPoint::default()
        };
        let created = match how {
            How::Image(format) | How::Full(format) => {
                let image = self.image("image", format, &bytes);
                let mut disk = self.open(there, Access::Create);
                create(&mut disk, &image, &new, self.work())
            }
            How::Diff if last.is_none() => return,
            How::Diff => {
                let images = [("before", &before), ("after", &bytes)];
                let [base, target] =
                    images.map(|(name, bytes)| self.image(name, Format::Raw, bytes));
                let options = DiffOptions {
                    work: Work::new(&self.workers, &Silent),
                    compression: Compression::default(),
                    digests: true,
                    equal: &NoneShared,
                    confirm: &|| Ok(()),
                };
                let sides = (
                    (&base as _, side_of(&base)),
                    (&target as _, side_of(&target)),
                );
                let diff = write_diff(sides.0, sides.1, Vec::new(), "diff", options);
                let diff = diff.unwrap().out;
                let mut disk = self.open(there, Access::Write);
                let mut diff = diff.as_slice();
                add_diff(&mut disk, (&mut diff, Path::new("diff")), &new, self.work())
            }
        };
        if there && self.partial {
            assert_eq!(created.unwrap_err().kind(), ErrorKind::Pending);
            return;
        }
        created.unwrap();
        self.points[usize::from(there)].push((name, bytes));
    }

    fn delete(&mut self, there: bool, which: Index) {
        let points = &mut self.points[usize::from(there)];
        if points.is_empty() {
            return;
        }
        let (name, _) = points.remove(which.index(points.len()));
        let left = points.is_empty();
        let mut disk = self.open(there, Access::Write);
        delete(&mut disk, &name, left, self.work()).unwrap();
    }

    fn prune(&mut self, there: bool, last: u32) {
        if self.points[usize::from(there)].is_empty() {
            return;
        }
        let mut disk = self.open(there, Access::Write);
        let policy = Policy {
            last: Some(Amount::AtMost(last)),
            ..Policy::default()
        };
        let decisions = decide(&mut disk, &policy).unwrap();
        prune(&mut disk, &decisions, self.work()).unwrap();
        let points = &mut self.points[usize::from(there)];
        let keep = usize::try_from(last).unwrap().min(points.len());
        points.drain(..points.len() - keep);
    }

    /// What the second store lacks, if it stands at a point of the first.
    fn missing(&self) -> Option<Points> {
        let [here, there] = &self.points;
        if here.is_empty() {
            return Some(Points::new());
        }
        let Some((newest, _)) = there.last() else {
            return Some(here.clone());
        };
        let at = here.iter().position(|(name, _)| name == newest)?;
        Some(here[at + 1..].to_vec())
    }

    fn copy(&mut self, cancel: Option<i64>) {
        if !self.is_there(false) {
            return;
        }
        let after = CancelledAfter(AtomicI64::new(cancel.unwrap_or(i64::MAX)));
        let work = Work {
            workers: &self.workers,
            progress: &after,
        };
        let stores = [false, true].map(|there| self.store(there));
        let missing = self.missing();
        let copied = copy_disk((&stores[0], &stores[1]), "web", work);
        let names: Vec<String> = copied
            .points
            .iter()
            .map(|p| p.manifest.name.clone())
            .collect();
        match (copied.error, missing) {
            (None, Some(missing)) => self.arrived(&names, &missing, missing.len()),
            (Some(error), Some(missing)) => {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
                assert!(cancel.is_some());
                self.arrived(&names, &missing, names.len());
            }
            // The newest one there was deleted here: what comes after it is copied as a diff from it, if it can be told
            // that both are one disk.
            (error, None) => {
                if let Some(error) = &error {
                    let kinds = [ErrorKind::Mismatch, ErrorKind::Interrupted];
                    assert!(kinds.contains(&error.kind()), "{error}");
                }
                let here = self.points[0].clone();
                let rest = names.first().map_or(0, |first| {
                    let at = here.iter().position(|(name, _)| name == first);
                    here.len() - at.unwrap()
                });
                assert!(error.is_some() || names.len() == rest && rest > 0);
                let came = here[here.len() - rest..].to_vec();
                assert!(
                    copied
                        .points
                        .iter()
                        .all(|p| !p.manifest.is_base() || p.manifest.name != names[0])
                );
                self.arrived(&names, &came, names.len());
            }
        }
    }

    /// So many of what was missing are there now, in order.
    fn arrived(&mut self, names: &[String], missing: &Points, count: usize) {
        let came = &missing[..count];
        assert!(
            names.iter().eq(came.iter().map(|(name, _)| name)),
            "{names:?}"
        );
        self.points[1].extend_from_slice(came);
        self.look_for_partial();
    }

    fn look_for_partial(&mut self) {
        self.partial = self.is_there(true) && self.open(true, Access::Read).copying().is_some();
    }

    fn send(&mut self, after: bool, cut: Option<&Index>) {
        if self.points[0].is_empty() {
            return;
        }
        let missing = self.missing();
        let newest = self.points[1].last().map(|(name, _)| name.clone());
        let span = Span {
            after: newest
                .as_deref()
                .filter(|_| after && missing.is_some())
                .map(After::Name),
            until: None,
        };
        let mut stream = Vec::new();
        let mut disk = self.open(false, Access::Read);
        send(
            &mut disk,
            span,
            (&mut stream, Path::new("out")),
            self.work(),
        )
        .unwrap();
        drop(disk);
        if let Some(cut) = cut {
            stream.truncate(cut.index(stream.len()));
        }
        let input = (stream.as_slice(), Path::new("in"));
        let received = receive(&self.store(true), None, input, Future::Refused, self.work());
        let names: Vec<String> = received.points.iter().map(|p| p.name.clone()).collect();
        match (received.error, missing) {
            (None, Some(missing)) => self.arrived(&names, &missing, missing.len()),
            (Some(error), Some(missing)) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                assert!(cut.is_some(), "{error}");
                self.arrived(&names, &missing, names.len());
            }
            (error, None) => {
                // A later base needs nothing of what is there, so it is taken, and what follows it.
                let here = &self.points[0];
                let start = here
                    .iter()
                    .position(|(name, _)| names.first() == Some(name));
                let came = start.map_or(&[][..], |start| &here[start..start + names.len()]);
                assert!(error.is_some() || !came.is_empty());
                assert!(names.iter().eq(came.iter().map(|(name, _)| name)));
                let came = came.to_vec();
                self.points[1].extend(came);
                self.look_for_partial();
            }
        }
    }

    fn restore(&self, which: Index, from: Index, how: usize) {
        let points = &self.points[0];
        if points.is_empty() {
            return;
        }
        let (name, bytes) = &points[which.index(points.len())];
        let (_, before) = &points[from.index(points.len())];
        let disk = self.open(false, Access::Read);
        let point = disk.image(disk.find(name).unwrap()).unwrap();
        let path = self.folder.path("restored.vhd");
        let output = Output {
            path: &path,
            format: FORMATS[how % 3],
            overwrite: Overwrite::EvenAParent,
            made_from: &Audience::default(),
            dense: false,
        };
        let parents = ParentOptions::default();
        match how {
            0 | 1 => restore(&point, output, self.work()).unwrap(),
            2 => {
                drop(self.image("restored.vhd", FORMATS[bytes.len() % 3], before));
                let onto = (path.as_path(), None);
                let how = (InPlace::default(), &parents);
                restore_in_place(&disk, &point, onto, how, self.work()).unwrap();
            }
            _ => {
                let parent = self.image("parent.vhd", Format::Dynamic, before).into();
                let output = Output {
                    format: Format::Differencing,
                    ..output
                };
                let made = restore_to_child(&disk, &point, parent, output, self.work());
                if bytes.len() < before.len() {
                    assert_eq!(made.unwrap_err().kind(), ErrorKind::Usage);
                    return;
                }
                made.unwrap();
            }
        }
        assert_same(&read(&open(&path)), bytes, name);
    }

    /// Every point of both stores holds what it should, by what is read of it and by what it says.
    fn check(&self) {
        for there in [false, true] {
            if !self.is_there(there) {
                continue;
            }
            let disk = self.open(there, Access::Read);
            assert!(disk.damaged().is_empty(), "{:?}", disk.damaged());
            let points = &self.points[usize::from(there)];
            let names: Vec<_> = disk.points().iter().map(|point| &point.name).collect();
            assert!(
                names
                    .iter()
                    .copied()
                    .eq(points.iter().map(|(name, _)| name)),
                "{names:?}"
            );
            for (manifest, (name, bytes)) in disk.points().iter().zip(points) {
                assert_same(&read(&disk.image(manifest).unwrap()), bytes, name);
            }
        }
    }
}

fn open(path: &Path) -> OpenImage {
    open_image(path, &OpenOptions::default()).unwrap()
}

fn read(image: &dyn Image) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
    image.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn both_stores_hold_what_the_model_holds(steps in prop::collection::vec(step(), 4..24)) {
        let mut world = World {
            folder: TestFolder::in_memory(),
            workers: Workers::new(NonZeroUsize::new(2)).unwrap(),
            points: [Vec::new(), Vec::new()],
            partial: false,
            time: 1_700_000_000,
        };
        for there in [false, true] {
            init(&world.store(there), STORE_VERSION).unwrap();
        }
        for step in &steps {
            world.step(step);
        }
    }
}
