//! The model: whatever is done to images, in whatever order, they hold what a plain list of bytes would.
//!
//! A program writes, clears, resizes and converts an image and remembers points in time; then diffs lead from any
//! point to any later or earlier one, in place and anew, and back again.

// Helpers of a test may panic just like the test itself.
use std::fs;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;
use vhdkit::diff::{
    BaseCheck, Chain, Compression, DiffOptions, SquashOptions, squash, write_diff,
    write_reversible_diff,
};
use vhdkit::files::{
    Applied, ApplyOptions, Format, InPlace, NewImage, NewImageOptions, OpenImage, OpenOptions,
    Output, ParentOptions, apply_in_place, apply_to_new, journal_path, open_diff, open_image,
    side_of,
};
use vhdkit::image::{
    CopyOptions, Image as _, ImageMut as _, NoneShared, RawImage, content_digest, copy,
};
use vhdkit::page::PageRange;
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;
use vhdkit::storage::{Memory, Overwrite};

const PAGE: usize = 512;

/// The format of an image, and its block size if it is dynamic.
#[derive(Debug, Clone, Copy)]
struct Form(Format, Option<u32>);

#[derive(Debug, Clone)]
enum Step {
    /// Fills pages from some page on with noise, one byte, or zeros written as data.
    Write(Span, Fill),
    Clear(Span),
    Convert(Form),
    /// Changes the size, in pages; new pages read as zeros.
    Resize(usize),
    Remember,
}

#[derive(Debug, Clone)]
enum Fill {
    Byte(u8),
    Noise(u64),
}

/// A location on a disk of any size: an offset from a corner in pages, and a length.
#[derive(Debug, Clone)]
struct Span {
    corner: Corner,
    before: usize,
    len: usize,
}

#[derive(Debug, Clone)]
enum Corner {
    /// A multiple of this many pages, such as 1 and 4 MiB windows and blocks.
    Multiple(usize, usize),
    End,
    Any(usize),
    Whole,
}

/// A path from one remembered point to another, and how to take it.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
struct Journey {
    from: prop::sample::Index,
    to: prop::sample::Index,
    base: Form,
    output: Form,
    digests: bool,
    zstd: bool,
    reversible: bool,
    check: BaseCheck,
    verify: bool,
    threads: usize,
}

fn form() -> impl Strategy<Value = Form> {
    let block = prop_oneof![
        Just(None),
        Just(Some(512 << 10)),
        Just(Some(4096)),
        Just(Some(512)),
        Just(Some(8 << 20)),
    ];
    prop_oneof![
        Just(Form(Format::Raw, None)),
        Just(Form(Format::Fixed, None)),
        block.prop_map(|block| Form(Format::Dynamic, block)),
    ]
}

/// Sizes in pages: one page, and around the windows of diffs (4 MiB), digests (1 MiB) and blocks (2 MiB, 512 KiB).
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        1 => Just(1),
        1 => 2..9_usize,
        2 => (prop::sample::select(vec![1024_usize, 2048, 4096, 8192, 16384]), 0..3_usize)
            .prop_map(|(pages, n)| pages + n - 1),
        1 => 1..20_000_usize,
    ]
}

fn span() -> impl Strategy<Value = Span> {
    let corner = prop_oneof![
        4 => (prop::sample::select(vec![8_usize, 1024, 2048, 4096, 8192]), 0..5_usize)
            .prop_map(|(pages, n)| Corner::Multiple(pages, n)),
        2 => Just(Corner::End),
        2 => any::<usize>().prop_map(Corner::Any),
        1 => Just(Corner::Whole),
    ];
    let len = prop_oneof![
        4 => 1..4_usize,
        2 => 1..300_usize,
        1 => prop::sample::select(vec![1024_usize, 2047, 2048, 4096, 8192, 8193]),
    ];
    (corner, 0..3_usize, len).prop_map(|(corner, before, len)| Span {
        corner,
        before,
        len,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let fill = prop_oneof![
        3 => any::<u64>().prop_map(Fill::Noise),
        1 => any::<u8>().prop_map(Fill::Byte),
        1 => Just(Fill::Byte(0)),
    ];
    prop_oneof![
        5 => (span(), fill).prop_map(|(span, fill)| Step::Write(span, fill)),
        3 => span().prop_map(Step::Clear),
        1 => form().prop_map(Step::Convert),
        1 => size().prop_map(Step::Resize),
        3 => Just(Step::Remember),
    ]
}

fn journey() -> impl Strategy<Value = Journey> {
    let check = prop_oneof![2 => Just(BaseCheck::Full), 1 => Just(BaseCheck::Touched)];
    (
        (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        (form(), form()),
        (
            prop::bool::weighted(0.8),
            (any::<bool>(), any::<bool>()),
            check,
            any::<bool>(),
        ),
        1..4_usize,
    )
        .prop_map(
            |(points, forms, (digests, (zstd, reversible), check, verify), threads)| Journey {
                from: points.0,
                to: points.1,
                base: forms.0,
                output: forms.1,
                digests,
                zstd,
                reversible,
                check,
                verify,
                threads,
            },
        )
}

impl Span {
    /// Returns the pages this covers on a disk of that many pages, at least one.
    fn on(&self, pages: usize) -> Range<usize> {
        let last = pages - 1;
        let start = match self.corner {
            Corner::Whole => return 0..pages,
            Corner::Multiple(size, n) => (size * n).saturating_sub(self.before),
            Corner::End => last.saturating_sub(self.before),
            Corner::Any(at) => at % pages,
        };
        let start = start.min(last);
        start..(start + self.len).min(pages)
    }
}

/// A remembered point: the image's file and its expected content.
struct Point(PathBuf, Vec<u8>);

struct World {
    folder: TempDir,
    workers: Workers,
    names: usize,
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            workers: workers(2),
            names: 0,
        }
    }

    fn name(&mut self, kind: &str) -> PathBuf {
        self.names += 1;
        self.folder.path().join(format!("{kind}{}", self.names))
    }

    fn make(&mut self, form: Form, bytes: &[u8]) -> PathBuf {
        let path = self.name("image");
        let mut new = NewImage::create(&path, &options(form, bytes.len())).unwrap();
        let source = RawImage::open(Memory::new(bytes.to_vec())).unwrap();
        let workers = Workers::new(NonZeroUsize::new(1)).unwrap();
        let options = CopyOptions {
            work: Work::new(&workers, &Silent),
            digest: false,
        };
        copy(&source, new.image_mut(), options).unwrap();
        new.publish().unwrap();
        path
    }

    /// Converts as `vhd convert` does: from image to image, cut or extended with zeros beforehand.
    fn convert(&mut self, from: &Path, form: Form) -> PathBuf {
        let path = self.name("converted");
        let from = open(from);
        let size = usize::try_from(from.virtual_size()).unwrap();
        let mut new = NewImage::create(&path, &options(form, size)).unwrap();
        let copying = CopyOptions {
            work: Work::new(&self.workers, &Silent),
            digest: true,
        };
        let digest = copy(&from, new.image_mut(), copying).unwrap();
        new.publish().unwrap();
        let found = content_digest(&open(&path), &self.workers, &Silent).unwrap();
        assert_eq!(digest, Some(found));
        path
    }

    fn diff(&mut self, from: &Path, to: &Path, journey: &Journey) -> PathBuf {
        let path = self.name("diff");
        let (from, to) = (open(from), open(to));
        let workers = workers(journey.threads);
        let options = DiffOptions {
            work: Work::new(&workers, &Silent),
            compression: if journey.zstd {
                Compression::default()
            } else {
                Compression::None
            },
            digests: journey.digests,
            equal: &NoneShared,
            confirm: &|| from.check_unchanged(),
        };
        let sides = ((&from as _, side_of(&from)), (&to as _, side_of(&to)));
        let written = if journey.reversible {
            write_reversible_diff(sides.0, sides.1, Vec::new(), &path, options)
        } else {
            write_diff(sides.0, sides.1, Vec::new(), &path, options)
        };
        let written = written.unwrap();
        fs::write(&path, written.out).unwrap();
        path
    }

    /// Squashes the diffs into one.
    fn squash(&mut self, diffs: &[PathBuf], journey: &Journey) -> PathBuf {
        let path = self.name("squashed");
        let workers = workers(journey.threads);
        let options = SquashOptions {
            work: Work::new(&workers, &Silent),
            compression: Compression::default(),
        };
        let squashed = squash(&chain(diffs), Vec::new(), &path, options).unwrap();
        fs::write(&path, squashed.out).unwrap();
        path
    }

    /// Asserts that the file holds exactly these bytes, by reading and by digest, and has no findings.
    #[track_caller]
    fn holds(&self, path: &Path, bytes: &[u8]) {
        let image = open(path);
        assert!(image.warnings().is_empty(), "{:?}", image.warnings());
        assert_eq!(image.virtual_size(), bytes.len() as u64);
        let mut found = vec![0; bytes.len()];
        image.read_exact_at(&mut found, 0).unwrap();
        let first = found.iter().zip(bytes).position(|(a, b)| a != b);
        assert_eq!(first, None, "first difference in {}", path.display());
        let plain = RawImage::open(Memory::new(bytes.to_vec())).unwrap();
        assert_eq!(
            content_digest(&image, &self.workers, &Silent).unwrap(),
            content_digest(&plain, &self.workers, &Silent).unwrap(),
        );
        assert!(!journal_path(path).exists());
    }
}

fn workers(threads: usize) -> Workers {
    Workers::new(std::num::NonZeroUsize::new(threads)).unwrap()
}

fn options(Form(format, block_size): Form, size: usize) -> NewImageOptions {
    NewImageOptions {
        format,
        virtual_size: size as u64,
        block_size: block_size.filter(|_| format == Format::Dynamic),
        identity: None,
        parent: None,
        overwrite: Overwrite::No,
        made_from: vhdkit::storage::Audience::default(),
        dense: false,
    }
}

fn open(path: &Path) -> OpenImage {
    open_image(path, &OpenOptions::default()).unwrap()
}

fn chain(diffs: &[PathBuf]) -> Chain {
    Chain::new(
        diffs
            .iter()
            .map(|diff| open_diff(diff, &Silent).unwrap())
            .collect(),
    )
    .unwrap()
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        })
        .collect()
}

fn range(pages: &Range<usize>) -> PageRange {
    PageRange::new((pages.start * PAGE) as u64, (pages.end * PAGE) as u64).unwrap()
}

/// Runs the program and returns the points it remembered, including the first and the last.
fn play(world: &mut World, form: Form, pages: usize, steps: &[Step]) -> Vec<Point> {
    let mut model = vec![0; pages * PAGE];
    let mut form = form;
    let mut path = world.make(form, &model);
    let mut points = Vec::new();
    for step in steps.iter().chain([&Step::Remember]) {
        let pages = model.len() / PAGE;
        let writable = OpenOptions {
            writable: true,
            ..OpenOptions::default()
        };
        match step {
            Step::Write(span, fill) => {
                let span = span.on(pages);
                let len = span.len() * PAGE;
                let data = match fill {
                    Fill::Byte(byte) => vec![*byte; len],
                    Fill::Noise(seed) => noise(*seed, len),
                };
                let mut image = open_image(&path, &writable).unwrap();
                image.update(range(&span), &data).unwrap();
                image.flush().unwrap();
                model[span.start * PAGE..span.end * PAGE].copy_from_slice(&data);
            }
            Step::Clear(span) => {
                let span = span.on(pages);
                let mut image = open_image(&path, &writable).unwrap();
                image.clear(range(&span)).unwrap();
                image.flush().unwrap();
                model[span.start * PAGE..span.end * PAGE].fill(0);
            }
            Step::Convert(to) => {
                form = *to;
                path = world.convert(&path, form);
            }
            Step::Resize(pages) => {
                model.resize(pages * PAGE, 0);
                path = world.make(form, &model);
            }
            Step::Remember => {
                let copy = world.name("point");
                fs::copy(&path, &copy).unwrap();
                world.holds(&copy, &model);
                points.push(Point(copy, model.clone()));
            }
        }
        world.holds(&path, &model);
    }
    points
}

/// Returns the points from one to the other, both included, forwards or backwards.
fn way(points: &[Point], journey: &Journey) -> Vec<usize> {
    let (from, to) = (
        journey.from.index(points.len()),
        journey.to.index(points.len()),
    );
    if from <= to {
        (from..=to).collect()
    } else {
        (to..=from).rev().collect()
    }
}

fn travel(world: &mut World, points: &[Point], journey: &Journey) {
    let way = way(points, journey);
    let mut diffs = Vec::new();
    for pair in way.windows(2) {
        diffs.push(world.diff(&points[pair[0]].0, &points[pair[1]].0, journey));
    }
    if diffs.is_empty() {
        // An image compared with itself gives a diff without changes.
        let point = &points[way[0]];
        diffs.push(world.diff(&point.0, &point.0, journey));
    }
    let (from, to) = (&points[way[0]], &points[way[way.len() - 1]]);
    let base = world.convert(&from.0, journey.base);
    let workers = workers(journey.threads);
    let options = ApplyOptions {
        work: Work::new(&workers, &Silent),
        // Without digests a full check is impossible and is refused.
        check: if journey.digests || journey.check != BaseCheck::Full {
            journey.check
        } else {
            BaseCheck::Touched
        },
        verify: journey.verify,
        parents: &ParentOptions::default(),
    };

    let new = world.name("new");
    let output = Output {
        path: &new,
        format: journey.output.0,
        overwrite: Overwrite::No,
        dense: false,
        made_from: &vhdkit::storage::Audience::default(),
    };
    apply_to_new(&open(&base), &chain(&diffs), output, options).unwrap();
    world.holds(&new, &to.1);
    world.holds(&base, &from.1);

    let in_place = |path: &Path, diffs: &[PathBuf], how: InPlace<'_>| -> Applied {
        let applied = apply_in_place(path, chain(diffs), how, options).unwrap();
        assert!(!applied.finished_interrupted);
        applied
    };
    let before = fs::read(&base).unwrap();
    let dry = InPlace {
        dry_run: true,
        ..InPlace::default()
    };
    let would = in_place(&base, &diffs, dry);
    assert!(fs::read(&base).unwrap() == before, "a dry run writes");
    let undo = world.name("undo");
    let how = InPlace {
        undo: Some(&undo),
        ..InPlace::default()
    };
    let applied = in_place(&base, &diffs, how);
    assert_eq!(
        (applied.updated, applied.cleared),
        (would.updated, would.cleared)
    );
    world.holds(&base, &to.1);
    assert_eq!(open(&base).format(), journey.base.0);

    // Again: the target is already there, or the apply changes nothing.
    let again = in_place(&base, &diffs, InPlace::default());
    assert_eq!((again.updated, again.cleared), (0, 0));
    world.holds(&base, &to.1);

    if undo.exists() {
        in_place(&base, &[undo], InPlace::default());
    }
    world.holds(&base, &from.1);
    let as_before = |what: &str| {
        let same = journey.base.0 == Format::Dynamic || fs::read(&base).unwrap() == before;
        assert!(same, "{what} is not as before");
    };
    as_before("undone");

    // Squash all diffs, and take the way back.
    let squashed = world.squash(&diffs, journey);
    in_place(&base, std::slice::from_ref(&squashed), InPlace::default());
    world.holds(&base, &to.1);
    if journey.reversible {
        for diffs in [vec![squashed], diffs.clone()] {
            in_place(&base, &diffs, InPlace::default());
            world.holds(&base, &to.1);
            let back = chain(&diffs).reversed().unwrap();
            apply_in_place(&base, back, InPlace::default(), options).unwrap();
            world.holds(&base, &from.1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn images_hold_what_the_model_holds(
        form in form(),
        pages in size(),
        steps in prop::collection::vec(step(), 1..16),
        journeys in prop::collection::vec(journey(), 1..4),
    ) {
        let mut world = World::new();
        let points = play(&mut world, form, pages, &steps);
        for journey in &journeys {
            travel(&mut world, &points, journey);
        }
    }
}
