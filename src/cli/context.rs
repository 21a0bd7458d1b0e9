//! What every command is given: the common options, worked out.

use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::path::Path;

use super::args::{Common, InputFormat, Parents, When};
use super::{exit, progress};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{
    OpenImage, OpenOptions, ParentOptions, check_file, open_image, refuse_same_file,
};
use crate::parallel::Workers;
use crate::progress::Progress;
use crate::vhd::CheckOptions;

/// An error if the output is one of the files that `input` is read from, its parents included.
pub(super) fn refuse_chain(output: &Path, input: &OpenImage) -> Result<()> {
    let inputs: Vec<&Path> = input.chain().map(OpenImage::path).collect();
    refuse_same_file(output, &inputs)
}

/// The surroundings of a command.
#[derive(Debug)]
pub(super) struct Context {
    program: &'static str,
    common: Common,
}

impl Context {
    pub(super) fn new(program: &'static str, common: &Common) -> Self {
        Self {
            program,
            common: common.clone(),
        }
    }

    /// The threads to work with.
    pub(super) fn workers(&self) -> Result<Workers> {
        let threads = self.common.threads.map(usize::from);
        Workers::new(threads.and_then(NonZeroUsize::new))
    }

    /// Shows progress as the user wants it, until dropped. Print nothing to stderr while it lives.
    pub(super) fn progress(&self) -> Box<dyn Progress> {
        let terminal = io::stderr().is_terminal();
        let shown = match self.common.progress {
            When::Auto => terminal,
            When::Always => true,
            When::Never => false,
        };
        progress::new(shown && !self.common.quiet, terminal)
    }

    /// Says something that isn't an error on stderr, unless that is unwanted.
    pub(super) fn note(&self, text: impl std::fmt::Display) {
        self.say("note", &text);
    }

    /// Says on stderr how something was done, if that is wanted.
    pub(super) fn detail(&self, text: impl std::fmt::Display) {
        if self.common.verbose {
            self.note(text);
        }
    }

    /// Says on stderr that something isn't as it should be, unless that is unwanted.
    pub(super) fn warn(&self, text: impl std::fmt::Display) {
        self.say("warning", &text);
    }

    /// Opens an image to read, and says what is wrong with it if that doesn't keep it from being read.
    pub(super) fn open(
        &self,
        path: &Path,
        format: Option<InputFormat>,
        parents: &Parents,
    ) -> Result<OpenImage> {
        let options = OpenOptions {
            format: format.map(Into::into),
            parents: parents.options(),
            ..OpenOptions::default()
        };
        let image = open_image(path, &options).map_err(count_others)?;
        for warning in image.chain().flat_map(OpenImage::warnings) {
            self.say("warning", warning);
        }
        Ok(image)
    }

    /// Prints an error that doesn't end the command.
    pub(super) fn report(&self, error: &Error) {
        exit::report(self.program, error);
    }

    fn say(&self, label: &str, text: &dyn std::fmt::Display) {
        if !self.common.quiet {
            let _ = writeln!(io::stderr(), "{}: {label}: {text}", self.program);
        }
    }
}

/// Adds to the first fault of a damaged VHD how many errors there are besides.
pub(super) fn count_others(error: Error) -> Error {
    let of_vhd = error.kind() == ErrorKind::Damaged && error.field_name().is_some();
    let report = error.file().filter(|_| of_vhd).and_then(|path| {
        let options = CheckOptions::default();
        check_file(path, &options, &ParentOptions::default()).ok()
    });
    let more = report.map_or(0, |report| report.errors.saturating_sub(1));
    if more == 0 {
        return error;
    }
    let remedy = error.remedy().map(|remedy| format!("; {remedy}"));
    let faults = if more == 1 { "error" } else { "errors" };
    let hint = format!(
        "{more} more {faults}: vhd check lists all{}",
        remedy.unwrap_or_default()
    );
    error.hint(hint)
}
