//! Base64 as age writes it: without padding, and only in its canonical form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Columns of a line of a stanza's body. A shorter line ends the body.
pub(super) const COLUMNS: usize = 64;

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text).ok()
}
