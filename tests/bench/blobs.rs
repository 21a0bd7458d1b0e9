//! Page blobs, on the server of `vhd serve azure`: beside azcopy on this machine, and with a delay added to each request.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::Result;
use super::cases::{Bench, vhd};
use super::data::must_be_same;
use super::peers::sync;
use super::run::{Case, Contender, NeedsRoot, Step, Target};

/// Added to each request.
const DELAY: Duration = Duration::from_millis(20);

/// A process that is ended when this is dropped.
struct Running(Child);

impl Running {
    /// Starts it, and returns the first line that it prints.
    fn start(command: &mut Command) -> Result<(Self, String)> {
        let mut process = Self(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?,
        );
        let out = process.0.stdout.take().ok_or("no output")?;
        let mut lines = BufReader::new(out).lines();
        let first = lines.next().ok_or("the server printed nothing")??;
        thread::spawn(move || lines.for_each(drop));
        Ok((process, first))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server, and a proxy before it that delays requests.
struct Lab {
    direct: String,
    delayed: String,
    sas: String,
    azcopy: Option<PathBuf>,
    folder: PathBuf,
    _running: [Running; 2],
}

impl Lab {
    fn start(bench: &Bench) -> Result<Rc<Self>> {
        let folder = bench.file("served")?;
        let (server, line) = Running::start(
            Command::new(env!("CARGO_BIN_EXE_vhd"))
                .args([
                    "serve",
                    "azure",
                    "--account",
                    "local",
                    "--listen",
                    "0",
                    "--store",
                ])
                .arg(&folder),
        )?;
        let root = line.trim_start_matches("# ").split(',').next();
        let host = root.and_then(|root| root.split("//").nth(1));
        let host = host
            .ok_or("the server printed no address")?
            .trim_end_matches('/');
        let (proxy, port) = Running::start(
            Command::new(std::env::current_exe()?)
                .arg("--delaying-proxy")
                .arg(host),
        )?;
        let text = fs::read_to_string(folder.join("azure.json"))?;
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let key = value["account_key"]
            .as_str()
            .ok_or("the server has no key")?;
        let sas = account_sas("local", key)?;
        create_container(host, &format!("/local/disks?restype=container&{sas}"))?;
        let address = |host: &str| format!("http://{host}/local/disks");
        Ok(Rc::new(Self {
            direct: address(host),
            delayed: address(port.trim()),
            sas,
            azcopy: azcopy(),
            folder: bench.file("azcopy")?,
            _running: [server, proxy],
        }))
    }

    fn url(&self, base: &str, blob: &str) -> String {
        format!("{base}/{blob}?{}", self.sas)
    }

    /// azcopy, as fast as it is without being told anything.
    fn azcopy(&self, words: &[&str]) -> Option<Step> {
        let step = Step::new("env")
            .arg(format!("AZCOPY_LOG_LOCATION={}", self.folder.display()))
            .arg(format!(
                "AZCOPY_JOB_PLAN_LOCATION={}",
                self.folder.display()
            ))
            .arg("AZCOPY_DISABLE_SYSLOG=true")
            .arg(self.azcopy.as_ref()?)
            .words("copy --skip-version-check --output-level=quiet --log-level=NONE");
        Some(words.iter().fold(step, Step::arg))
    }

    fn download_by_azcopy(&self, url: &str, to: &Path) -> Option<Step> {
        self.azcopy(&[url, &to.display().to_string(), "--from-to=BlobLocal"])
    }

    fn upload_by_azcopy(&self, from: &Path, url: &str) -> Option<Step> {
        let from = from.display().to_string();
        self.azcopy(&[&from, url, "--from-to=LocalBlob", "--blob-type=PageBlob"])
    }
}

fn create_container(host: &str, target: &str) -> Result<()> {
    let mut stream = TcpStream::connect(host)?;
    write!(
        stream,
        "PUT {target} HTTP/1.1\r\nHost: {host}\r\nx-ms-version: 2021-12-02\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.contains(" 201 ") {
        return Ok(());
    }
    Err(format!("the container wasn't created: {answer}").into())
}

/// Where tests/run installs it, else in the path.
fn azcopy() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/azcopy/node_modules");
    let mut folders = vec![tools];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if is_program(&path) {
                return Some(path);
            }
        }
    }
    let found = Command::new("azcopy")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    found
        .is_ok_and(|status| status.success())
        .then(|| "azcopy".into())
}

fn is_program(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().and_then(Path::file_name);
    name.starts_with("azcopy") && folder.is_some_and(|folder| folder == "bin")
}

/// A signature for everything in the account.
fn account_sas(account: &str, key: &str) -> Result<String> {
    let (version, services, types, permissions) = ("2021-12-02", "b", "sco", "rwdlac");
    let until = "2099-01-01T00:00:00Z";
    let text =
        format!("{account}\n{permissions}\n{services}\n{types}\n\n{until}\n\n\n{version}\n\n");
    let mut hmac = Hmac::<Sha256>::new_from_slice(&BASE64_STANDARD.decode(key)?)?;
    hmac.update(text.as_bytes());
    let signature = BASE64_STANDARD.encode(hmac.finalize().into_bytes());
    let signature = signature
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    Ok(format!(
        "sv={version}&ss={services}&srt={types}&sp={permissions}&se=2099-01-01T00%3A00%3A00Z&sig={signature}"
    ))
}

/// Passes connections on to `server`, and every answer that begins after a request later by [`DELAY`].
pub(crate) fn delaying_proxy(server: &str) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for client in listener.incoming() {
        let (client, server) = (client?, TcpStream::connect(server)?);
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let asked = Arc::new(AtomicBool::new(false));
        let (from, to, flag) = (client.try_clone()?, server.try_clone()?, Arc::clone(&asked));
        thread::spawn(move || pass(&from, &to, || flag.store(true, Ordering::SeqCst)));
        thread::spawn(move || {
            pass(&server, &client, || {
                if asked.swap(false, Ordering::SeqCst) {
                    thread::sleep(DELAY);
                }
            });
        });
    }
    Ok(())
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, before: impl Fn()) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        before();
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn missing(lab: &Lab) -> Result<()> {
    if lab.azcopy.is_some() {
        return Ok(());
    }
    Err(NeedsRoot("azcopy is missing: tests/run installs it".into()).into())
}

/// The image as a blob.
fn uploaded(lab: &Lab, image: &Path, blob: &str) -> Result<String> {
    let url = lab.url(&lab.direct, blob);
    vhd("convert -q --force -f raw -O raw")
        .arg(image)
        .arg(&url)
        .run()?;
    Ok(url)
}

pub(crate) fn download(bench: &Bench) -> Result<Case> {
    let (lab, image) = (Lab::start(bench)?, bench.pair()?.base);
    missing(&lab)?;
    uploaded(&lab, &image, "down.raw")?;
    let mut contenders = Vec::new();
    for (ours, theirs, theirs_synced, base) in [
        ("vhd convert", "azcopy", "azcopy, sync", &lab.direct),
        (
            "vhd convert, 20 ms",
            "azcopy, 20 ms",
            "azcopy, 20 ms, sync",
            &lab.delayed,
        ),
    ] {
        let url = lab.url(base, "down.raw");
        let out = bench.file("out.raw")?;
        let contender = |name, steps: Vec<Step>| {
            let (lab, image, file) = (Rc::clone(&lab), image.clone(), out.clone());
            let contender = Contender::new(name).output(&out).check(move || {
                let _ = &lab;
                must_be_same(&file, &image)
            });
            steps.into_iter().fold(contender, Contender::step)
        };
        let step = vhd("convert -q -f raw -O raw").arg(&url).arg(&out);
        contenders.push(contender(ours, vec![step]));
        let step = lab.download_by_azcopy(&url, &out).ok_or("no azcopy")?;
        contenders.push(contender(theirs, vec![step.clone()]));
        contenders.push(contender(theirs_synced, vec![step, sync(&out)]));
    }
    Ok(Case {
        contenders,
        targets: targets(
            "vhd convert",
            "vhd convert, 20 ms",
            ["azcopy", "azcopy, 20 ms"],
        ),
    })
}

pub(crate) fn upload(bench: &Bench) -> Result<Case> {
    let (lab, image) = (Lab::start(bench)?, bench.pair()?.base);
    missing(&lab)?;
    let mut contenders = Vec::new();
    for (ours, theirs, base) in [
        ("vhd convert", "azcopy", &lab.direct),
        ("vhd convert, 20 ms", "azcopy, 20 ms", &lab.delayed),
    ] {
        let contender = |name, blob: &str, step: Step| {
            let (lab, image) = (Rc::clone(&lab), image.clone());
            let (direct, out) = (lab.url(&lab.direct, blob), bench.file("back.raw")?);
            let contender = Contender::new(name).step(step).check(move || {
                let _ = &lab;
                vhd("convert -q --force -f raw -O raw")
                    .arg(&direct)
                    .arg(&out)
                    .run()?;
                must_be_same(&out, &image)
            });
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(contender)
        };
        let blob = format!("up-{}.raw", contenders.len());
        let step = vhd("convert -q --force -f raw -O raw").arg(&image);
        contenders.push(contender(ours, &blob, step.arg(lab.url(base, &blob)))?);
        let blob = format!("up-{}.raw", contenders.len());
        let step = lab.upload_by_azcopy(&image, &lab.url(base, &blob));
        contenders.push(contender(theirs, &blob, step.ok_or("no azcopy")?)?);
    }
    Ok(Case {
        contenders,
        targets: targets(
            "vhd convert",
            "vhd convert, 20 ms",
            ["azcopy", "azcopy, 20 ms"],
        ),
    })
}

/// As fast as azcopy, and hardly slower with the delay: with so many requests under way, the server is the limit.
fn targets(direct: &'static str, delayed: &'static str, peers: [&'static str; 2]) -> Vec<Target> {
    let at_least = |ours, peer| Target::AtLeastTimesAsFast {
        ours,
        peer,
        limit: 1.0,
    };
    let memory = |ours| Target::PeakMiB { ours, limit: 256.0 };
    vec![
        at_least(direct, peers[0]),
        at_least(delayed, peers[1]),
        Target::AtMostTimesAsLong {
            ours: delayed,
            peer: direct,
            limit: 1.3,
        },
        memory(direct),
        memory(delayed),
    ]
}
