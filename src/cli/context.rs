//! The context of a command: the evaluated common options.

use std::cell::Cell;
use std::io::{self, IsTerminal as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::args::{Common, Parents, SaidFormat, When};
use super::message::{Topic, Warning};
use super::output::STDOUT;
use super::size::{Short, Size};
use super::{cloud, exit, far, progress, store_path};
use crate::blob::BlobName;
use crate::error::{Error, Result};
use crate::files::{OpenImage, OpenOptions, Opened, open_image, refuse_same_file};
use crate::parallel::Workers;
use crate::progress::Progress;
use crate::storage::IoPolicy;
use crate::text::shown;

/// Fails if the output is one of the files from which `input` is read.
pub(super) fn refuse_files(output: &Path, input: &dyn Opened) -> Result<()> {
    refuse_same_file(output, &input.files())
}

/// How an image is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    /// Whether to read as much as possible of a damaged image.
    pub(super) salvage: bool,
    /// Through which cache, and what to trust.
    pub(super) io: IoPolicy,
}

impl Reading {
    /// Reads as much as possible of a damaged image if `salvage` is set.
    pub(super) fn salvaging(salvage: bool) -> Self {
        Self {
            salvage,
            ..Self::default()
        }
    }
}

/// Threads that read page blobs, divided by the number of images: each has a request in flight, and two windows of 4
/// MiB in memory.
const FAR_THREADS: usize = 16;

/// A command that takes less time needs no account of it.
const LONG: Duration = Duration::from_secs(10);

/// The surroundings of a command.
#[derive(Debug)]
pub(super) struct Context {
    program: &'static str,
    common: Common,
    begun: Instant,
    /// Whether it is told how long the command took, if that was long.
    timed: Cell<bool>,
}

impl Context {
    pub(super) fn new(program: &'static str, common: &Common) -> Self {
        far::set_limits(common.limit_rate, common.jobs.map(usize::from));
        Self {
            program,
            common: common.clone(),
            begun: Instant::now(),
            timed: Cell::new(false),
        }
    }

    /// Creates the threads to work with.
    pub(super) fn workers(&self) -> Result<Workers> {
        let threads = self.common.threads.map(usize::from);
        Workers::new(threads.and_then(NonZeroUsize::new))
    }

    /// Creates the threads for reading `sources`. If they mostly wait for a device, there are two per processor: while
    /// one waits, the other compares and hashes.
    pub(super) fn workers_reading(&self, sources: &[&dyn Opened]) -> Result<Workers> {
        let is_cold =
            |source: &&dyn Opened| source.as_file().is_some_and(OpenImage::is_mostly_cold);
        let is_far = |source: &&dyn Opened| source.as_blob().is_some();
        if self.common.threads.is_none() && sources.iter().any(is_far) {
            return Workers::new(NonZeroUsize::new(
                (self.far_threads() / sources.len().max(1)).max(1),
            ));
        }
        if self.common.threads.is_some() || !sources.iter().any(is_cold) {
            return self.workers();
        }
        let processors = std::thread::available_parallelism().ok();
        let twice = processors.and_then(|n| n.checked_mul(NonZeroUsize::MIN.saturating_add(1)));
        Workers::new(twice)
    }

    /// The threads to read or write one page blob with.
    pub(super) fn workers_far(&self) -> Result<Workers> {
        match self.common.threads {
            Some(_) => self.workers(),
            None => Workers::new(NonZeroUsize::new(self.far_threads())),
        }
    }

    fn far_threads(&self) -> usize {
        self.common.jobs.map_or(FAR_THREADS, usize::from)
    }

    /// Shows progress as requested, until dropped. Nothing may be printed to stderr meanwhile.
    pub(super) fn progress(&self) -> Box<dyn Progress> {
        let terminal = io::stderr().is_terminal();
        let shown = match self.common.progress {
            When::Auto => terminal,
            When::Always => true,
            When::Never => false,
        };
        let progress = progress::new(shown && !self.quiet(), terminal);
        if self.verbose() || self.timed.get() {
            return Box::new(progress::Counted(progress));
        }
        progress
    }

    /// Returns whether only problems should be reported.
    /// What opens encrypted stores.
    pub(super) fn keys(&self) -> &super::args::KeyArgs {
        &self.common.keys
    }

    /// The name of the program.
    pub(super) fn program(&self) -> &'static str {
        self.program
    }

    pub(super) fn quiet(&self) -> bool {
        self.common.quiet
    }

    fn verbose(&self) -> bool {
        self.common.verbose
    }

    /// Has it told how long the command took if that was long, as with `-v`: for those that move whole disks.
    pub(super) fn tell_long_time(&self) {
        self.timed.set(true);
    }

    /// Reports how long the command took, and its speed, if requested, or if it was long.
    pub(super) fn tell_time(&self) {
        let took = self.begun.elapsed();
        let was_long = self.timed.get() && took >= LONG;
        if !self.verbose() && !was_long {
            return;
        }
        let seconds = took.as_secs_f64();
        let bytes = progress::handled();
        if let Some((requests, sent, received)) = far::traffic() {
            self.note(format_args!(
                "{requests} requests: {} sent, {} received",
                Short(sent),
                Short(received)
            ));
        }
        if bytes == 0 {
            return self.note(format_args!("took {seconds:.1} s"));
        }
        let rate = u128::from(bytes) * 1000 / took.as_millis().max(1);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        self.note(format_args!(
            "took {seconds:.1} s: {} of disks handled, {}/s",
            Short(bytes),
            Short(rate)
        ));
    }

    /// Prints a note on stderr, unless suppressed.
    pub(super) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet() {
            exit::note(self.program, &text);
        }
    }

    /// Prints details on stderr, if requested.
    pub(super) fn detail(&self, text: impl std::fmt::Display) {
        if self.common.verbose {
            self.note(text);
        }
    }

    /// Prints a warning on stderr, even with `-q`.
    pub(super) fn warn(&self, topic: Topic, text: impl std::fmt::Display) {
        self.warn_of(&Warning::new(topic, text));
    }

    /// As [`warn`](Self::warn), a warning that may have a hint.
    pub(super) fn warn_of(&self, warning: &Warning) {
        exit::warn(self.program, warning);
    }

    /// Notes that a block device is about to be overwritten, which its name alone doesn't reveal.
    pub(super) fn note_device(&self, output: &Path) {
        let looked = std::fs::metadata(output);
        if looked.is_ok_and(|found| found.file_type().is_block_device()) {
            self.note(format_args!(
                "{}: a device is overwritten in place: if this is interrupted, it is half written and the command has to be run again",
                shown(&output)
            ));
        }
    }

    /// Notes that a complete raw disk was written to stdout.
    pub(super) fn note_disk_sent(&self, of: &Path, size: u64) {
        self.note(format_args!(
            "{STDOUT}: {} as raw, virtual size {}",
            shown(of),
            Size(size)
        ));
    }

    /// Opens an image for reading, and reports problems that don't prevent that.
    pub(super) fn open(
        &self,
        path: &Path,
        format: SaidFormat,
        parents: &Parents,
    ) -> Result<OpenImage> {
        self.open_with(path, format, parents, Reading::default())
    }

    /// As [`open`](Self::open), read as specified by `reading`. For a damaged image, reports what is lost.
    pub(super) fn open_with(
        &self,
        path: &Path,
        format: SaidFormat,
        parents: &Parents,
        reading: Reading,
    ) -> Result<OpenImage> {
        let image = open_image(path, &options(format, parents, reading))?;
        self.warn_of_image(&image);
        Ok(image)
    }

    /// As [`open_with`](Self::open_with), or a point in time of a store, named `STORE::DISK@SNAPSHOT`.
    pub(super) fn open_source(
        &self,
        path: &Path,
        format: SaidFormat,
        parents: &Parents,
        reading: Reading,
    ) -> Result<Box<dyn Opened>> {
        let opener = store_path::opener(path)?.options(options(format, parents, reading));
        let image = opener.open(path)?;
        if let Some(file) = image.as_file() {
            self.warn_of_image(file);
        }
        if image.as_blob().is_some() {
            self.tell_access(image.path())?;
        }
        for doubt in image.doubts() {
            self.warn_of(&Warning::of(doubt));
        }
        Ok(image)
    }

    /// Reports what grants access to a blob, if requested.
    pub(super) fn tell_access(&self, blob: &Path) -> Result<()> {
        if self.verbose() {
            if cloud::is_name(blob) {
                let identity = cloud::cloud()?.identity()?;
                self.detail(format_args!(
                    "{}: access granted to {identity}",
                    shown(blob)
                ));
                return Ok(());
            }
            let name = BlobName::parse(blob.to_str().unwrap_or_default())?;
            let access = far::connector()?.access(&name)?;
            self.detail(format_args!("{}: access by {}", shown(blob), access.what()));
        }
        Ok(())
    }

    /// Reports problems that don't prevent reading an image, and its losses.
    fn warn_of_image(&self, image: &OpenImage) {
        for warning in image.chain().flat_map(OpenImage::warnings) {
            self.warn_of(&Warning::of(warning));
        }
        for lost in image.chain().flat_map(losses) {
            self.warn(Topic::DataLost, lost);
        }
    }

    /// Returns whether only errors should be printed.
    pub(super) fn is_quiet(&self) -> bool {
        self.common.quiet
    }

    /// Returns a function that prints errors that don't end the command, from any thread.
    pub(super) fn reporter(&self) -> impl Fn(&Error) + Send + Sync + use<> {
        let program = self.program;
        move |error| exit::report(program, error)
    }

    /// Prints an error that doesn't end the command.
    pub(super) fn report(&self, error: &Error) {
        exit::report(self.program, error);
    }
}

fn options(format: SaidFormat, parents: &Parents, reading: Reading) -> OpenOptions {
    OpenOptions {
        format: format.format.map(Into::into),
        format_option: format.option,
        salvage: reading.salvage,
        parents: parents.options(),
        io: reading.io,
        settle: true,
        ..OpenOptions::default()
    }
}

/// The most lost ranges that are listed.
const LISTED: usize = 20;

/// The losses of a damaged image, as text.
pub(super) fn losses(image: &OpenImage) -> Vec<String> {
    let (path, lost) = (shown(image.path()), image.lost());
    let bytes = lost
        .iter()
        .fold(0, |sum, range| range.len().saturating_add(sum));
    if bytes == 0 {
        return Vec::new();
    }
    let place = if image.parent().is_some() {
        "as its parent has them"
    } else {
        "as zeros"
    };
    let all = format!("{path}: {} are lost and read {place}", Size(bytes));
    let listed = lost.iter().take(LISTED);
    let listed =
        listed.map(|range| format!("{path}: lost: {} bytes at {}", range.len(), range.start()));
    let more = lost.len().checked_sub(LISTED).filter(|more| *more > 0);
    let more = more.map(|more| format!("{path}: lost: {more} more ranges"));
    std::iter::once(all).chain(listed).chain(more).collect()
}
