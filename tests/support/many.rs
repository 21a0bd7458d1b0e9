//! A disk with any number of snapshots, created quickly: two states alternate, so that two diffs serve for all of them.

use std::fs;
use std::path::Path;

use vhdkit::files::{OpenOptions, open_image};
use vhdkit::parallel::Workers;
use vhdkit::progress::Silent;
use vhdkit::snapshot::{
    Access, Disk, Manifest, NewPoint, STORE_VERSION, Time, Work, create, init, store_version,
};

/// Creates the disk `name` in the store at `store` with `count` snapshots, at least three, called `s1` and so on. Every
/// second one has the tag `keep`. Returns the two states; `s1` has the first one.
pub(crate) fn many(store: &Path, name: &str, count: u32, workers: &Workers) -> [Vec<u8>; 2] {
    let states = [1_u8, 2].map(|n| {
        let mut bytes = vec![0; 64 << 10];
        bytes[..512].fill(7);
        bytes[1024..1536].fill(n);
        bytes
    });
    if store_version(store).unwrap().is_none() {
        init(store, STORE_VERSION).unwrap();
    }
    let image = store.join("image.tmp");
    for n in 1..=3 {
        fs::write(&image, &states[usize::from(n == 2)]).unwrap();
        let new = NewPoint {
            name: format!("s{n}"),
            time: Some(time(n)),
            ..NewPoint::default()
        };
        let work = Work {
            workers,
            progress: &Silent,
        };
        let mut disk = Disk::open(store, name, Access::Create).unwrap();
        let opened = open_image(&image, &OpenOptions::default()).unwrap();
        create(&mut disk, &opened, &new, work).unwrap();
    }
    fs::remove_file(&image).unwrap();
    let folder = store.join(name);
    let read = |stem: &str| {
        let path = folder.join(format!("{stem}.json"));
        Manifest::decode(&fs::read(&path).unwrap(), &path).unwrap()
    };
    let pattern = [read("000002-s2"), read("000003-s3")];
    let diffs = [&pattern[0], &pattern[1]].map(|m| fs::read(folder.join(&m.data.file)).unwrap());
    let mut parent = pattern[1].id.clone();
    for n in 4..=count {
        let which = usize::try_from(n % 2).unwrap();
        let mut point = pattern[which].clone();
        (point.sequence, point.name) = (n, format!("s{n}"));
        point.id = format!("00000000-0000-4000-8000-{n:012}");
        point.parent = Some(std::mem::replace(&mut parent, point.id.clone()));
        point.time = time(n);
        point.data.file = format!("{}.vhddiff", point.stem());
        if n.is_multiple_of(2) {
            point.tags.insert("keep".to_owned(), "yes".to_owned());
        }
        fs::write(folder.join(&point.data.file), &diffs[which]).unwrap();
        let manifest = folder.join(point.stem().manifest());
        fs::write(manifest, point.encode().unwrap()).unwrap();
    }
    if count.is_multiple_of(2) {
        // This list belongs to the other state.
        fs::remove_file(folder.join("newest.windows")).unwrap();
    }
    states
}

fn time(n: u32) -> Time {
    Time::from_unix(1_700_000_000 + i64::from(n))
}
