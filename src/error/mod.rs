//! The error type: what went wrong, where, what was found and expected, and what to do next.

mod kind;
mod shell;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use kind::{ErrorKind, Reason};
pub use shell::quoted;

use crate::remedy::Remedy;
use crate::text::{Escaping, shown};

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its location and a hint.
///
/// `Display` prints one line: file, message, field, offset, found, expected, cause. What to do about it is kept separate
/// ([`Error::hint`], [`Error::remedy`]), so that a program can print it on a line of its own. Text from files and names is
/// escaped when it is displayed (see [`text`](crate::text)), and not before.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    reason: Option<Reason>,
    message: String,
    path: Option<PathBuf>,
    offset: Option<u64>,
    field: Option<String>,
    found: Option<String>,
    expected: Option<String>,
    remedy: Option<Told>,
    /// The usual advice for an error of the system, unless the caller knows better.
    usual: Option<&'static str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// A remedy, and its sentence without names of steps.
struct Told {
    remedy: Remedy,
    hint: String,
}

impl Error {
    /// Creates an error with a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            reason: None,
            message: message.into(),
            path: None,
            offset: None,
            field: None,
            found: None,
            expected: None,
            remedy: None,
            usual: None,
            source: None,
        }))
    }

    /// Shorthand for [`ErrorKind::Damaged`].
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    /// Shorthand for [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// Shorthand for [`ErrorKind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// Shorthand for [`ErrorKind::Mismatch`].
    pub fn mismatch(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Mismatch, message)
    }

    /// Creates an [`ErrorKind::Internal`] error. `what` names the rule that was broken.
    pub fn internal(what: impl Into<String>) -> Self {
        let message = what.into();
        debug_assert!(false, "internal fault: {message}");
        Self::new(ErrorKind::Internal, message).with_hint(
            "this is a fault of vhdkit: please report it, with the command and the version",
        )
    }

    /// Creates an [`ErrorKind::Io`] error. `doing` says what was tried, as in "cannot read".
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        let usual = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("free some space or choose another place, then run the command again")
            }
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Some("check the name and the folder")
            }
            io::ErrorKind::FileTooLarge => Some(
                "the file system or a limit of the shell (ulimit -f) allows no file of that size",
            ),
            io::ErrorKind::PermissionDenied => {
                Some("check the owner and the permissions of the file and its folder")
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                Some("the file system is mounted read-only: remount it or choose another place")
            }
            _ => None,
        };
        let mut error = Self::new(ErrorKind::Io, doing).with_source(source);
        error.0.usual = usual;
        error
    }

    /// The error for work that the user stopped.
    pub fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "interrupted")
    }

    /// Sets the file, unless one is set already: the innermost location is the right one.
    #[must_use]
    pub fn with_path(mut self, path: impl AsRef<Path>) -> Self {
        self.0
            .path
            .get_or_insert_with(|| path.as_ref().to_path_buf());
        self
    }

    /// Sets the offset in bytes within the file, unless one is set already.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Sets the field, as the format's specification calls it: `footer.checksum`, `bat[7]`.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Sets the value that was found.
    #[must_use]
    pub fn with_found(mut self, found: impl fmt::Display) -> Self {
        self.0.found = Some(found.to_string());
        self
    }

    /// Sets the value that was expected.
    #[must_use]
    pub fn with_expected(mut self, expected: impl fmt::Display) -> Self {
        self.0.expected = Some(expected.to_string());
        self
    }

    /// Sets what to do next, as a phrase without a final period that names neither commands nor options: those are steps of
    /// a [`Remedy`]. Has no effect if a hint is set already: the code closest to the fault knows best.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        self.with_remedy(hint.into())
    }

    /// Adds the advice, unless there is some already.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<Remedy>) -> Self {
        if self.0.remedy.is_some() {
            return self;
        }
        self.override_remedy(remedy)
    }

    /// As [`with_hint`](Self::with_hint), in place of what is said already: for who knows what the work as a whole makes of
    /// the fault.
    #[must_use]
    pub fn override_hint(self, hint: impl Into<String>) -> Self {
        self.override_remedy(hint.into())
    }

    /// As [`with_remedy`](Self::with_remedy), in place of what is said already.
    #[must_use]
    pub fn override_remedy(mut self, remedy: impl Into<Remedy>) -> Self {
        let remedy = remedy.into();
        let hint = remedy.to_string();
        self.0.remedy = Some(Told { remedy, hint });
        self
    }

    /// Sets the reason, for callers to whom the kind isn't enough.
    #[must_use]
    pub fn with_reason(mut self, reason: Reason) -> Self {
        self.0.reason = Some(reason);
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Returns the kind of error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the reason, where there is more to distinguish than the kind.
    pub fn reason(&self) -> Option<Reason> {
        self.0.reason
    }

    /// Returns a stable name for what is wrong: that of the [`reason`](Self::reason), or else of the kind.
    pub fn id(&self) -> &'static str {
        let reason = self.reason().map(Reason::id);
        reason.unwrap_or(self.kind().name())
    }

    /// Returns the message alone, without location or values.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the file that the error is about, if any.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Returns the offset in the file, if known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Returns the field, if known.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// Returns the value that was found, if known.
    pub fn found(&self) -> Option<&str> {
        self.0.found.as_deref()
    }

    /// Returns the value that was expected, if known.
    pub fn expected(&self) -> Option<&str> {
        self.0.expected.as_deref()
    }

    /// Returns what to do next, if there is something to do: the [`remedy`](Self::remedy) without names of commands and
    /// options, or what is usually done about such an error of the system.
    pub fn hint(&self) -> Option<&str> {
        let told = self.0.remedy.as_ref().map(|told| told.hint.as_str());
        told.or(self.0.usual)
    }

    /// The advice with typed steps, if there is any.
    pub fn remedy(&self) -> Option<&Remedy> {
        self.0.remedy.as_ref().map(|told| &told.remedy)
    }

    /// Returns whether the error says nothing about the input, because the input couldn't be inspected: a system call
    /// failed, someone else uses or changes the file, or the work was stopped. It must not be taken as evidence of
    /// damage.
    pub fn says_nothing(&self) -> bool {
        match self.kind() {
            ErrorKind::Io => self.io_kind().is_some(),
            ErrorKind::Locked | ErrorKind::Changed | ErrorKind::Interrupted => true,
            _ => false,
        }
    }

    /// Returns the operating system's error kind, if that is the cause.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        let source = self.0.source.as_deref()?;
        source.downcast_ref::<io::Error>().map(io::Error::kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        let e = &*self.0;
        if let Some(path) = &e.path {
            write!(f, "{}: ", shown(path))?;
        }
        let f = &mut Escaping(f);
        f.write_str(&e.message)?;
        if e.path.is_some() && needs_object(&e.message) {
            f.write_str(" it")?;
        }
        let mut lead = " (";
        if let Some(field) = &e.field {
            write!(f, "{lead}{field}")?;
            lead = " ";
        }
        if let Some(offset) = e.offset {
            write!(f, "{lead}at offset {offset}")?;
            lead = " ";
        }
        if lead == " " {
            lead = ": ";
        }
        if let Some(found) = &e.found {
            write!(f, "{lead}found {found}")?;
            lead = ", ";
        }
        if let Some(expected) = &e.expected {
            write!(f, "{lead}expected {expected}")?;
            lead = ", ";
        }
        if lead != " (" {
            f.write_str(")")?;
        }
        if let Some(source) = &e.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

/// Returns whether a message ends in the middle of a phrase, as "cannot look at", whose object is the path before it.
fn needs_object(message: &str) -> bool {
    // Other messages are whole sentences, which may end so.
    if !message.starts_with("cannot ") {
        return false;
    }
    let last = message.rsplit(' ').next().unwrap_or(message);
    matches!(
        last,
        "of" | "in" | "on" | "to" | "at" | "into" | "from" | "for" | "with"
    )
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        match self.hint() {
            Some(hint) => write!(f, " [{}]", shown(hint)),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|s| s as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::is_unseen;

    #[test]
    fn a_phrase_about_the_path_before_it_is_whole() {
        let lost = || std::io::Error::other("lost");
        for (doing, said) in [
            (
                "cannot list the blobs of",
                "x: cannot list the blobs of it: lost",
            ),
            ("cannot look at", "x: cannot look at it: lost"),
            ("cannot read", "x: cannot read: lost"),
        ] {
            let error = Error::io(doing, lost()).with_path("x");
            assert_eq!(error.to_string(), said);
        }
        let without = Error::io("cannot watch for", lost());
        assert_eq!(without.to_string(), "cannot watch for: lost");
    }

    #[test]
    fn display_is_one_line_with_place_and_values() {
        let error = Error::damaged("the checksum is wrong")
            .with_path("disk.vhd")
            .with_field("footer.checksum")
            .with_offset(64)
            .with_found("0x00000001")
            .with_expected("0x00000002")
            .with_hint("look at it");
        assert_eq!(
            error.to_string(),
            "disk.vhd: the checksum is wrong (footer.checksum at offset 64: found 0x00000001, expected 0x00000002)"
        );
        assert_eq!(error.hint(), Some("look at it"));
    }

    #[test]
    fn nothing_in_it_reaches_a_terminal_raw() {
        let hostile = "\u{1b}[2K\r\nvhd: note: all fine\u{202e}\u{9b}";
        let error = Error::damaged(hostile)
            .with_path(hostile)
            .with_field(hostile)
            .with_found(hostile)
            .with_expected(hostile)
            .with_source(hostile)
            .with_hint(hostile);
        let escaped = r"\u{1b}[2K\r\nvhd: note: all fine\u{202e}\u{9b}";
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(!text.contains(is_unseen), "{text:?}");
            assert!(text.matches(escaped).count() >= 6, "{text}");
        }
        let windows = Error::damaged("x").with_found(r"C:\new").to_string();
        assert_eq!(windows, r"x (found C:\new)");
    }

    #[test]
    fn the_first_path_wins() {
        let error = Error::damaged("x").with_path("inner").with_path("outer");
        assert_eq!(error.to_string(), "inner: x");
    }

    #[test]
    fn the_first_remedy_wins_unless_it_is_overridden() {
        let full = || Error::io("cannot write", io::Error::from(io::ErrorKind::StorageFull));
        assert!(full().hint().unwrap().starts_with("free some space"));
        assert_eq!(full().remedy(), None);
        let error = full().with_hint("inner").with_hint("outer");
        assert_eq!(error.hint(), Some("inner"));
        let error = error.override_hint("whole");
        assert_eq!(error.hint(), Some("whole"));
    }

    #[test]
    fn the_cause_comes_last() {
        let error =
            Error::io("cannot read", io::Error::from(io::ErrorKind::NotFound)).with_path("a");
        assert_eq!(error.to_string(), "a: cannot read: entity not found");
        assert_eq!(error.io_kind(), Some(io::ErrorKind::NotFound));
    }
}
