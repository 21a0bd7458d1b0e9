//! The two directions of a reversible diff.

/// The direction in which frames of a diff lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// From the base to the target, as in every diff.
    #[default]
    Forward,
    /// From the target to the base: in a reversible diff.
    Back,
}

impl Direction {
    /// Both directions.
    pub(crate) const BOTH: [Self; 2] = [Self::Forward, Self::Back];

    /// The opposite direction.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Forward => Self::Back,
            Self::Back => Self::Forward,
        }
    }

    /// The stored form of a section type in this direction: lower case for the way back.
    pub(crate) fn section(self, kind: [u8; 4]) -> [u8; 4] {
        match self {
            Self::Forward => kind,
            Self::Back => kind.map(|letter| letter.to_ascii_lowercase()),
        }
    }

    /// Splits a stored section type into its direction and its form in the forward direction. Mixed case isn't a valid
    /// type.
    pub(crate) fn of(kind: [u8; 4]) -> (Self, [u8; 4]) {
        if kind.iter().all(u8::is_ascii_lowercase) {
            (Self::Back, kind.map(|letter| letter.to_ascii_uppercase()))
        } else {
            (Self::Forward, kind)
        }
    }
}
