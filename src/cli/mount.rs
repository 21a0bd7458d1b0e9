//! `vhd mount` and `vhd unmount`: images and points in time as files, through FUSE.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde::Serialize;

use super::args::{InputFormat, Parents, SaidFormat};
use super::context::Context;
use super::exit::Outcome;
use super::message::Topic;
use super::output::Output;
use super::serving;
use crate::error::{Error, Result, quoted};
use crate::files::Opened;
use crate::inside::partitions;
use crate::page::PageRange;
use crate::serve::fuse::{Session, SessionOptions};
use crate::storage::{Mounted, is_dead_mount, mount_place, mounted_at, unmount_at};
use crate::text::shown;

/// Mount images and points in time as files, without restoring them.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "An image appears as disk.raw, as disk.vhd (a fixed VHD, with its footer), and each of its partitions as p1.raw, \
     p2.raw ...; the snapshots of a disk (STORE::DISK) as SNAPSHOT.raw, and those of a store (STORE or STORE::) as \
     DISK/SNAPSHOT.raw. Nobody can write them. They are sparse: cp, du, tar -S and qemu-img see the holes.\n\n",
    "To see the files in a partition, mount that in turn. A snapshot of a running machine has a journal to be \
     replayed, which nothing can do on a read-only file: tell ext4 -o ro,noload, and XFS -o ro,norecovery,nouuid; what \
     is only in the journal is missing then.\n\n",
    "It is mounted until Ctrl-C, a termination or vhd unmount; or, with a command after --, until that ends, whose \
     exit code is then ours. In its arguments {} stands for DIR; VHD_MOUNT holds it too. Snapshots can be added, pruned \
     and deleted meanwhile, and what is read stays the same; the space of deleted ones comes back when nobody has them \
     open. Whatever can't be read is an I/O error; the reason is printed on stderr, and the exit code is 3 at the end if \
     it was damage.\n\n",
    "It needs Linux and /dev/fuse: as root, or with the program fusermount3. vhd serve needs neither.\n\n",
    "Examples:\n",
    "  vhd mount backup::web@tue /mnt/tue\n",
    "  vhd mount backup /mnt/backup --detach; vhd unmount /mnt/backup\n",
    "  vhd mount backup::web@tue /mnt/tue -- cp {}/disk.raw tuesday.raw\n",
    "  mount -o loop,ro,noload /mnt/tue/p1.raw /mnt/files\n\n",
    super::args::exit_codes!(),
))]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub(super) struct Args {
    /// The image, point in time, disk or store to mount.
    what: PathBuf,
    /// An empty folder to mount it at.
    dir: PathBuf,
    /// The format of an image [default: detected].
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<InputFormat>,
    /// Let other users read it too.
    #[arg(long)]
    allow_other: bool,
    /// Return when it is mounted, and continue in the background.
    #[arg(long, conflicts_with = "command")]
    detach: bool,
    /// Report on stdout when it is mounted, and print nothing after that: for --detach.
    #[arg(long, hide = true, conflicts_with_all = ["command", "detach"])]
    detached: bool,
    /// Print JSON when it ends; with --detach, when it is mounted.
    #[arg(long, conflicts_with_all = ["command", "detached"])]
    json: bool,
    #[command(flatten)]
    parents: Parents,
    /// Run this command while it is mounted, and end with it.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The report of the background process when it is mounted.
const READY: &str = "mounted";

/// The numbers of the partitions, and their ranges on the disk.
fn numbered(image: &dyn Opened, context: &Context) -> Result<Vec<(u32, PageRange)>> {
    let table = partitions(image)?;
    if let Some(note) = &table.note {
        context.warn(Topic::PartitionTable, note);
    }
    let named = table.partitions.iter().filter(|part| part.number > 0);
    let ranges = named.map(|part| {
        let range = part.range();
        (part.number, PageRange::covering(range.start, range.end))
    });
    Ok(ranges.collect())
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let place = check_place(&args.dir)?;
    if args.detach {
        return detach(args, &place);
    }
    let format = SaidFormat::by("-f", args.format);
    let shelf = serving::shelf(&args.what, format, &args.parents, context)?;
    let faults = serving::faults(context);
    let parts = match shelf.image() {
        Some(image) => numbered(image.image(), context)?,
        None => Vec::new(),
    };
    let options = SessionOptions {
        name: shown(&args.what).to_string(),
        allow_other: args.allow_other,
        threads: context.workers()?.threads(),
        parts,
    };
    let (gone, waiting) = serving::events();
    let session = Session::mount(shelf, &place, Arc::clone(&faults), &options, move || {
        gone.gone();
    })?;
    if args.detached {
        let mut output = Output::text()?;
        output.line(READY)?;
        output.finish()?;
        leave_terminal()?;
    } else if args.command.is_empty() {
        let name = quoted(&args.dir);
        context.note(format_args!(
            "mounted at {name} until Ctrl-C or vhd unmount {name}"
        ));
    }
    let mut tried = false;
    let may_end = || {
        let ended = session.unmount(std::mem::replace(&mut tried, true));
        ended.map_err(|error| context.report(&error)).is_ok()
    };
    let code = waiting.wait(&args.command, ("VHD_MOUNT", place.as_os_str()), may_end)?;
    if let Err(error) = session.unmount(false) {
        // The command has ended, but a process that it started has not.
        context.report(&error);
        session.unmount(true)?;
    }
    session.join();
    if args.json {
        Output::text()?.json(&Place::of(&place))?;
    }
    serving::end(code, &faults, context)
}

/// Detaches from the terminal.
fn leave_terminal() -> Result<()> {
    let failed = |e: std::io::Error| Error::io("cannot continue in the background", e);
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null");
    let null = null.map_err(failed)?;
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .and_then(|()| rustix::process::setsid())
        .map(drop)
        .map_err(|e| failed(e.into()))
}

/// Checks that something can be mounted at the folder.
fn check_place(dir: &Path) -> Result<PathBuf> {
    let unmount = || format!("unmount it first: vhd unmount {}", quoted(dir));
    // The kernel's cached metadata doesn't reveal a dead mount; opening the folder does.
    let opened = fs::read_dir(dir).map(drop);
    let dead = opened.is_err_and(|e| is_dead_mount(&e));
    match fs::metadata(dir) {
        Ok(_) if dead => return Err(dead_mount(dir).with_hint(unmount())),
        Err(e) if is_dead_mount(&e) => return Err(dead_mount(dir).with_hint(unmount())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::usage("there is no such folder")
                .with_path(dir)
                .with_hint(format!("create it first: mkdir -p {}", quoted(dir))));
        }
        Err(e) => return Err(Error::io("cannot look at", e).with_path(dir)),
        Ok(found) if !found.is_dir() => {
            return Err(Error::usage("this isn't a folder")
                .with_path(dir)
                .with_hint("name an empty folder"));
        }
        Ok(_) => {}
    }
    let place = mount_place(dir)?;
    if mounted_at(&place)? == Mounted::Ours {
        return Err(Error::usage("something is mounted here already")
            .with_path(dir)
            .with_hint(unmount()));
    }
    let mut entries =
        fs::read_dir(dir).map_err(|e| Error::io("cannot read the folder", e).with_path(dir))?;
    if entries.next().is_some() {
        return Err(
            Error::usage("the folder isn't empty, and what is in it would be hidden")
                .with_path(dir)
                .with_hint("name an empty folder"),
        );
    }
    Ok(place)
}

fn dead_mount(dir: &Path) -> Error {
    Error::usage("something is mounted here whose program has ended").with_path(dir)
}

/// Starts this program again in the background, and returns when it has mounted.
fn detach(args: &Args, place: &Path) -> Result<Outcome> {
    let failed = |e| Error::io("cannot start in the background", e);
    let program = std::env::current_exe().map_err(failed)?;
    // The options are those before --; a command can't be given here.
    let words = std::env::args_os().skip(1).filter(|word| word != "--json");
    let words = words.map(|word| {
        if word == "--detach" {
            "--detached".into()
        } else {
            word
        }
    });
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(failed)?;
    }
    if line.trim_end() == READY {
        if args.json {
            Output::text()?.json(&Place::of(place))?;
        }
        return Ok(Outcome::Done);
    }
    // It has reported the reason.
    let status = child.wait().map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Outcome::Code(code.filter(|code| *code != 0).unwrap_or(2)))
}

/// Information about a mount.
#[derive(Serialize)]
struct Place {
    folder: String,
}

impl Place {
    fn of(place: &Path) -> Self {
        Self {
            folder: place.to_string_lossy().into_owned(),
        }
    }
}

/// Unmount what vhd mount has mounted.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Works for a mount whose program was killed, too. The program ends with its mount.\n\n",
    "Examples:\n",
    "  vhd unmount /mnt/tue\n",
    "  vhd unmount --lazy /mnt/tue      even if it is in use: it disappears with its last user\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct UnmountArgs {
    /// Where it is mounted.
    dir: PathBuf,
    /// Detach it at once, and end it when its last user has gone.
    #[arg(long)]
    lazy: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run_unmount(args: &UnmountArgs) -> Result<Outcome> {
    let place = mount_place(&args.dir)?;
    let other = match mounted_at(&place)? {
        Mounted::Ours => None,
        Mounted::Nothing => Some("nothing is mounted here"),
        Mounted::Other => Some("this was not mounted by vhd mount"),
    };
    if let Some(message) = other {
        return Err(Error::usage(message)
            .with_path(&args.dir)
            .with_hint("name the folder that was given to vhd mount"));
    }
    unmount_at(&place, args.lazy)?;
    if args.json {
        Output::text()?.json(&Place::of(&place))?;
    }
    Ok(Outcome::Done)
}
