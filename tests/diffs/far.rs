//! Remote images: every pass requests each byte once, with many requests at a time and limited read-ahead, and finds
//! the same as with a local image.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhdkit::diff::{
    Applier, BaseCheck, Chain, CompareOptions, Compression, DiffFile, DiffOptions, Overlay, Side,
    compare, update_window_hashes, write_diff, write_diff_listed,
};
use vhdkit::image::{
    CopyOptions, Image, IoHints, NoneShared, RawImage, WindowList, WindowListWriter,
    content_digest, copy, stream, window_hashes,
};
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;
use vhdkit::storage::Memory;

use crate::counting::CountingImage;

const MIB: u64 = 1 << 20;

fn workers() -> Workers {
    Workers::new(NonZeroUsize::new(2)).unwrap()
}

fn memory(size: u64) -> RawImage<Memory> {
    let bytes = vec![0; usize::try_from(size).unwrap()];
    RawImage::open(Memory::new(bytes)).unwrap()
}

fn bytes(image: &dyn Image) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
    image.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn diff_options(workers: &Workers) -> DiffOptions<'_> {
    DiffOptions {
        work: Work::new(workers, &Silent),
        compression: Compression::Zstd(1),
        digests: true,
        equal: &NoneShared,
        confirm: &|| Ok(()),
    }
}

/// Returns a list of the window hashes of `image`.
fn list_of(image: &dyn Image, workers: &Workers) -> WindowList<Memory> {
    let mut list = Vec::new();
    let mut writer = WindowListWriter::new(&mut list, "list", image.virtual_size()).unwrap();
    window_hashes(image, workers, &Silent, |at, hashes| {
        writer.push(at, hashes)
    })
    .unwrap();
    writer.finish().unwrap();
    WindowList::open(Memory::new(list)).unwrap()
}

/// Returns a diff to `image` with a few changed pages here and there.
fn a_few_changes(image: &dyn Image, workers: &Workers) -> Arc<DiffFile> {
    let mut changed = bytes(image);
    for at in (0..changed.len()).step_by(5 << 20) {
        changed
            .iter_mut()
            .skip(at)
            .take(700)
            .for_each(|byte| *byte = 0xee);
    }
    let target = RawImage::open(Memory::new(changed)).unwrap();
    let sides = [image, &target].map(|image| (image, Side::default()));
    let [base, target] = sides;
    let written = write_diff(base, target, Vec::new(), "diff", diff_options(workers)).unwrap();
    Arc::new(DiffFile::open(Memory::new(written.out), &Silent).unwrap())
}

type PassOver<'a> = (&'static str, Box<dyn Fn(&dyn Image) -> Vec<u8> + 'a>);

/// Returns every pass over an image, each as a function from the image to its result.
#[allow(clippy::too_many_lines, reason = "a table")]
fn passes<'a>(near: &'a CountingImage, workers: &'a Workers) -> Vec<PassOver<'a>> {
    let chain = Arc::new(Chain::new(vec![a_few_changes(near, workers)]).unwrap());
    let list = Arc::new(list_of(near, workers));
    let empty = Arc::new(memory(near.virtual_size()));
    let copied = |image: &dyn Image| {
        let mut out = memory(image.virtual_size());
        let options = CopyOptions {
            work: Work::new(workers, &Silent),
            digest: true,
        };
        let digest = copy(image, &mut out, options).unwrap().unwrap();
        let mut found = out.storage().to_vec();
        found.extend(digest.0);
        found
    };
    let compared = |digests: bool| {
        let empty = Arc::clone(&empty);
        move |image: &dyn Image| {
            let options = CompareOptions {
                work: Work::new(workers, &Silent),
                digests,
                payload: true,
                equal: &NoneShared,
            };
            let mut found = Vec::new();
            let sink = |change: vhdkit::diff::WindowChange| {
                found.extend(blake3::hash(&change.payload).as_bytes());
                Ok(())
            };
            let total = compare(&*empty, image, options, Ok, sink).unwrap();
            found.extend(format!("{total:?}").into_bytes());
            found
        }
    };
    let rebuilt = |check: BaseCheck| {
        let chain = Arc::clone(&chain);
        move |image: &dyn Image| {
            let mut out = memory(image.virtual_size());
            let layers = Applier::new(image, &chain, workers, &Silent);
            layers.rebuild(&mut out, check).unwrap();
            out.storage().to_vec()
        }
    };
    let (inverse_chain, digests_chain) = (Arc::clone(&chain), Arc::clone(&chain));
    let listed_list = Arc::clone(&list);
    vec![
        (
            "digest",
            Box::new(|image| content_digest(image, workers, &Silent).unwrap().0.to_vec()),
        ),
        (
            "stream",
            Box::new(|image| {
                let mut hasher = blake3::Hasher::new();
                let sink = |bytes: &[u8]| {
                    hasher.update(bytes);
                    Ok(())
                };
                stream(image, workers, &Silent, sink).unwrap();
                hasher.finalize().as_bytes().to_vec()
            }),
        ),
        ("copy", Box::new(copied)),
        ("compare", Box::new(compared(false))),
        ("compare, with digests", Box::new(compared(true))),
        (
            "listed",
            Box::new(move |image| {
                let base = near.near();
                let sides = [&base as &dyn Image, image].map(|image| (image, Side::default()));
                let [base, target] = sides;
                let out = (Vec::new(), "diff".into());
                let options = diff_options(workers);
                let written =
                    write_diff_listed(&listed_list, base, target, out, options, |_, _| Ok(()));
                written.unwrap().out
            }),
        ),
        ("rebuild", Box::new(rebuilt(BaseCheck::Full))),
        ("rebuild, touched", Box::new(rebuilt(BaseCheck::Touched))),
        (
            "digests of both",
            Box::new(move |image| {
                let layers = Applier::new(image, &digests_chain, workers, &Silent);
                format!("{:?}", layers.digests(|_, _| {}).unwrap()).into_bytes()
            }),
        ),
        (
            "inverse",
            Box::new(move |image| {
                let mut found = Vec::new();
                let sink = |change: vhdkit::diff::WindowChange| {
                    found.extend_from_slice(&change.payload);
                    Ok(())
                };
                let layers = Applier::new(image, &inverse_chain, workers, &Silent);
                layers.inverse(Ok, sink).unwrap();
                found
            }),
        ),
        (
            "carried hashes",
            Box::new(move |image| {
                let diffs = chain.diffs().to_vec();
                let target = Overlay::new(image, None, diffs.clone()).unwrap();
                let mut found = Vec::new();
                let each = |at: u64, hashes: &vhdkit::image::WindowHashes| {
                    found.extend(format!("{at} {hashes:?}").into_bytes());
                    Ok(())
                };
                update_window_hashes(&list, &diffs, &target, workers, &Silent, each).unwrap();
                found
            }),
        ),
    ]
}

#[test]
fn every_pass_finds_afar_what_it_finds_near_and_reads_nothing_twice() {
    let hints = IoHints {
        request: 1 << 20,
        depth: 6,
        ..IoHints::LOCAL
    };
    for sparse in [false, true] {
        let size = 90 * MIB + 512;
        let far = CountingImage::new(size, sparse, Duration::from_millis(1), hints);
        let near = far.near();
        let workers = workers();
        for (name, pass) in passes(&near, &workers) {
            near.take();
            let expected = pass(&near);
            // If a pass requests only a few pages, fewer requests are in flight.
            let asks_for_all = !matches!(name, "inverse" | "carried hashes");
            far.gather(asks_for_all);
            assert!(pass(&far) == expected, "{name}: another result");
            let (asked, listings) = far.take();
            assert!(asked.most <= 6, "{name}: {} in flight", asked.most);
            if asks_for_all {
                assert_eq!(asked.most, 6, "{name}");
                assert_eq!(
                    listings, 1,
                    "{name}: the extents were asked for {listings} times"
                );
            }
            let mut reads = asked.reads;
            reads.sort_unstable();
            for pair in reads.windows(2) {
                assert!(
                    pair[0].0 + pair[0].1 <= pair[1].0,
                    "{name}: read twice: {pair:?}"
                );
            }
            for (offset, len) in &reads {
                assert!(
                    *len <= MIB,
                    "{name}: {len} bytes at {offset} in one request"
                );
            }
        }
    }
}

/// The optimal number of requests is in flight: a gibibyte in requests of 4 MiB that take 20 ms each.
#[test]
fn a_pass_over_a_far_image_takes_as_long_as_its_requests() {
    const DEPTH: u16 = 16;
    let latency = Duration::from_millis(20);
    let hints = IoHints {
        request: 4 << 20,
        depth: DEPTH,
        ..IoHints::LOCAL
    };
    let far = CountingImage::new(1 << 30, false, latency, hints);
    far.gather(true);
    let (near, workers) = (far.near(), workers());
    let options = CompareOptions {
        work: Work::new(&workers, &Silent),
        digests: false,
        payload: false,
        equal: &NoneShared,
    };
    let compared = || {
        let total = compare(&near, &far, options, Ok, |_| Ok(())).unwrap();
        assert!(total.is_same());
    };
    let hashed = || {
        content_digest(&far, &workers, &Silent).unwrap();
    };
    let passes: [(&str, &dyn Fn()); 2] = [("compare", &compared), ("hash", &hashed)];
    for (name, pass) in passes {
        let begun = Instant::now();
        pass();
        let took = begun.elapsed();
        let (asked, listings) = far.take();
        let alone = latency * 256 / u32::from(DEPTH);
        let ratio = took.as_secs_f64() / alone.as_secs_f64();
        println!("{name}: {took:?}, {ratio:.2} times what the requests alone take");
        assert_eq!((asked.reads.len(), listings), (256, 1), "{name}");
        assert_eq!(asked.most, usize::from(DEPTH), "{name}");
        // One at a time would take 16 times as long; on a busy machine the hashing may take a while.
        assert!(ratio < 12.0, "{name}: {took:?}");
    }
}
