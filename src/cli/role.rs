//! The purposes of paths on the command line.

/// The purpose of a path on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// An image to read, or a point in time.
    Image,
    /// An image to read, a point in time, a disk with all of them, or a store.
    Served,
    /// An image that must be a file, because its file is what the command is about.
    ImageFile,
    /// A diff or a list to read, or a pipe.
    Input,
    /// A file to read that can't be a pipe.
    InputFile,
    /// A new image or diff, or a pipe.
    Output,
    /// A new file that can't be a pipe.
    OutputFile,
    /// A store.
    Store,
    /// The target store of a copy; the command itself checks it, because it can suggest how to send instead.
    StoreTo,
    /// Any other folder.
    Folder,
}
