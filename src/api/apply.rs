//! Applying diffs to an image.

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
use crate::parallel::Work;
use crate::progress::Progress;
use crate::storage::{Audience, Overwrite};

/// Applies diffs to a base image. Nothing is written before all diffs are verified and found to be consecutive, and the
/// base is known to be the one that they were made from.
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
    /// Starts from the image called `base`: a file or, if a new image is written, also a point in time of a store.
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

    /// Adds a diff. Several are applied in the order in which they were added, and each page is written once.
    pub fn diff(mut self, path: impl Into<PathBuf>) -> Self {
        self.diffs.push(path.into());
        self
    }

    /// Sets how the base is checked. By default its recorded window hashes are trusted while its state stamp is valid,
    /// and everything else is read.
    pub fn check(mut self, check: BaseCheck) -> Self {
        self.check = check;
        self
    }

    /// Sets whether the result is read back and compared with its content digest.
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Sets the format of a new image. By default it follows from its name, the target and the base.
    pub fn format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// Sets whether a new image may replace an existing file.
    pub fn overwrite(mut self, overwrite: Overwrite) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Sets where to look for the parents of a differencing VHD.
    pub fn parents(mut self, parents: ParentOptions) -> Self {
        self.parents = parents;
        self
    }

    /// Sets the number of threads; by default one per processor.
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.running.threads = Some(threads);
        self
    }

    /// Reports progress, and stops if it asks for that.
    pub fn progress(mut self, progress: &'a dyn Progress) -> Self {
        self.running.progress = progress;
        self
    }

    /// Writes a new image, which appears only when it is complete, verified and on stable storage.
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

    /// Changes the base itself into the target. Whatever happens meanwhile, the file holds the old or the new point in
    /// time, or can be brought to either by calling this or [`roll_back`](Self::roll_back).
    pub fn in_place(self) -> Result<Applied> {
        let chain = self.chain()?;
        self.run(|options| apply_in_place(&self.base, chain, InPlace::default(), options))
    }

    /// Undoes an interrupted in-place apply. Returns the content digest of the restored base, if it is known.
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
            work: Work::new(&workers, self.running.progress),
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
