//! The end of a command: the exit code, and the lines on stderr that explain it.

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use super::codes::code_of;
use super::message::{Label, Warning};
use super::{document, help, output, progress, remedy};
use crate::error::{Error, ErrorKind, Result};
use crate::text::{OneLine, without_secrets};

/// How a command that did its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Success; or the answer yes (exit code 0).
    Done,
    /// The answer no: images differ, problems found (exit code 1).
    No,
    /// Another command ran and had this exit code, which becomes ours.
    Code(u8),
}

impl Outcome {
    /// The exit code.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Code(code) => code,
        }
    }
}

/// Reports the end of `program` and returns its exit code. It is not a failure if the reader closes stdout early.
pub(super) fn code(program: &str, result: Result<Outcome>) -> ExitCode {
    match result {
        Ok(outcome) => {
            let code = outcome.code();
            match document::end(code, None, &mut io::stdout()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
                Err(error) => {
                    report(program, &output::failed(error));
                    ExitCode::from(code_of(ErrorKind::Io))
                }
                Ok(()) => ExitCode::from(code),
            }
        }
        Err(error) if error.io_kind() == Some(io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => {
            let code = code_of(error.kind());
            // Even if this fails, the error is printed on stderr.
            let _ = document::end(code, Some(&error), &mut io::stdout());
            report(program, &error);
            ExitCode::from(code)
        }
    }
}

/// Prints an error, and advice on a separate line.
pub(super) fn report(program: &str, error: &Error) {
    let hint = remedy::hint(error);
    say(program, Label::Error(error.id()), error, hint.as_deref());
}

/// Prints a warning, and advice on a separate line.
pub(super) fn warn(program: &str, warning: &Warning) {
    let (label, hint) = (Label::Warning(warning.id), warning.hint.as_deref());
    say(program, label, &warning.message, hint);
}

/// Prints a note.
pub(super) fn note(program: &str, text: &dyn Display) {
    say(program, Label::Note, text, None);
}

/// Prints a message on stderr, always on one line, and a hint on another. All messages pass through here, so that no
/// text from a file reaches the terminal unescaped.
fn say(program: &str, label: Label, text: &dyn Display, hint: Option<&str>) {
    document::said(label, text, hint);
    let mut said = format!("{program}: {}: {}\n", label.name(), OneLine(text));
    if let Some(hint) = hint {
        // Writing to a string can't fail.
        let _ = writeln!(said, "  hint: {}", OneLine(hint));
    }
    to_stderr(&said);
}

/// Reports that a signal ended the program, and the state of what it was writing.
pub(super) fn ended(program: &str, how: &str, became: &[(String, Option<String>)]) {
    let mut said = format!("{program}: {how}");
    for (text, _) in became {
        let _ = write!(said, "; {}", OneLine(text));
    }
    said.push('\n');
    for hint in became.iter().filter_map(|(_, hint)| hint.as_ref()) {
        let _ = writeln!(said, "  hint: {}", OneLine(hint));
    }
    to_stderr(&said);
}

/// Writes to stderr, with secrets removed.
fn to_stderr(text: &str) {
    // If stderr is closed, there is nobody to inform.
    let _ = progress::hidden(|| io::stderr().write_all(without_secrets(text).as_bytes()));
}

/// Prints the argument parser's output: help and version to stdout, errors to stderr.
pub(super) fn from_clap(program: &str, error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let text = error.render();
        let text = if io::stdout().is_terminal() {
            text.ansi().to_string()
        } else {
            text.to_string()
        };
        return match io::stdout().write_all(help::printed(&text).as_bytes()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(2),
            _ => ExitCode::SUCCESS,
        };
    }
    let text = error.render().to_string();
    // Advice and usage come after an empty line.
    let reason = text.split("\n\n").next().unwrap_or(&text);
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    let usage = Error::usage(reason.strip_prefix("error: ").unwrap_or(&reason))
        .with_hint(format!("see {program} --help"));
    let _ = document::end(2, Some(&usage), &mut io::stdout());
    let text = error.render();
    let text = if io::stderr().is_terminal() {
        text.ansi().to_string()
    } else {
        text.to_string()
    };
    // Without a command, the parser prints the help, which isn't an error message.
    let help = error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let prefix = if help {
        String::new()
    } else {
        format!("{program}: ")
    };
    to_stderr(&help::printed(&format!("{prefix}{text}")));
    ExitCode::from(2)
}

/// Prints the argument parser's error for arguments that contain unprintable text: the reason alone.
pub(super) fn unreadable_arguments(program: &str, error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let reason = text.split("\n\n").next().unwrap_or(&text);
    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
    let hint = format!("see {program} --help");
    let usage = Error::usage(reason).with_hint(&hint);
    let _ = document::end(2, Some(&usage), &mut io::stdout());
    say(program, Label::Error(usage.id()), &reason, Some(&hint));
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_code_that_its_description_names() {
        let codes = [
            (ErrorKind::Usage, 2),
            (ErrorKind::Io, 2),
            (ErrorKind::Damaged, 3),
            (ErrorKind::Unsupported, 3),
            (ErrorKind::Mismatch, 4),
            (ErrorKind::Locked, 5),
            (ErrorKind::Pending, 5),
            (ErrorKind::Changed, 2),
            (ErrorKind::Interrupted, 130),
            (ErrorKind::Internal, 2),
        ];
        for (kind, code) in codes {
            assert_eq!(code_of(kind), code, "{kind:?}");
        }
    }
}
