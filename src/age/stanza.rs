//! The stanzas of a header, each with the file key for one who can open the file.

use zeroize::Zeroizing;

use super::text::{self, COLUMNS};

/// Length of a file key.
pub(super) const FILE_KEY: usize = 16;

/// The key of one file.
pub(super) type FileKey = Zeroizing<[u8; FILE_KEY]>;

/// A part of the header for one who can open the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stanza {
    pub(super) args: Vec<String>,
    pub(super) body: Vec<u8>,
}

impl Stanza {
    /// Whether it is of this kind.
    pub(super) fn is(&self, kind: &str) -> bool {
        self.args.first().is_some_and(|arg| arg == kind)
    }

    /// Adds its lines to a header.
    pub(super) fn encode(&self, out: &mut String) {
        out.push_str("-> ");
        out.push_str(&self.args.join(" "));
        out.push('\n');
        let body = text::encode(&self.body);
        let mut rest = body.as_str();
        while let Some((line, later)) = rest.split_at_checked(COLUMNS) {
            out.push_str(line);
            out.push('\n');
            rest = later;
        }
        // A full last line is followed by an empty one.
        out.push_str(rest);
        out.push('\n');
    }
}
