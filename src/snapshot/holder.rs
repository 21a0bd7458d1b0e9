//! Who holds a lock: a few lines that the holder writes into the lock file, so that a message can name the command that is
//! in the way. Nothing is decided by them: the lock itself is the only thing that keeps commands apart.

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use super::Time;
use crate::storage::{host_name, is_running_here, read_holder};

/// What this program calls itself.
static COMMAND: OnceLock<String> = OnceLock::new();

/// Says what others are told of a lock that this process holds, such as `vhd snapshot create`: words only, no arguments.
/// The first call counts.
pub fn call_this_command(words: &str) {
    let _ = COMMAND.set(words.to_owned());
}

/// Who holds, or held, the lock of a disk, as it said itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The command.
    pub command: String,
    /// The number of its process.
    pub process: u32,
    /// The name of the host that it runs on.
    pub host: String,
    /// When it took the lock.
    pub since: Time,
}

impl Holder {
    /// This process, now.
    pub(super) fn this() -> Self {
        let command = COMMAND.get().map_or("another program", String::as_str);
        Self {
            command: command.to_owned(),
            process: std::process::id(),
            host: host_name(),
            since: Time::now(),
        }
    }

    /// What the lock file at `path` says; `None` if it says nothing, nothing that can be understood, or names a process
    /// of this host that doesn't run any more.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let holder = Self::parse(&read_holder(path)?)?;
        let gone = holder.host == host_name() && !is_running_here(holder.process);
        (!gone).then_some(holder)
    }

    /// The text in the lock file.
    pub(super) fn text(&self) -> String {
        format!(
            "command: {}\nprocess: {}\nhost: {}\nsince: {}\n",
            self.command, self.process, self.host, self.since
        )
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let member = |name: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        Some(Self {
            command: member("command")?,
            process: member("process")?.parse().ok()?,
            host: member("host")?,
            since: member("since")?.parse().ok()?,
        })
    }
}

/// `vhd snapshot create (since 2026-11-20T06:00:00Z, on nas, process 4711)`.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (since {}, on {}, process {})",
            self.command, self.since, self.host, self.process
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_holder_writes_is_understood_and_nothing_else() {
        let this = Holder::this();
        assert_eq!(Holder::parse(&this.text()), Some(this.clone()));
        assert!(is_running_here(this.process));
        for other in [
            "",
            "x",
            "command: \nprocess: 1\nhost: a\nsince: 2026-11-20T06:00:00Z",
        ] {
            assert_eq!(Holder::parse(other), None, "{other}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(Holder::of(&path), None);
        std::fs::write(&path, this.text()).unwrap();
        assert_eq!(Holder::of(&path), Some(this.clone()));
        let gone = Holder {
            process: i32::MAX.unsigned_abs(),
            ..this.clone()
        };
        std::fs::write(&path, gone.text()).unwrap();
        assert_eq!(Holder::of(&path), None, "it doesn't run any more");
        let far = Holder {
            host: "elsewhere".to_owned(),
            ..gone
        };
        std::fs::write(&path, far.text()).unwrap();
        assert_eq!(Holder::of(&path), Some(far), "it may run there");
        std::fs::write(&path, vec![b'x'; 4096]).unwrap();
        assert_eq!(Holder::of(&path), None);
    }
}
