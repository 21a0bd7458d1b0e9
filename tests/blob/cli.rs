//! Commands with addresses of page blobs.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use vhdkit::blob::memory::MemoryStore;
use vhdkit::blob::{BlobId, BlobsAsked, Conditions, Metadata, NewBlob, PageStore as _};
use vhdkit::page::PageRange;

use crate::server::{SIGNATURE, Server};

pub(crate) const DISK: usize = 24 << 20;

pub(crate) struct Lab {
    folder: tempfile::TempDir,
    pub(crate) server: Server,
    said: std::cell::RefCell<Vec<u8>>,
}

/// Returns a fixed VHD with some data, as `vhd convert` makes it.
pub(crate) fn disk() -> Vec<u8> {
    let mut bytes = vec![0; DISK];
    for (n, byte) in bytes[4096..3 << 20].iter_mut().enumerate() {
        *byte = (n * 7 % 253) as u8 + 1;
    }
    bytes[17 << 20..(17 << 20) + 512].fill(9);
    bytes
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            server: Server::start(MemoryStore::default(), None),
            said: std::cell::RefCell::default(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// A command in the folder, without access that the environment would give.
    pub(crate) fn command(&self, program: &str) -> Command {
        let programs = [
            ("vhd", env!("CARGO_BIN_EXE_vhd")),
            ("vhd-diff", env!("CARGO_BIN_EXE_vhd-diff")),
            ("vhd-apply", env!("CARGO_BIN_EXE_vhd-apply")),
        ];
        let program = programs
            .iter()
            .find(|(name, _)| *name == program)
            .unwrap()
            .1;
        let mut command = Command::new(program);
        for variable in [
            "AZURE_STORAGE_KEY",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_STORAGE_CONNECTION_STRING",
        ] {
            command.env_remove(variable);
        }
        // No test asks for a managed identity.
        command
            .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
            .env("PATH", self.folder.path())
            .current_dir(self.folder.path());
        command
    }

    pub(crate) fn output(&self, program: &str, args: &[&str]) -> Output {
        let output = self.command(program).args(args).output().unwrap();
        let mut said = self.said.borrow_mut();
        said.extend_from_slice(&output.stdout);
        said.extend_from_slice(&output.stderr);
        output
    }

    /// Runs a command that must exit with this code, and returns its output.
    pub(crate) fn ends(&self, code: i32, program: &str, args: &[&str]) -> String {
        let output = self.output(program, args);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(
            output.status.code(),
            Some(code),
            "{program} {args:?}\n{out}{err}"
        );
        format!("{out}{err}")
    }

    /// Stores the bytes of a file as a blob.
    pub(crate) fn upload(&self, file: &str, blob: &str) -> BlobId {
        Self::upload_to(&self.server.store, file, blob)
    }

    pub(crate) fn upload_to(store: &MemoryStore, file: &str, blob: &str) -> BlobId {
        let (bytes, blob) = (fs::read(file).unwrap(), BlobId::live(blob));
        let any = Conditions::default();
        let new = NewBlob {
            size: bytes.len() as u64,
            ..NewBlob::default()
        };
        store.create(&blob, &new, &any).unwrap();
        for (n, piece) in bytes.chunks(64 << 10).enumerate() {
            if piece.iter().any(|b| *b != 0) {
                store
                    .put_pages(&blob, (n as u64) << 16, piece, &any)
                    .unwrap();
            }
        }
        blob
    }

    /// Nothing that is printed or written grants access.
    pub(crate) fn check_secrets(&self) {
        let mut all = self.said.borrow().clone();
        let mut folders = vec![self.folder.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.is_file()
                    && path.file_name() != Some(std::ffi::OsStr::new("address"))
                {
                    all.extend(fs::read(path).unwrap());
                }
            }
        }
        // What is stored at the service, too.
        let asked = BlobsAsked {
            snapshots: true,
            ..BlobsAsked::default()
        };
        for blob in self.server.store.blobs(&asked).unwrap().list {
            for (name, value) in blob.properties.metadata {
                all.extend(name.bytes().chain(value.bytes()));
            }
        }
        for secret in [SIGNATURE, "c2VjcmV0", "sig="] {
            let secret = secret.as_bytes();
            assert!(!all.windows(secret.len()).any(|window| window == secret));
        }
    }
}

/// Whatever a test prints and writes is looked through.
impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check_secrets();
        }
    }
}

fn plain(address: &str) -> String {
    address.split_once('?').unwrap().0.to_owned()
}

#[test]
fn an_image_in_a_blob_is_read_as_one_in_a_file() {
    let lab = Lab::new();
    let (raw, vhd) = (lab.path("disk.raw"), lab.path("disk.vhd"));
    fs::write(&raw, disk()).unwrap();
    lab.ends(0, "vhd", &["convert", "--azure", &raw, &vhd]);
    lab.upload(&vhd, "web.vhd");
    let address = lab.server.url("web.vhd");

    let info = lab.ends(0, "vhd", &["info", &address]);
    assert!(
        info.contains("fixed") && info.contains(&plain(&address)),
        "{info}"
    );
    let of_file = lab.ends(0, "vhd", &["info", "--json", &vhd]);
    let of_blob = lab.ends(0, "vhd", &["info", "--json", &address]);
    let field = |json: &str, name: &str| {
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        json[name].clone()
    };
    for name in [
        "format",
        "virtual_size",
        "file_size",
        "footer",
        "warnings",
        "notes",
    ] {
        assert_eq!(field(&of_file, name), field(&of_blob, name), "{name}");
    }
    assert!(field(&of_blob, "stored_size").as_u64().unwrap() < 4 << 20);

    let digest = |image: &str| {
        lab.ends(0, "vhd", &["hash", image])
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(digest(&vhd), digest(&address));
    assert_eq!(
        lab.ends(0, "vhd", &["hash", "-a", "sha256", &address])[..64],
        lab.ends(0, "vhd", &["hash", "-a", "sha256", &raw])[..64]
    );
    let map = lab.ends(0, "vhd", &["map", &address]);
    assert!(map.contains("zero") && map.contains("data"), "{map}");
    lab.ends(0, "vhd", &["check", "--azure", &address]);

    let back = lab.path("back.raw");
    let said = lab.ends(0, "vhd", &["convert", "-v", "--verify", &address, &back]);
    assert!(fs::read(&back).unwrap() == disk());
    assert!(
        said.contains("a signature (SAS) from the address") && said.contains(" requests: "),
        "{said}"
    );
    // All bytes of the blob, including the footer.
    let copy = lab.path("copy.vhd");
    lab.ends(
        0,
        "vhd",
        &["convert", "-f", "raw", "-O", "raw", &address, &copy],
    );
    assert!(fs::read(&copy).unwrap() == fs::read(&vhd).unwrap());
    let dynamic = lab.path("dynamic.vhd");
    lab.ends(0, "vhd", &["convert", "-O", "dynamic", &address, &dynamic]);
    lab.upload(&dynamic, "dynamic.vhd");
    assert_eq!(digest(&lab.server.url("dynamic.vhd")), digest(&vhd));

    // With the address in a file.
    fs::write(lab.path("address"), format!("{address}\n")).unwrap();
    assert_eq!(digest("@address"), digest(&vhd));
    // Where there is no such file, none of that name is made.
    let refused = lab.ends(2, "vhd", &["convert", "disk.raw", "@adress"]);
    assert!(refused.contains("./@adress is a file"), "{refused}");
    assert!(!std::path::Path::new(&lab.path("@adress")).exists());
    lab.check_secrets();
}

#[test]
fn snapshots_of_a_blob_are_compared_by_what_changed() {
    let lab = Lab::new();
    let (raw, vhd) = (lab.path("disk.raw"), lab.path("disk.vhd"));
    fs::write(&raw, disk()).unwrap();
    lab.ends(0, "vhd", &["convert", "--azure", &raw, &vhd]);
    let blob = lab.upload(&vhd, "web.vhd");
    let (store, any) = (&lab.server.store, Conditions::default());
    let monday = store.snapshot(&blob, &Metadata::new(), &any).unwrap();
    store.put_pages(&blob, 1 << 20, &[3; 1024], &any).unwrap();
    store.put_pages(&blob, 20 << 20, &[4; 512], &any).unwrap();
    store
        .clear_pages(
            &blob,
            PageRange::covering(17 << 20, (17 << 20) + 4096),
            &any,
        )
        .unwrap();
    // Written, and equal to the file.
    store
        .put_pages(&blob, 8192, &disk()[8192..8704], &any)
        .unwrap();
    let tuesday = store.snapshot(&blob, &Metadata::new(), &any).unwrap();
    let at = |time: &str| format!("{}&snapshot={time}", lab.server.url("web.vhd"));
    let (monday, tuesday) = (at(&monday), at(&tuesday));

    let listed = lab.ends(1, "vhd-diff", &["--format", "json", &monday, &tuesday]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["update_bytes"], 1536, "{listed}");
    assert_eq!(listed["clear_bytes"], 512, "{listed}");
    let said = lab.ends(
        0,
        "vhd-diff",
        &["-v", "--no-digest", "-o", "day.vhddiff", &monday, &tuesday],
    );
    assert!(said.contains("not compared"), "{said}");
    lab.ends(0, "vhd-diff", &["-o", "whole.vhddiff", &monday, &tuesday]);
    for diff in ["day.vhddiff", "whole.vhddiff"] {
        let _ = fs::remove_file(lab.path("new.vhd"));
        lab.ends(0, "vhd-apply", &[&vhd, diff, "-o", "new.vhd"]);
        lab.ends(0, "vhd-diff", &["-q", "new.vhd", &tuesday]);
    }
    lab.ends(0, "vhd-diff", &["-q", &monday, &vhd]);
    for (name, image) in [("monday", &monday), ("tuesday", &tuesday)] {
        let create = [
            "snapshot", "create", "--init", "--store", "store", "--disk", "web", "--name", name,
            image,
        ];
        lab.ends(0, "vhd", &create);
    }
    lab.ends(0, "vhd", &["snapshot", "verify", "--store", "store"]);
    lab.ends(0, "vhd-diff", &["-q", "store::web@tuesday", &tuesday]);
    lab.ends(0, "vhd-diff", &["-q", "store::web@monday", &vhd]);
    lab.ends(1, "vhd-diff", &["-q", &vhd, &lab.server.url("web.vhd")]);
    lab.check_secrets();
}

#[test]
fn an_image_is_written_to_a_blob() {
    let lab = Lab::new();
    let raw = lab.path("disk.raw");
    let mut bytes = disk();
    // Not a multiple of 1 MiB.
    bytes.truncate(DISK - 4096);
    fs::write(&raw, &bytes).unwrap();
    let (web, plain_raw) = (lab.server.url("web.vhd"), lab.server.url("web.raw"));
    let said = lab.ends(0, "vhd", &["convert", "--azure", "--verify", &raw, &web]);
    assert!(
        said.contains("fixed") && said.contains("zeros were added"),
        "{said}"
    );
    lab.ends(0, "vhd", &["check", "--azure", &web]);
    lab.ends(0, "vhd", &["convert", "-O", "raw", &web, "back.raw"]);
    let back = fs::read(lab.path("back.raw")).unwrap();
    assert!(back[..bytes.len()] == bytes && back.len() == DISK);
    // Only data that isn't zero was sent.
    let stored = lab.ends(0, "vhd", &["info", "--json", &web]);
    let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
    assert!(
        stored["stored_size"].as_u64().unwrap() < 4 << 20,
        "{stored}"
    );

    lab.ends(0, "vhd", &["convert", &raw, &plain_raw]);
    lab.ends(0, "vhd-diff", &["-q", &raw, &plain_raw]);
    // From one blob to another, which never replaces an existing blob.
    let said = lab.ends(2, "vhd", &["convert", &web, &plain_raw]);
    assert!(said.contains("--force"), "{said}");
    lab.ends(0, "vhd", &["convert", "--force", &web, &plain_raw]);
    lab.ends(0, "vhd-diff", &["-q", &web, &plain_raw]);
    for (args, code) in [
        (&["convert", &raw, &web, "--force", "-O", "dynamic"][..], 2),
        (&["convert", &raw, &web, "--force", "--dense"], 2),
        (&["convert", &web, &web, "--force"], 2),
        (&["convert", &raw, &lab.server.url("")], 2),
    ] {
        lab.ends(code, "vhd", args);
    }
    // All commands recognise an interrupted upload.
    let blob = BlobId::live("web.vhd");
    let mark = Metadata::from([("vhdkit_state".into(), "writing".into())]);
    lab.server
        .store
        .set_metadata(&blob, &mark, &Conditions::default())
        .unwrap();
    for args in [
        &["info", &web][..],
        &["convert", &web, "x.raw"],
        &["hash", &web],
        &["check", &web],
    ] {
        let said = lab.ends(5, "vhd", args);
        assert!(said.contains("--force"), "{said}");
    }
    lab.ends(0, "vhd", &["convert", "--azure", "--force", &raw, &web]);
    lab.ends(0, "vhd", &["check", "--azure", &web]);
    lab.check_secrets();
}

#[test]
fn what_a_command_cannot_do_with_an_address_is_told() {
    let lab = Lab::new();
    fs::write(lab.path("disk.raw"), disk()).unwrap();
    lab.upload(&lab.path("disk.raw"), "raw");
    let address = lab.server.url("raw");
    for (args, code) in [
        (&["resize", &address, "--size", "1G"][..], 2),
        (&["merge", &address], 2),
        (&["check", "--repair", &address], 2),
        (&["hash", "--stamp", &address], 2),
        (&["hash", "--windows", "list", &address], 2),
        (&["info", &lab.server.url("none")], 2),
        (&["info", "http://127.0.0.1:1/acct/disks/x?sig=c2VjcmV0"], 2),
        (
            &[
                "info",
                "https://acct.blob.core.windows.net/disks/x?sv=c2VjcmV0",
            ],
            2,
        ),
        (&["info", "https://acct.blob.core.windows.net/"], 2),
        (&["convert", &plain(&address), "out.raw"], 2),
    ] {
        let said = lab.ends(code, "vhd", args);
        assert!(
            said.contains("error: ") && said.contains("hint: "),
            "{args:?}: {said}"
        );
        assert!(!Path::new(&lab.path("out.raw")).exists());
    }
    lab.ends(2, "vhd-apply", &[&address, "x.vhddiff"]);
    lab.ends(
        2,
        "vhd-apply",
        &[
            "disk.raw",
            "x.vhddiff",
            "-o",
            "https://acct.blob.core.windows.net/",
        ],
    );
    lab.ends(2, "vhd-diff", &["disk.raw", "disk.raw", "-o", &address]);
    lab.check_secrets();
}
