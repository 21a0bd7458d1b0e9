//! How each tool makes a diff and applies it.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::disk::{program, run};

/// No tool needs a tenth of this.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) ours: bool,
    /// Makes `diff` of `base` and `target` in a folder.
    pub(crate) make: fn(&Path),
    /// Applies `diff` to `base` in a folder; how it ended, and what it said.
    pub(crate) apply: fn(&Path) -> (Ended, String),
    /// The file that shall then hold the target.
    pub(crate) result: &'static str,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    /// By a signal.
    Killed,
    /// It didn't.
    Hung,
}

pub(crate) const TOOLS: &[Tool] = &[
    Tool {
        name: "vhd-apply, in place",
        ours: true,
        make: |folder| {
            let line = "vhd-diff base target -o diff -q --base-format raw --target-format raw";
            make(folder, line);
        },
        apply: |folder| apply(folder, "vhd-apply base diff -f raw"),
        result: "base",
    },
    Tool {
        name: "vhd-apply -o",
        ours: true,
        make: |folder| {
            let line = "vhd-diff base target -o diff -q --base-format raw --target-format raw";
            make(folder, line);
        },
        apply: |folder| apply(folder, "vhd-apply base diff -f raw -o new -O raw"),
        result: "new",
    },
    Tool {
        name: "rdiff",
        ours: false,
        make: |folder| {
            make(folder, "rdiff signature base sums");
            make(folder, "rdiff delta sums target diff");
        },
        apply: |folder| apply(folder, "rdiff patch base diff new"),
        result: "new",
    },
    Tool {
        name: "bsdiff",
        ours: false,
        make: |folder| make(folder, "bsdiff base target diff"),
        apply: |folder| apply(folder, "bspatch base new diff"),
        result: "new",
    },
    Tool {
        name: "qemu-img commit",
        ours: false,
        make: |folder| {
            make(folder, "qemu-img create -q -f qcow2 -F raw -b target diff");
            make(folder, "qemu-img rebase -f qcow2 -F raw -b base diff");
        },
        apply: |folder| apply(folder, "qemu-img commit -q diff"),
        result: "base",
    },
    Tool {
        name: "rsync --read-batch",
        ours: false,
        make: |folder| {
            let line = "rsync --no-whole-file --inplace --ignore-times --only-write-batch=diff target base";
            make(folder, line);
        },
        apply: |folder| {
            apply(
                folder,
                "rsync --no-whole-file --inplace --ignore-times --read-batch=diff base",
            )
        },
        result: "base",
    },
    Tool {
        name: "xdelta3",
        ours: false,
        make: |folder| make(folder, "xdelta3 -e -1 -S none -s base target diff"),
        apply: |folder| apply(folder, "xdelta3 -d -s base diff new"),
        result: "new",
    },
];

fn command(folder: &Path, line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = program(words.next().unwrap());
    command.args(words).current_dir(folder);
    command
}

fn make(folder: &Path, line: &str) {
    run(&mut command(folder, line));
}

fn apply(folder: &Path, line: &str) -> (Ended, String) {
    let mut running = command(folder, line)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = running.stderr.take().unwrap();
    let said = thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr
            .read_to_end(&mut bytes)
            .map(|_| bytes)
            .unwrap_or_default()
    });
    let begun = Instant::now();
    let ended = loop {
        match running.try_wait().unwrap() {
            Some(status) => break status.code().map_or(Ended::Killed, Ended::Code),
            None if begun.elapsed() > PATIENCE => {
                running.kill().unwrap();
                running.wait().unwrap();
                break Ended::Hung;
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    let said = match ended {
        // Its own children may still hold the pipe.
        Ended::Hung => Vec::new(),
        _ => said.join().unwrap(),
    };
    (ended, String::from_utf8_lossy(&said).into_owned())
}
