//! The names of the image formats.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::{foreign, is_named_part};
use crate::error::{Error, Result};
use crate::vhd::is_named_vhd;

/// How a stored file represents a virtual disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// The bytes of the file are the virtual disk.
    Raw,
    /// A VHD with all bytes of the virtual disk, followed by a footer.
    Fixed,
    /// A VHD with only the blocks that were written.
    Dynamic,
    /// A VHD with the data that differs from another image, its parent.
    Differencing,
}

impl Format {
    /// `raw`, `fixed`, `dynamic` or `differencing`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Fixed => "fixed",
            Self::Dynamic => "dynamic",
            Self::Differencing => "differencing",
        }
    }

    /// The format implied by the name of a new image: a dynamic VHD for `.vhd` and `.avhd`, otherwise raw.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::ErrorKind::Usage) for the name of a format that can't be written, such as `.vhdx`.
    pub fn by_name(path: &Path) -> Result<Self> {
        if is_named_vhd(path) {
            return Ok(Self::Dynamic);
        }
        let what = match foreign::named(path) {
            Some(kind) => kind.name,
            None if is_named_part(path) => "a part of a split image",
            None => return Ok(Self::Raw),
        };
        Err(Error::usage(format!(
            "this is the name of {what}, which is not written here"
        ))
        .with_path(path)
        .with_hint("name it .vhd for a VHD or .raw for a raw disk, or choose its format"))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Raw, Self::Fixed, Self::Dynamic, Self::Differencing]
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| {
                Error::usage("this is not an image format")
                    .with_found(text)
                    .with_expected("raw, fixed, dynamic or differencing")
            })
    }
}

/// The format of an image as specified by the caller, instead of detecting it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FormatChoice {
    /// A VHD of any type.
    AnyVhd,
    /// Exactly this one.
    Only(Format),
}

impl FormatChoice {
    /// Returns whether `format` agrees with the choice.
    pub fn allows(self, format: Format) -> bool {
        match self {
            Self::AnyVhd => format != Format::Raw,
            Self::Only(only) => only == format,
        }
    }
}

impl From<Format> for FormatChoice {
    fn from(format: Format) -> Self {
        Self::Only(format)
    }
}

impl fmt::Display for FormatChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyVhd => f.write_str("vhd"),
            Self::Only(format) => format.fmt(f),
        }
    }
}

impl FromStr for FormatChoice {
    type Err = Error;

    /// Parses the name of a format, or `vhd` or `vpc` for any VHD.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "vhd" | "vpc" => Ok(Self::AnyVhd),
            _ => text.parse().map(Self::Only),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_printed() {
        for format in [
            Format::Raw,
            Format::Fixed,
            Format::Dynamic,
            Format::Differencing,
        ] {
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
            let choice = FormatChoice::from(format);
            assert_eq!(choice.to_string().parse::<FormatChoice>().unwrap(), choice);
        }
        assert_eq!("vpc".parse::<FormatChoice>().unwrap(), FormatChoice::AnyVhd);
        assert!("qcow2".parse::<FormatChoice>().is_err());
    }

    #[test]
    fn any_vhd_is_not_raw() {
        assert!(FormatChoice::AnyVhd.allows(Format::Fixed));
        assert!(FormatChoice::AnyVhd.allows(Format::Dynamic));
        assert!(!FormatChoice::AnyVhd.allows(Format::Raw));
        assert!(!FormatChoice::Only(Format::Fixed).allows(Format::Dynamic));
    }
}
