//! The programs of this package, by name.

/// The programs of this package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Program {
    Vhd,
    VhdDiff,
    VhdApply,
}

impl Program {
    pub(crate) const ALL: [Self; 3] = [Self::Vhd, Self::VhdDiff, Self::VhdApply];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vhd => "vhd",
            Self::VhdDiff => "vhd-diff",
            Self::VhdApply => "vhd-apply",
        }
    }
}
