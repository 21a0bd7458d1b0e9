//! Commands over several files or disks: a failure of one doesn't prevent processing the others, and the exit code is
//! that of the worst.

use std::io;
use std::path::Path;

use super::codes::code_of;
use super::context::Context;
use super::exit::Outcome;
use super::{document, output};
use crate::error::{Error, ErrorKind, Result};

/// The outcome of several items.
pub(super) struct Several<'a> {
    context: &'a Context,
    outcome: Outcome,
    worst: Option<Error>,
}

impl<'a> Several<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        document::one_a_line();
        Self {
            context,
            outcome: Outcome::Done,
            worst: None,
        }
    }

    /// Adds the outcome of one item. Of several errors, all but the worst are reported at once; that one ends the
    /// command.
    ///
    /// # Errors
    ///
    /// Fails if the work on all of them should end: the reader closed the pipe, or the user wants to stop.
    pub(super) fn take(&mut self, image: &Path, one: Result<Outcome>) -> Result<()> {
        let gone = matches!(&one, Err(error) if error.io_kind() == Some(io::ErrorKind::BrokenPipe));
        if !gone {
            let code = match &one {
                Ok(outcome) => outcome.code(),
                Err(error) => code_of(error.kind()),
            };
            let error = one.as_ref().err();
            document::end_one(image, code, error, &mut io::stdout()).map_err(output::failed)?;
        }
        let error = match one {
            Ok(Outcome::Done) => return Ok(()),
            Ok(no) => {
                self.outcome = no;
                return Ok(());
            }
            Err(error) => error,
        };
        if gone || error.kind() == ErrorKind::Interrupted {
            return Err(error);
        }
        let rank = |error: &Error| code_of(error.kind());
        match self.worst.take() {
            Some(worst) if rank(&worst) >= rank(&error) => {
                self.context.report(&error);
                self.worst = Some(worst);
            }
            Some(better) => {
                self.context.report(&better);
                self.worst = Some(error);
            }
            None => self.worst = Some(error),
        }
        Ok(())
    }

    /// The outcome of the command.
    pub(super) fn finish(self) -> Result<Outcome> {
        self.worst.map_or(Ok(self.outcome), Err)
    }
}
