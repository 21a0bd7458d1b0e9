//! `vhd demo`: the whole workflow on small images, with proof that every point in time was rebuilt.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use super::context::Context;
use super::exit::Outcome;
use super::output::Output;
use crate::error::{Error, Result};
use crate::files::{Format, NewImage, NewImageOptions};
use crate::page::{PAGE_SIZE, PageRange, to_usize};
use crate::storage::{Audience, Overwrite};
use crate::text::shown;
use crate::vhd::{DiskType, Footer, Timestamp, UniqueId};

/// Run the whole workflow on sample images and check every result.
///
/// Creates a fixed and a dynamic VHD at three points in time, diffs them, rebuilds each point from the first one and
/// the diffs, and compares byte by byte. Then keeps the same points in a store, copies it, and restores them.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The commands are actually run, and their real output is shown. All files are created in a temporary folder, \
     which is removed afterwards.\n\n",
    "Examples:\n",
    "  vhd demo\n",
    "  vhd demo --keep try\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// Also create the first disk's images in DIR, to continue by hand: monday.vhd, tuesday.vhd and wednesday.vhd.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print JSON instead: the commands, and how many comparisons agreed.
    #[arg(long)]
    json: bool,
}

/// The output of `--json`.
#[derive(Serialize)]
struct View {
    commands: Vec<String>,
    comparisons: u32,
    folder: Option<String>,
}

/// Size of the virtual disks: small enough for any machine, large enough for blocks and windows.
const DISK: u64 = 32 << 20;

pub(super) fn run(args: &Args, _context: &Context) -> Result<Outcome> {
    let folder = tempfile::Builder::new()
        .prefix("vhd-demo-")
        .tempdir()
        .map_err(|e| Error::io("cannot create a temporary folder", e))?;
    let mut demo = Demo {
        folder: folder.path().to_path_buf(),
        output: if args.json {
            None
        } else {
            Some(Output::text()?)
        },
        commands: Vec::new(),
        proofs: 0,
    };
    if let Some(kept) = &args.keep {
        make_kept(kept)?;
    }
    demo.play()?;
    if let Some(kept) = &args.keep {
        SERVER.make(kept)?;
        let kept = shown(kept);
        demo.say(&format!(
            "{kept} contains monday.vhd, tuesday.vhd and wednesday.vhd."
        ))?;
    }
    if let Some(output) = demo.output {
        output.finish()?;
        return Ok(Outcome::Done);
    }
    let mut output = Output::text()?;
    output.json(&View {
        commands: demo.commands,
        comparisons: demo.proofs,
        folder: args
            .keep
            .as_ref()
            .map(|kept| kept.to_string_lossy().into_owned()),
    })?;
    output.finish()?;
    Ok(Outcome::Done)
}

/// A disk of the demo.
struct Disk {
    /// The prefix of its images' names.
    prefix: &'static str,
    format: Format,
    id: &'static [u8; 16],
}

const SERVER: Disk = Disk {
    prefix: "",
    format: Format::Fixed,
    id: b"vhd demo, server",
};

const LAPTOP: Disk = Disk {
    prefix: "laptop-",
    format: Format::Dynamic,
    id: b"vhd demo, laptop",
};

const DAYS: [&str; 3] = ["monday", "tuesday", "wednesday"];

impl Disk {
    /// Creates an image for each day in `folder`, with the same bytes each time.
    fn make(&self, folder: &Path) -> Result<()> {
        for (day, name) in DAYS.into_iter().enumerate() {
            let options = NewImageOptions {
                format: self.format,
                virtual_size: DISK,
                block_size: None,
                identity: Some(Footer {
                    unique_id: UniqueId(*self.id),
                    timestamp: Timestamp(0),
                    ..Footer::for_disk(DiskType::Fixed, DISK, None)
                }),
                parent: None,
                overwrite: Overwrite::No,
                made_from: Audience::default(),
                dense: false,
            };
            let path = folder.join(format!("{}{name}.vhd", self.prefix));
            let mut new = NewImage::create(path, &options)?;
            for write in WRITES.iter().filter(|write| write.day <= day) {
                let range = PageRange::from_len(write.page * PAGE_SIZE, write.pages * PAGE_SIZE)?;
                match write.seed {
                    Some(seed) => new.image_mut().update(range, &data(seed, write.pages))?,
                    None => new.image_mut().clear(range)?,
                }
            }
            new.publish()?;
        }
        Ok(())
    }
}

/// Creates the folder that is kept; an existing one must be empty.
fn make_kept(folder: &Path) -> Result<()> {
    match fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::usage("the folder isn't empty")
            .with_path(folder)
            .with_hint("name a new folder")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(folder)
            .map_err(|e| Error::io("cannot create the folder", e).with_path(folder)),
        Err(error) => Err(Error::io("cannot use the folder", error).with_path(folder)),
    }
}

struct Demo {
    folder: PathBuf,
    /// Where the commands are shown; `None` if only the outcome is wanted.
    output: Option<Output>,
    commands: Vec<String>,
    proofs: u32,
}

impl Demo {
    fn play(&mut self) -> Result<()> {
        self.say(
            "Two disks at three points in time: a server's in a fixed VHD, a laptop's in a dynamic one.",
        )?;
        let folder = self.folder.clone();
        for disk in [&SERVER, &LAPTOP] {
            disk.make(&folder)?;
        }
        self.vhd(0, "hash monday.vhd tuesday.vhd wednesday.vhd")?;

        self.say("What changed from Monday to Tuesday? (Exit code 1: they differ.)")?;
        self.vhd(1, "diff monday.vhd tuesday.vhd")?;

        self.say("Send only that: a diff for each later day.")?;
        for disk in [SERVER.prefix, LAPTOP.prefix] {
            for [from, to] in [["monday", "tuesday"], ["tuesday", "wednesday"]] {
                self.vhd(
                    0,
                    &format!("diff {disk}{from}.vhd {disk}{to}.vhd -o {disk}{to}.vhddiff"),
                )?;
            }
        }
        self.vhd(0, "show tuesday.vhddiff")?;

        self.say(
            "A remote machine has Monday's image and the diffs. Any day can be rebuilt from them.",
        )?;
        self.vhd(
            0,
            "apply monday.vhd tuesday.vhddiff -o restored-tuesday.vhd",
        )?;
        self.same("restored-tuesday.vhd", "tuesday.vhd")?;
        self.vhd(
            0,
            "apply monday.vhd tuesday.vhddiff wednesday.vhddiff -o restored-wednesday.vhd",
        )?;
        self.same("restored-wednesday.vhd", "wednesday.vhd")?;

        self.say("Or bring the copy itself up to date, in place, and keep a diff to undo it.")?;
        self.copy("laptop-monday.vhd", "copy.vhd")?;
        self.vhd(0, "apply copy.vhd laptop-tuesday.vhddiff laptop-wednesday.vhddiff --undo back.vhddiff --verify")?;
        self.digests("copy.vhd", "laptop-wednesday.vhd")?;
        self.vhd(0, "apply copy.vhd laptop-wednesday.vhddiff")?;
        self.vhd(0, "apply copy.vhd back.vhddiff")?;
        self.digests("copy.vhd", "laptop-monday.vhd")?;

        self.say("A diff is never applied to the wrong base. (Exit code 4.)")?;
        self.vhd(4, "apply copy.vhd laptop-wednesday.vhddiff")?;
        self.digests("copy.vhd", "laptop-monday.vhd")?;

        self.say("Through a pipe, without a file in between, to another format.")?;
        self.vhd(0, "convert laptop-monday.vhd copy.raw")?;
        self.pipe(
            "diff laptop-monday.vhd laptop-wednesday.vhd -o -",
            "apply copy.raw -",
        )?;
        self.digests("copy.raw", "laptop-wednesday.vhd")?;

        self.store()?;

        let proofs = self.proofs;
        self.say(&format!(
            "Every point in time was rebuilt: {proofs} of {proofs} comparisons agree."
        ))
    }

    /// Keeps the same points in time in a store.
    fn store(&mut self) -> Result<()> {
        self.say("Or let a store keep the points in time in order. Monday is the base, followed by the changes.")?;
        self.vhd(0, "snapshot init store")?;
        for (date, name) in [(16, "monday"), (17, "tuesday"), (18, "wednesday")] {
            self.vhd(
                0,
                &format!(
                    "snapshot create --store store --disk server --name {name} --time 2026-11-{date}T06:00:00Z \
                     {name}.vhd"
                ),
            )?;
        }
        self.vhd(0, "snapshot list --store store")?;
        self.vhd(1, "snapshot diff --store store monday wednesday")?;

        self.say(
            "Bring a second store up to date; then delete Monday, which doesn't affect the others.",
        )?;
        self.vhd(0, "snapshot copy --store store --to second --init")?;
        self.vhd(0, "snapshot delete --store store monday")?;
        self.vhd(0, "snapshot verify --store store --read-data")?;
        for (store, name) in [
            ("second", "monday"),
            ("store", "tuesday"),
            ("second", "wednesday"),
        ] {
            let image = format!("{store}-{name}.vhd");
            self.vhd(
                0,
                &format!("snapshot restore --store {store} {name} -o {image}"),
            )?;
            self.same(&image, &format!("{name}.vhd"))?;
        }

        self.say(
            "A store consists of ordinary files: a base and diffs, in the order of their names.",
        )?;
        self.vhd(
            0,
            "apply /dev/null second/server/000001-monday.vhddiff second/server/000002-tuesday.vhddiff -o by-hand.vhd",
        )?;
        self.same("by-hand.vhd", "tuesday.vhd")
    }

    fn line(&mut self, text: impl Display) -> Result<()> {
        self.output
            .as_mut()
            .map_or(Ok(()), |output| output.line(text))
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.output
            .as_mut()
            .map_or(Ok(()), |output| output.bytes(bytes))
    }

    fn typed(&mut self, command: String) -> Result<()> {
        self.line(format_args!("$ {command}"))?;
        self.commands.push(command);
        Ok(())
    }

    fn say(&mut self, text: &str) -> Result<()> {
        self.line("")?;
        self.line(format_args!("# {text}"))
    }

    /// Runs `vhd` with these arguments and shows the command line and all its output.
    fn vhd(&mut self, expected: i32, line: &str) -> Result<()> {
        self.typed(format!("vhd {line}"))?;
        let done = self
            .command(line)?
            .output()
            .map_err(|e| Error::io("cannot run vhd", e))?;
        self.bytes(&done.stdout)?;
        self.bytes(&done.stderr)?;
        if done.status.code() == Some(expected) {
            Ok(())
        } else {
            Err(unexpected(line, done.status))
        }
    }

    fn pipe(&mut self, from: &str, to: &str) -> Result<()> {
        let failed = |e| Error::io("cannot run vhd", e);
        self.typed(format!("vhd {from} | vhd {to}"))?;
        let mut source = self
            .command(from)?
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let stdin = source.stdout.take().map_or_else(Stdio::null, Stdio::from);
        let done = self.command(to)?.stdin(stdin).output().map_err(failed)?;
        let sent = source.wait().map_err(failed)?;
        self.bytes(&done.stderr)?;
        if !sent.success() {
            return Err(unexpected(from, sent));
        }
        if done.status.success() {
            Ok(())
        } else {
            Err(unexpected(to, done.status))
        }
    }

    fn command(&self, line: &str) -> Result<Command> {
        let program = std::env::current_exe().map_err(|e| Error::io("cannot find vhd", e))?;
        let mut command = Command::new(program);
        command
            .args(line.split(' '))
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Proves that two files are identical.
    fn same(&mut self, a: &str, b: &str) -> Result<()> {
        self.typed(format!("cmp {a} {b}"))?;
        let (first, second) = (self.read(a)?, self.read(b)?);
        if first != second {
            return Err(Error::damaged(format!("{a} and {b} differ")));
        }
        self.proofs += 1;
        self.line(format_args!("(the same {} bytes)", first.len()))
    }

    /// Proves that two images contain the same virtual disk.
    fn digests(&mut self, a: &str, b: &str) -> Result<()> {
        let line = format!("hash {a} {b}");
        self.typed(format!("vhd {line}"))?;
        let done = self
            .command(&line)?
            .output()
            .map_err(|e| Error::io("cannot run vhd", e))?;
        self.bytes(&done.stdout)?;
        let text = String::from_utf8_lossy(&done.stdout);
        let digests: Vec<_> = text
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        match digests.as_slice() {
            [first, second] if first == second && first.len() == 64 => {
                self.proofs += 1;
                Ok(())
            }
            _ => Err(Error::damaged(format!(
                "{a} and {b} contain different virtual disks"
            ))),
        }
    }

    fn copy(&mut self, from: &str, to: &str) -> Result<()> {
        self.typed(format!("cp {from} {to}"))?;
        fs::copy(self.folder.join(from), self.folder.join(to))
            .map_err(|e| Error::io("cannot copy", e).with_path(from))?;
        Ok(())
    }

    fn read(&self, name: impl AsRef<OsStr> + AsRef<Path>) -> Result<Vec<u8>> {
        let path = self.folder.join::<&Path>(name.as_ref());
        fs::read(&path).map_err(|e| Error::io("cannot read", e).with_path(path))
    }
}

fn unexpected(line: &str, status: std::process::ExitStatus) -> Error {
    Error::damaged(format!("vhd {line} ended with {status}"))
        .with_hint("this should not happen on any machine: please report it with the output above")
}

/// A change that was written to the disk on some day.
struct Write {
    day: usize,
    page: u64,
    pages: u64,
    /// The seed of the data; `None` clears.
    seed: Option<u64>,
}

const fn write(day: usize, page: u64, pages: u64, seed: Option<u64>) -> Write {
    Write {
        day,
        page,
        pages,
        seed,
    }
}

/// A disk that is used for three days: files appear, change and disappear.
const WRITES: [Write; 12] = [
    write(0, 0, 1, Some(1)),
    write(0, 2048, 6000, Some(2)),
    write(0, 16384, 9000, Some(3)),
    write(0, 40960, 512, Some(4)),
    write(1, 2100, 8, Some(5)),
    write(1, 9001, 1, Some(6)),
    write(1, 18432, 4096, None),
    write(1, 49152, 640, Some(7)),
    write(2, 0, 1, Some(8)),
    write(2, 18432, 256, Some(9)),
    write(2, 40960, 512, None),
    write(2, 65535, 1, Some(10)),
];

/// Whole pages of data, the same for the same seed: half of it text, which compresses, half of it not.
fn data(seed: u64, pages: u64) -> Vec<u8> {
    let len = to_usize(pages * PAGE_SIZE);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 64);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if bytes.len() / 4096 % 2 == 0 {
            bytes.extend_from_slice(format!("line {} of file {seed}\n", bytes.len()).as_bytes());
        } else {
            bytes.extend_from_slice(&state.to_be_bytes());
        }
    }
    bytes.truncate(len);
    bytes
}
