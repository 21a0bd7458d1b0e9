//! Runs cases: every contender in turn, round after round, each command timed from outside.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::Result;

/// What only root can do here: why a case is left out.
#[derive(Debug)]
pub(crate) struct NeedsRoot(pub(crate) String);

impl fmt::Display for NeedsRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NeedsRoot {}

/// Programs that do the same job, and what is expected of ours.
pub(crate) struct Case {
    pub(crate) contenders: Vec<Contender>,
    pub(crate) targets: Vec<Target>,
}

/// A command, or several that together do the job.
pub(crate) struct Contender {
    name: &'static str,
    steps: Vec<Step>,
    before: Vec<Action>,
    check: Vec<Action>,
    output: Option<PathBuf>,
}

type Action = Box<dyn Fn() -> Result<()>>;

impl Contender {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            steps: Vec::new(),
            before: Vec::new(),
            check: Vec::new(),
            output: None,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Adds a command; all are timed together.
    pub(crate) fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Adds what is done before each round, untimed.
    pub(crate) fn before(mut self, action: impl Fn() -> Result<()> + 'static) -> Self {
        self.before.push(Box::new(action));
        self
    }

    /// Adds a check of the result, made in the first round.
    pub(crate) fn check(mut self, action: impl Fn() -> Result<()> + 'static) -> Self {
        self.check.push(Box::new(action));
        self
    }

    /// Names the file that comes out: removed before each round, its stored size is shown.
    pub(crate) fn output(mut self, path: &Path) -> Self {
        let file = path.to_path_buf();
        self.output = Some(file.clone());
        self.before(move || remove(&file))
    }
}

/// One command line.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    words: Vec<OsString>,
    code: i32,
    stdout: Option<PathBuf>,
}

impl Step {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            words: vec![program.as_ref().into()],
            code: 0,
            stdout: None,
        }
    }

    pub(crate) fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().into());
        self
    }

    /// Adds words divided by spaces.
    pub(crate) fn words(self, words: &str) -> Self {
        words.split_whitespace().fold(self, Self::arg)
    }

    /// The exit code that means success, if it isn't 0.
    pub(crate) fn ends_with(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// Keeps what the command prints; otherwise that goes to a file and is lost. It never goes to /dev/null, since
    /// some programs then do less.
    pub(crate) fn stdout(mut self, path: &Path) -> Self {
        self.stdout = Some(path.to_path_buf());
        self
    }

    /// Runs the command untimed.
    pub(crate) fn run(&self) -> Result<()> {
        self.timed().map(drop)
    }

    fn timed(&self) -> Result<Sample> {
        let usage = tempfile::NamedTempFile::new()?;
        let stdout = match &self.stdout {
            Some(path) => File::create(path)?,
            None => tempfile::tempfile()?,
        };
        let mut command = Command::new("time"); // GNU time, found by PATH
        command
            .args(["-q", "-f", "%U %S %M", "-o"])
            .arg(usage.path())
            .args(&self.words)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped());
        let start = Instant::now();
        let output = command.output()?;
        let seconds = start.elapsed().as_secs_f64();
        if output.status.code() != Some(self.code) {
            let line = self.words.join(OsStr::new(" "));
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "{}\nended with {}, expected exit code {}: {stderr}",
                line.display(),
                output.status,
                self.code
            )
            .into());
        }
        Sample::parse(seconds, &fs::read_to_string(usage.path())?)
    }
}

/// What a round cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    /// Seconds that processors were busy, in the program and in the kernel for it.
    pub(crate) cpu: f64,
    /// Most memory that a process held at once, in bytes.
    pub(crate) peak: f64,
}

impl Sample {
    /// Takes what GNU time wrote: user seconds, system seconds, KiB.
    fn parse(seconds: f64, usage: &str) -> Result<Self> {
        let numbers: Vec<f64> = usage
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        match numbers[..] {
            [user, system, kib] => Ok(Self {
                seconds,
                cpu: user + system,
                peak: kib * 1024.0,
            }),
            _ => Err(format!("`time` wrote {usage:?}").into()),
        }
    }

    fn then(self, next: Self) -> Self {
        Self {
            seconds: self.seconds + next.seconds,
            cpu: self.cpu + next.cpu,
            peak: self.peak.max(next.peak),
        }
    }
}

/// What a case showed.
#[derive(Debug)]
pub(crate) struct CaseResult {
    pub(crate) name: &'static str,
    pub(crate) contenders: Vec<ContenderResult>,
    pub(crate) targets: Vec<Target>,
}

/// What a contender showed.
#[derive(Debug)]
pub(crate) struct ContenderResult {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<Sample>,
    /// Bytes that its output takes on the disk.
    pub(crate) stored: Option<u64>,
}

impl ContenderResult {
    pub(crate) fn seconds(&self) -> f64 {
        median(self.samples.iter().map(|s| s.seconds))
    }

    pub(crate) fn cpu(&self) -> f64 {
        median(self.samples.iter().map(|s| s.cpu))
    }

    pub(crate) fn peak(&self) -> f64 {
        self.samples.iter().map(|s| s.peak).fold(0.0, f64::max)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// What is expected of one of our programs in a case.
#[derive(Debug)]
pub(crate) enum Target {
    /// Takes at most `limit` times as long as the peer.
    AtMostTimesAsLong {
        ours: &'static str,
        peer: &'static str,
        limit: f64,
    },
    /// Is at least `limit` times as fast as the peer.
    AtLeastTimesAsFast {
        ours: &'static str,
        peer: &'static str,
        limit: f64,
    },
    /// Takes at most `limit` seconds.
    Seconds { ours: &'static str, limit: f64 },
    /// Its output takes at most so many bytes.
    StoredAtMost { ours: &'static str, bytes: u64 },
    /// Holds at most `limit` MiB of memory.
    PeakMiB { ours: &'static str, limit: f64 },
}

/// A target beside what was measured.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) text: String,
    pub(crate) measured: f64,
    pub(crate) limit: f64,
    pub(crate) met: bool,
}

impl CaseResult {
    /// A case of which nothing is known yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            contenders: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// The verdict on each target whose contenders were measured.
    pub(crate) fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.targets
            .iter()
            .filter_map(|target| self.verdict(target))
    }

    fn verdict(&self, target: &Target) -> Option<Verdict> {
        let find = |name: &str| self.contenders.iter().find(|c| c.name == name);
        let ratio = |a: &str, b: &str| Some(find(a)?.seconds() / find(b)?.seconds());
        let (text, measured, limit, met) = match *target {
            Target::AtMostTimesAsLong { ours, peer, limit } => {
                let measured = ratio(ours, peer)?;
                let text = format!("{ours}: at most {limit} x the time of {peer}");
                (text, measured, limit, measured <= limit)
            }
            Target::AtLeastTimesAsFast { ours, peer, limit } => {
                let measured = ratio(peer, ours)?;
                let text = format!("{ours}: at least {limit} x as fast as {peer}");
                (text, measured, limit, measured >= limit)
            }
            Target::Seconds { ours, limit } => {
                let measured = find(ours)?.seconds();
                let text = format!("{ours}: at most {limit} s");
                (text, measured, limit, measured <= limit)
            }
            Target::StoredAtMost { ours, bytes } => {
                let mib = |bytes: u64| Some(f64::from(u32::try_from(bytes >> 10).ok()?) / 1024.0);
                let (measured, limit) = (mib(find(ours)?.stored?)?, mib(bytes)?);
                let text = format!("{ours}: at most {limit:.1} MiB stored");
                (text, measured, limit, measured <= limit)
            }
            Target::PeakMiB { ours, limit } => {
                let measured = find(ours)?.peak() / f64::from(1 << 20);
                let text = format!("{ours}: at most {limit} MiB of memory");
                (text, measured, limit, measured <= limit)
            }
        };
        Some(Verdict {
            text: format!("{}: {text}", self.name),
            measured,
            limit,
            met,
        })
    }
}

/// Runs a case: a round that is checked and not counted, then `rounds` that count.
pub(crate) fn case(name: &'static str, case: Case, rounds: usize) -> Result<CaseResult> {
    let mut results: Vec<ContenderResult> = Vec::new();
    for contender in &case.contenders {
        eprintln!("{name}: {} ...", contender.name);
        once(contender).map_err(|e| format!("{name}: {}: {e}", contender.name))?;
        for check in &contender.check {
            check().map_err(|e| format!("{name}: {}: wrong result: {e}", contender.name))?;
        }
        results.push(ContenderResult {
            name: contender.name,
            samples: Vec::new(),
            stored: contender.output.as_deref().map(stored).transpose()?,
        });
    }
    for round in 0..rounds {
        // Each begins a round in its turn: what the one before leaves in memory and caches favours nobody.
        for n in 0..results.len() {
            let n = (round + n) % results.len();
            results[n].samples.push(once(&case.contenders[n])?);
        }
    }
    Ok(CaseResult {
        name,
        contenders: results,
        targets: case.targets,
    })
}

fn once(contender: &Contender) -> Result<Sample> {
    contender.before.iter().try_for_each(|action| action())?;
    measured(&contender.steps)
}

/// What these commands cost together, once.
pub(crate) fn measured(steps: &[Step]) -> Result<Sample> {
    // Nobody pays for what others left to be written.
    rustix::fs::sync();
    steps
        .iter()
        .try_fold(Sample::default(), |sum, step| Ok(sum.then(step.timed()?)))
}

/// Bytes that a file takes on the disk.
fn stored(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)?.blocks().saturating_mul(512))
}

/// Removes a file if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Fails with the names of the packages if a program is missing.
pub(crate) fn check_programs() -> Result<()> {
    for (program, version, package) in [
        ("time", "--version", "time"),
        ("qemu-img", "--version", "qemu-utils"),
        ("cmp", "--version", "diffutils"),
        ("fio", "--version", "fio"),
        ("nbdcopy", "--version", "libnbd-bin"),
        ("qemu-nbd", "--version", "qemu-utils"),
        ("borg", "--version", "borgbackup"),
        ("restic", "version", "restic"),
    ] {
        let found = Command::new(program)
            .arg(version)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(format!(
                "{program} is missing: install the package {package}, or run tests/run once, which does"
            )
            .into());
        }
    }
    Ok(())
}
