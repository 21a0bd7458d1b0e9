//! How long commands take with many snapshots and many disks. Prints a table.
//!
//! ```text
//! cargo test --test store scale -- --nocapture
//! VHDKIT_SNAPSHOTS=10000 VHDKIT_DISKS=500 cargo test --release --test store scale -- --nocapture
//! ```

use std::time::Instant;

use vhdkit::parallel::Workers;

use crate::disk::{assert_same, content, pipe};
use crate::many::many;
use crate::store::lab::Lab;

fn from_environment(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).map_or(otherwise, |n| n.parse().unwrap())
}

#[test]
fn times_with_many_snapshots() {
    let count = from_environment("VHDKIT_SNAPSHOTS", 200);
    let workers = Workers::new(None).unwrap();
    let lab = Lab(crate::disk::TestFolder::in_memory());
    let states = many(&lab.path("store"), "web", count, &workers);
    println!(
        "\n{count} snapshots of one disk, {}\n",
        crate::disk::memory().display()
    );
    println!("| command | seconds |\n| --- | ---: |");
    let timed = |args: &[&str]| {
        let start = Instant::now();
        lab.good(args);
        println!(
            "| {} | {:.2} |",
            args.join(" "),
            start.elapsed().as_secs_f64()
        );
    };
    timed(&["list", "--json"]);
    timed(&["verify"]);
    timed(&["verify", "--read-data"]);
    timed(&["restore", "-o", "last.raw"]);
    let newest = &states[usize::from(count.is_multiple_of(2))];
    assert_same(&content(lab.path("last.raw")), newest, "the newest");
    timed(&["copy", "--init", "--to", "copied"]);
    let start = Instant::now();
    pipe(
        &mut lab.command("vhd", &["snapshot", "send"]),
        &mut lab.command(
            "vhd",
            &["snapshot", "receive", "--init", "--store", "received"],
        ),
    );
    println!("| send to receive | {:.2} |", start.elapsed().as_secs_f64());
    timed(&["repair", "--from", "copied"]);
    timed(&["create", "--disk", "web", "--name", "new", "last.raw"]);
    timed(&["prune", "-q", "--keep-tag", "keep"]);
    timed(&["verify", "--read-data"]);
    timed(&["prune", "-q", "--keep-last", "3"]);
    lab.good(&["restore", "-o", "again.raw"]);
    assert_same(&content(lab.path("again.raw")), newest, "the newest");
}

#[test]
fn times_with_many_disks() {
    let workers = Workers::new(None).unwrap();
    let lab = Lab(crate::disk::TestFolder::in_memory());
    let disks = from_environment("VHDKIT_DISKS", 20);
    for n in 0..disks {
        many(&lab.path("store"), &format!("disk{n:03}"), 20, &workers);
    }
    println!("\n20 snapshots of each of {disks} disks\n\n| command | seconds |\n| --- | ---: |");
    for args in [
        &["list", "--json"][..],
        &["verify"],
        &["verify", "--read-data"],
        &["copy", "--init", "--to", "copied"],
        &["prune", "-q", "--keep-last", "10"],
    ] {
        let start = Instant::now();
        lab.good(args);
        println!(
            "| {} | {:.2} |",
            args.join(" "),
            start.elapsed().as_secs_f64()
        );
    }
}
