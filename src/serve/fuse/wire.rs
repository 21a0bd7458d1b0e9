//! The structures of the FUSE protocol. They never leave the machine, so numbers are in its own byte order.
//!
//! They are defined in `include/uapi/linux/fuse.h` of the kernel.

#![allow(
    clippy::host_endian_bytes,
    reason = "the kernel of this machine speaks its order of bytes"
)]

/// Length of a request's header.
pub(super) const HEAD: usize = 40;

/// The protocol version used here: 7.31, of 2019.
pub(super) const VERSION: (u32, u32) = (7, 31);

/// Kinds of requests.
pub(super) mod op {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const LSEEK: u32 = 46;
}

/// Error numbers of Linux.
pub(super) mod errno {
    pub(crate) const NOENT: i32 = 2;
    pub(crate) const IO: i32 = 5;
    pub(crate) const NXIO: i32 = 6;
    pub(crate) const BADF: i32 = 9;
    pub(crate) const BUSY: i32 = 16;
    pub(crate) const INVAL: i32 = 22;
    pub(crate) const ROFS: i32 = 30;
    pub(crate) const NOSYS: i32 = 38;
    pub(crate) const PROTO: i32 = 71;
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) op: u32,
    pub(super) unique: u64,
    pub(super) node: u64,
    /// The data after the header.
    pub(super) body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let len = u32_at(bytes, 0)? as usize;
        Some(Self {
            op: u32_at(bytes, 4)?,
            unique: u64_at(bytes, 8)?,
            node: u64_at(bytes, 16)?,
            body: bytes.get(HEAD..len)?,
        })
    }

    /// A request of which only the header can be read.
    pub(super) fn unreadable(bytes: &'a [u8]) -> Option<Self> {
        let body = bytes.get(HEAD..)?;
        Some(Self {
            op: u32_at(bytes, 4)?,
            unique: u64_at(bytes, 8)?,
            node: u64_at(bytes, 16)?,
            body: body.get(..0)?,
        })
    }

    pub(super) fn u32(&self, at: usize) -> Option<u32> {
        u32_at(self.body, at)
    }

    pub(super) fn u64(&self, at: usize) -> Option<u64> {
        u64_at(self.body, at)
    }

    /// The name at the beginning of the body.
    pub(super) fn name(&self) -> Option<&'a [u8]> {
        self.body.split(|byte| *byte == 0).next()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

/// A structure under construction.
#[derive(Debug, Default)]
pub(super) struct Out(pub(super) Vec<u8>);

impl Out {
    pub(super) fn u16(mut self, number: u16) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    pub(super) fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    pub(super) fn i32(mut self, number: i32) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    pub(super) fn u64(mut self, number: u64) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    pub(super) fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len().saturating_add(count), 0);
        self
    }
}

/// The result of `stat`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) node: u64,
    pub(super) is_folder: bool,
    pub(super) size: u64,
    /// Bytes that hold data.
    pub(super) stored: u64,
    /// Seconds since 1970.
    pub(super) time: u64,
    pub(super) owner: (u32, u32),
}

impl Attributes {
    pub(super) fn put(&self, out: Out) -> Out {
        let (mode, links) = if self.is_folder {
            (0o40555, 2)
        } else {
            (0o100_444, 1)
        };
        out.u64(self.node)
            .u64(self.size)
            .u64(self.stored.div_ceil(512))
            .u64(self.time)
            .u64(self.time)
            .u64(self.time)
            .zeros(12)
            .u32(mode)
            .u32(links)
            .u32(self.owner.0)
            .u32(self.owner.1)
            .u32(0)
            .u32(4096)
            .u32(0)
    }
}
