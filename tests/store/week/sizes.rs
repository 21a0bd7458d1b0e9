//! What the stores take, beside the images.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::store::lab::Lab;
use crate::week::Day;

/// Prints a line for each day and the sums. All of it in KiB: the image's size, what it takes with its holes, what its
/// snapshot takes in the store.
pub(crate) fn print(when: &str, lab: &Lab, days: &[Day]) {
    println!(
        "\n{when:<16} {:>10} {:>10} {:>10}",
        "image", "sparse", "store"
    );
    let mut sums = [0; 3];
    for day in days {
        let point = lab.json(&["show", day.name]);
        let image = fs::metadata(&day.image).unwrap();
        let sizes = [
            image.len(),
            image.blocks() * 512,
            point["used_size"].as_u64().unwrap(),
        ];
        for (sum, size) in sums.iter_mut().zip(sizes) {
            *sum += size;
        }
        line(day.name, sizes);
    }
    line("all", sums);
    for store in ["store", "second"] {
        println!("{store:<16} {:>32}", stored(&lab.path(store)) >> 10);
    }
    // A week costs less than two of its days.
    assert!(stored(&lab.path("store")) < sums[1] / days.len() as u64 * 2);
}

fn line(name: &str, sizes: [u64; 3]) {
    let [full, sparse, store] = sizes.map(|size| size.div_ceil(1024));
    println!("{name:<16} {full:>10} {sparse:>10} {store:>10}");
}

/// Bytes that a folder's files take on the disk.
fn stored(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let sizes = entries.map(|entry| {
        let found = entry.metadata().unwrap();
        if found.is_dir() {
            stored(&entry.path())
        } else {
            found.blocks() * 512
        }
    });
    sizes.sum()
}
