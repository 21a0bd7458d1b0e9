//! The benchmark: our programs beside their peers, on the same files, in turn, in one run.
//!
//! ```text
//! cargo bench                         4 GiB images, medians of five rounds
//! cargo bench -- --quick              512 MiB, one round: shows that everything works, not how fast
//! cargo bench -- --case convert       only the cases whose name contains "convert"
//! cargo bench -- --json results.json  also for machines
//! cargo bench -- --plot results.svg   also as bars
//! ```
//!
//! Each case begins with a round that isn't counted and whose results are checked: a wrong result ends the run.
//! Seconds depend on the machine and on what else it does; trust the ratios.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints"
)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

mod blobs;
mod cases;
mod data;
mod large;
mod listed;
mod memory;
#[path = "../support/mounts.rs"]
mod mounts;
mod peers;
mod plot;
mod points;
mod random;
mod run;
mod scaling;
mod served;
mod table;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Measures our programs beside their peers.
#[derive(Debug, Parser)]
struct Options {
    /// Size of the images, with K, M or G [default: 4G].
    #[arg(long, value_parser = data::parse_size)]
    size: Option<u64>,
    /// Counted rounds per case, of which the median is taken [default: 5].
    #[arg(long)]
    rounds: Option<usize>,
    /// Small images and one round.
    #[arg(long)]
    quick: bool,
    /// Points in time in the cases about them [default: 100].
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..))]
    points: Option<u64>,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// Folder for the images, about five times their size, and seven for the points in time; a folder within it is made and removed again.
    #[arg(long, value_name = "FOLDER", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench"))]
    dir: PathBuf,
    /// Also writes the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also draws the results as bars.
    #[arg(long, value_name = "SVG")]
    plot: Option<PathBuf>,
    /// Measures nothing, and draws what an earlier run wrote with --json.
    #[arg(long, value_name = "JSON", requires = "plot")]
    plot_from: Option<PathBuf>,
    /// Writes scattered pages to a file, and syncs: the floor of applying such a change.
    #[arg(long, num_args = 2, hide = true)]
    write_scattered: Option<Vec<String>>,
    /// Reads blocks at random places of an image or a point in time, so many.
    #[arg(long, num_args = 2, hide = true)]
    random_reads: Option<Vec<String>>,
    /// Reads and compares two files, and prints how many bytes lie in pages that differ: the floor below which no
    /// comparison can get.
    #[arg(long, num_args = 2, hide = true)]
    floor: Option<Vec<PathBuf>>,
    /// Writes a patch, as `data::make_patch` makes it, to a file and syncs it: the least that any program has to do.
    #[arg(long, num_args = 2, hide = true)]
    patch: Option<Vec<PathBuf>>,
    /// Passes connections on to this server, and delays each answer.
    #[arg(long, hide = true)]
    delaying_proxy: Option<String>,
    /// Writes a patch to a clone of a file, hashes the touched windows of both, and puts the clone in its place, durably: the
    /// least that a program with the guarantees of ours has to do.
    #[arg(long, num_args = 2, hide = true)]
    patch_clone: Option<Vec<PathBuf>>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn size(&self) -> u64 {
        self.size
            .unwrap_or(if self.quick { 512 << 20 } else { 4 << 30 })
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options {
        Options {
            floor: Some(pair), ..
        } => floor(pair),
        Options {
            patch: Some(pair), ..
        } => patch(pair, data::write_patch),
        Options {
            patch_clone: Some(pair),
            ..
        } => patch(pair, data::patch_clone),
        Options {
            write_scattered: Some(words),
            ..
        } => write_scattered(words),
        Options {
            random_reads: Some(words),
            ..
        } => random::read(words),
        Options {
            delaying_proxy: Some(server),
            ..
        } => blobs::delaying_proxy(server),
        Options {
            plot: Some(svg),
            plot_from: Some(json),
            ..
        } => plot_from(json, svg),
        _ => measure(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn floor(pair: &[PathBuf]) -> Result<()> {
    let [a, b] = pair else {
        return Err("--floor takes two files".into());
    };
    println!("{}", data::bytes_in_changed_pages(a, b)?);
    Ok(())
}

fn write_scattered(words: &[String]) -> Result<()> {
    let [count, path] = words else {
        return Err("--write-scattered takes a count and a file".into());
    };
    data::write_scattered(path.as_ref(), data::Version::After, count.parse()?)
}

fn plot_from(json: &Path, svg: &Path) -> Result<()> {
    let results = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    std::fs::write(svg, plot::svg(&results))?;
    Ok(())
}

fn patch(pair: &[PathBuf], write: impl Fn(&Path, &Path) -> Result<()>) -> Result<()> {
    let [patch, image] = pair else {
        return Err("a patch and a file are needed".into());
    };
    write(patch, image)
}

fn measure(options: &Options) -> Result<()> {
    run::check_programs()?;
    std::fs::create_dir_all(&options.dir)?;
    let folder = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(&options.dir)?;
    let bench = cases::Bench::new(folder.path(), options.size(), options.quick, options.points);
    println!(
        "images of {} MiB, {} round(s), {} processor(s)",
        options.size() >> 20,
        options.rounds(),
        std::thread::available_parallelism()?
    );
    let mut results = Vec::new();
    let wanted = |name: &str| options.case.as_ref().is_none_or(|part| name.contains(part));
    for (name, make) in cases::ALL {
        if wanted(name) {
            let case = make(&bench);
            if let Err(error) = &case
                && error.is::<run::NeedsRoot>()
            {
                println!("\n{name}: LEFT OUT: {error}");
                continue;
            }
            let result = run::case(name, case?, options.rounds())?;
            table::print(&result);
            results.push(result);
            bench.clear()?;
        }
    }
    if wanted(points::NAME) {
        let points = points::cases(&bench, options.rounds())?;
        points.iter().for_each(table::print);
        results.extend(points);
    }
    if results.is_empty() {
        return Err("no case has that name".into());
    }
    table::print_targets(&results);
    let json = table::json(options.size(), &results);
    if let Some(path) = &options.json {
        std::fs::write(path, json.to_string())?;
    }
    if let Some(path) = &options.plot {
        std::fs::write(path, plot::svg(&json))?;
    }
    folder.close()?;
    Ok(())
}
