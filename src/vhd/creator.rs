//! The creator of a VHD: application, version, operating system.

use std::fmt;

/// `footer.creator_application`: four bytes, mostly text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CreatorApplication(pub [u8; 4]);

impl CreatorApplication {
    /// This program. Other readers don't know it, so all of them use `current_size` as the size.
    pub const OURS: Self = Self(*b"vhdk");

    /// The program's name, if known.
    pub fn name(self) -> Option<&'static str> {
        Some(match &self.0 {
            b"vhdk" => "vhdkit",
            b"vpc " => "Virtual PC",
            b"vs  " => "Virtual Server",
            b"win " => "Windows",
            b"d2v\0" => "disk2vhd",
            b"qemu" => "qemu",
            b"qem2" => "qemu, exact size",
            b"vbox" => "VirtualBox",
            b"tap\0" => "XenServer tapdisk",
            b"CTXS" => "XenConvert",
            b"wa\0\0" => "Azure",
            b"dutl" => "DiscUtils",
            b"mVHD" => "MiniVHD",
            b"go-v" => "go-vhd",
            b"xo  " => "Xen Orchestra",
            b"aaru" => "Aaru",
            b"dic " => "DiskImageCreator",
            b"\0\0\0\0" => "not stated",
            _ => return None,
        })
    }

    /// Returns whether some readers (including qemu) use the CHS geometry of such a file as its size instead of
    /// `current_size`.
    pub fn size_may_be_read_from_geometry(self) -> bool {
        matches!(&self.0, b"vpc " | b"vs  " | b"qemu")
    }
}

impl fmt::Display for CreatorApplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_code(f, self.0, self.name())
    }
}

/// `footer.creator_host_os`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostOs(pub [u8; 4]);

impl HostOs {
    /// Windows, which every reader expects.
    pub const WINDOWS: Self = Self(*b"Wi2k");

    /// The system's name, if known.
    pub fn name(self) -> Option<&'static str> {
        Some(match &self.0 {
            b"Wi2k" => "Windows",
            b"Mac " => "Macintosh",
            b"\0\0\0\0" => "not stated",
            _ => return None,
        })
    }
}

impl fmt::Display for HostOs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_code(f, self.0, self.name())
    }
}

/// A version: major in the upper half, minor in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// Version 1.0, the only one of footer and dynamic disk header.
    pub const ONE: Self = Self(0x0001_0000);

    /// The major version, which determines compatibility.
    pub const fn major(self) -> u32 {
        self.0 >> 16
    }

    /// The minor version, which doesn't affect compatibility.
    pub const fn minor(self) -> u32 {
        self.0 & 0xFFFF
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

pub(super) fn write_code(
    f: &mut fmt::Formatter<'_>,
    code: [u8; 4],
    name: Option<&str>,
) -> fmt::Result {
    write!(f, "\"{}\"", code.escape_ascii())?;
    match name {
        Some(name) => write!(f, " ({name})"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_print_with_their_names() {
        assert_eq!(
            CreatorApplication(*b"vpc ").to_string(),
            "\"vpc \" (Virtual PC)"
        );
        assert_eq!(
            CreatorApplication(*b"x\0y\xFF").to_string(),
            "\"x\\x00y\\xff\""
        );
        assert_eq!(HostOs::WINDOWS.to_string(), "\"Wi2k\" (Windows)");
        assert_eq!(Version(0x0006_0003).to_string(), "6.3");
    }

    #[test]
    fn our_code_is_read_by_current_size() {
        assert!(!CreatorApplication::OURS.size_may_be_read_from_geometry());
        assert!(CreatorApplication(*b"qemu").size_may_be_read_from_geometry());
    }
}
