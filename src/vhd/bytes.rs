//! Small helpers of the structures: pieces of byte arrays, and the listing of fields.

/// One field of an on-disk structure, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Offset within the structure, in bytes.
    pub offset: usize,
    /// Name as in the specification.
    pub name: String,
    /// Value, with its meaning where it has one.
    pub value: String,
}

impl Field {
    pub(super) fn new(offset: usize, name: impl Into<String>, value: impl ToString) -> Self {
        Self {
            offset,
            name: name.into(),
            value: value.to_string(),
        }
    }
}

/// The `N` bytes at `at`, a constant place within a structure.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// `all zero`, or the nonzero bytes of a reserved area.
pub(super) fn reserved(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
        if text.len() > 60 {
            text += " …";
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text += &format!("[{at}]=0x{byte:02x}");
    }
    if text.is_empty() {
        "all zero".into()
    } else {
        text
    }
}
