//! Unique ids: sixteen bytes, compared as bytes.

use std::fmt;

use uuid::Uuid;

/// `footer.unique_id`. Writers disagree on the byte order (Windows stores a GUID in its memory layout, others store
/// big-endian text), so ids are compared as bytes and displayed in both forms.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UniqueId(pub [u8; 16]);

impl UniqueId {
    /// A random id (UUID version 4, stored big-endian).
    pub fn random() -> Self {
        Self(*Uuid::new_v4().as_bytes())
    }

    /// Returns whether all bytes are zero.
    pub fn is_nil(&self) -> bool {
        self.0 == [0; 16]
    }

    /// The bytes in their order, as text: correct for Virtual PC, qemu, tapdisk and this program.
    pub fn big_endian(&self) -> String {
        Uuid::from_bytes(self.0).to_string()
    }

    /// The text of a GUID whose first three fields are little-endian: correct for Windows and most of its tools.
    pub fn guid_layout(&self) -> String {
        Uuid::from_bytes_le(self.0).to_string()
    }
}

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.big_endian())
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UniqueId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_shown() {
        let id = UniqueId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(id.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(id.guid_layout(), "03020100-0504-0706-0809-0a0b0c0d0e0f");
    }

    #[test]
    fn random_ids_differ_and_are_version_4() {
        let (a, b) = (UniqueId::random(), UniqueId::random());
        assert_ne!(a, b);
        assert_eq!(a.0[6] >> 4, 4);
        assert!(!a.is_nil() && UniqueId::default().is_nil());
    }
}
