//! The two ways that a reversible diff leads.

/// Where the frames of a diff lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// From the base to the target, as in every diff.
    #[default]
    Forward,
    /// From the target to the base: in a reversible diff.
    Back,
}

impl Direction {
    /// Both.
    pub(crate) const BOTH: [Self; 2] = [Self::Forward, Self::Back];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Forward => Self::Back,
            Self::Back => Self::Forward,
        }
    }

    /// A section type as it stands on this way: in lower case on the way back.
    pub(crate) fn section(self, kind: [u8; 4]) -> [u8; 4] {
        match self {
            Self::Forward => kind,
            Self::Back => kind.map(|letter| letter.to_ascii_lowercase()),
        }
    }

    /// The way of a section type, and the type as it stands on the way forward. Letters in both cases are no type.
    pub(crate) fn of(kind: [u8; 4]) -> (Self, [u8; 4]) {
        if kind.iter().all(u8::is_ascii_lowercase) {
            (Self::Back, kind.map(|letter| letter.to_ascii_uppercase()))
        } else {
            (Self::Forward, kind)
        }
    }
}
