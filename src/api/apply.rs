//! What an image becomes by diffs.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::{Opener, Running};
use crate::diff::{BaseCheck, Chain};
use crate::error::Result;
use crate::files::{
    Applied, ApplyOptions, Format, InPlace, Output, ParentOptions, apply_in_place, apply_to_image,
    check_output, format_of_result, open_diff, refuse_same_file, roll_back,
};
use crate::image::ContentDigest;
use crate::progress::Progress;
use crate::storage::{Audience, Overwrite};

/// Applies diffs to a base. Nothing is written before all of them are verified, follow one another, and the base is
/// known to be the one that they were made from.
///
/// ```no_run
/// # fn main() -> vhdkit::Result<()> {
/// vhdkit::apply("monday.vhd").diff("tuesday.vhddiff").to_new("tuesday.vhd")?;
/// vhdkit::apply("copy.vhd").diff("tuesday.vhddiff").diff("wednesday.vhddiff").in_place()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "an apply does nothing until it is run"]
pub struct Apply<'a> {
    base: PathBuf,
    diffs: Vec<PathBuf>,
    check: BaseCheck,
    verify: bool,
    format: Option<Format>,
    overwrite: Overwrite,
    parents: ParentOptions,
    running: Running<'a>,
}

impl<'a> Apply<'a> {
    /// Starts from the image called `base`, a file or, for a new image, also a point in time of a store.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self {
            base: base.into(),
            diffs: Vec::new(),
            check: BaseCheck::Stamped,
            verify: false,
            format: None,
            overwrite: Overwrite::No,
            parents: ParentOptions::default(),
            running: Running::default(),
        }
    }

    /// Adds a diff; several are applied in this order, each page written once.
    pub fn diff(mut self, path: impl Into<PathBuf>) -> Self {
        self.diffs.push(path.into());
        self
    }

    /// Says how it is made sure that the base is the right one; by default what is kept of its window hashes is
    /// believed while its state stamp is valid, and anything else is read.
    pub fn check(mut self, check: BaseCheck) -> Self {
        self.check = check;
        self
    }

    /// Says whether the result is read back and compared with its content digest.
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Sets the format of a new image; by default its name, the target and the base decide.
    pub fn format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// Says whether a new image may replace a file.
    pub fn overwrite(mut self, overwrite: Overwrite) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Says where the parents of a differencing VHD may be.
    pub fn parents(mut self, parents: ParentOptions) -> Self {
        self.parents = parents;
        self
    }

    /// Uses so many threads; by default one for each processor.
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.running.threads = Some(threads);
        self
    }

    /// Reports progress, and stops when it says so.
    pub fn progress(mut self, progress: &'a dyn Progress) -> Self {
        self.running.progress = progress;
        self
    }

    /// Makes a new image, which appears only when it is whole, right and on stable storage.
    pub fn to_new(self, output: impl AsRef<Path>) -> Result<Applied> {
        let output = output.as_ref();
        let inputs: Vec<&Path> = self.diffs.iter().map(PathBuf::as_path).collect();
        refuse_same_file(output, &inputs)?;
        check_output(output, self.overwrite)?;
        let base = Opener::new()
            .parents(self.parents.clone())
            .open(&self.base)?;
        refuse_same_file(output, &base.files())?;
        let chain = self.chain()?;
        let format = match self.format {
            Some(format) => format,
            None => format_of_result(output, &*base, &chain)?,
        };
        let made_from = Audience::of(inputs)?;
        let output = Output {
            path: output,
            format,
            overwrite: self.overwrite,
            made_from: &made_from,
            dense: false,
        };
        self.run(|options| apply_to_image(&*base, &chain, output, options))
    }

    /// Brings the base itself to the target, so that whatever happens it is the old or the new point in time, or one
    /// call of this or of [`roll_back`](Self::roll_back) away from either.
    pub fn in_place(self) -> Result<Applied> {
        let chain = self.chain()?;
        self.run(|options| apply_in_place(&self.base, chain, InPlace::default(), options))
    }

    /// Takes back an apply in place that was interrupted; gives the content digest that the base has again, if it is
    /// known.
    pub fn roll_back(self) -> Result<Option<ContentDigest>> {
        self.run(|options| roll_back(&self.base, options))
    }

    fn chain(&self) -> Result<Chain> {
        let open = |path: &PathBuf| open_diff(path, self.running.progress);
        Chain::new(self.diffs.iter().map(open).collect::<Result<_>>()?)
    }

    fn run<T>(&self, work: impl FnOnce(ApplyOptions<'_>) -> Result<T>) -> Result<T> {
        let workers = self.running.workers()?;
        work(ApplyOptions {
            workers: &workers,
            progress: self.running.progress,
            check: self.check,
            verify: self.verify,
            parents: &self.parents,
        })
    }
}

impl std::fmt::Debug for Apply<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Apply")
            .field("base", &self.base)
            .field("diffs", &self.diffs)
            .finish_non_exhaustive()
    }
}
