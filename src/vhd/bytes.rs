//! Helpers for on-disk structures: slices of byte arrays, and lists of fields.

use std::fmt;

/// One field of an on-disk structure, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Offset within the structure, in bytes.
    pub offset: usize,
    /// Name as in the specification.
    pub name: String,
    /// Value, with an explanation if there is one.
    pub value: String,
}

impl Field {
    pub(super) fn new(offset: usize, name: impl Into<String>, value: &dyn fmt::Display) -> Self {
        Self {
            offset,
            name: name.into(),
            value: value.to_string(),
        }
    }
}

/// The `N` bytes at `at`, a constant offset within a structure.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Describes a reserved area: `all zero`, or its nonzero bytes.
pub(super) fn reserved(bytes: &[u8]) -> String {
    let nonzero = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0);
    let count = nonzero.clone().count();
    let mut listed: Vec<String> = nonzero
        .take(8)
        .map(|(at, byte)| format!("[{at}]={byte:#04x}"))
        .collect();
    if count > listed.len() {
        listed.push(format!("and {} more", count - listed.len()));
    }
    if listed.is_empty() {
        return "all zero".into();
    }
    listed.join(" ")
}
