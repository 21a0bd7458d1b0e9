//! A server with a resource group of disks, and this program's own client of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use vhdkit::blob::{Connector, Route};
use vhdkit::cloud::{Access, Cloud, NewDisk, NewSnapshot, Resource, ResourceName};
use vhdkit::serve::azure::Server;
use vhdkit::storage::WriteAt as _;
use vhdkit::vhd::{DiskType, Footer};

/// Everything that any command printed: a scan at the end finds secrets in it.
static PRINTED: Mutex<String> = Mutex::new(String::new());

pub(crate) struct Lab {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) server: Option<Server>,
    pub(crate) cloud: Cloud,
    variables: Vec<(String, String)>,
    secrets: Vec<String>,
}

pub(crate) fn name(text: &str) -> ResourceName {
    ResourceName::parse(text).unwrap()
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(&super::options())
    }

    pub(crate) fn with(options: &vhdkit::serve::azure::Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let report = Box::new(|error: &vhdkit::Error| panic!("{error}"));
        let server = Server::start(&folder.path().join("cloud"), options, report).unwrap();
        let identity = server.identity();
        let root = server.root();
        let state = folder.path().join("state");
        let variables: Vec<(String, String)> = [
            ("SSL_CERT_FILE", server.authority().to_str().unwrap()),
            ("AZURE_AUTHORITY_HOST", &root),
            ("AZURE_TENANT_ID", &identity.tenant),
            ("AZURE_CLIENT_ID", &identity.client_id),
            ("AZURE_CLIENT_SECRET", &identity.client_secret),
            ("AZURE_SUBSCRIPTION_ID", &identity.subscription),
            ("AZURE_RESOURCE_MANAGER_ENDPOINT", &root),
            ("VHDKIT_STATE_DIR", state.to_str().unwrap()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        let secrets = vec![
            identity.client_secret.clone(),
            identity.account_key.clone(),
            identity.identity_header.clone(),
        ];
        let cloud = client(&variables, server.authority());
        Self {
            folder,
            server: Some(server),
            cloud,
            variables,
            secrets,
        }
    }

    /// Ends the server, and starts it again at the same address.
    pub(crate) fn restart(&mut self, mut options: vhdkit::serve::azure::Options) {
        let server = self.server.take().unwrap();
        let address = server.root().replace("https://", "");
        options.listen = address.parse().unwrap();
        server.stop().unwrap();
        let report = Box::new(|error: &vhdkit::Error| panic!("{error}"));
        self.server = Some(Server::start(&self.path("cloud"), &options, report).unwrap());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets a variable of the commands.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let own = Path::new(super::VHD).with_file_name(program);
        let mut command = Command::new(own);
        command.current_dir(self.folder.path());
        for name in ["IDENTITY_ENDPOINT", "AZURE_STORAGE_KEY", "VHDKIT_STORE"] {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command line, whose words are separated by blanks; gives the exit code and all that it printed.
    pub(crate) fn run(&self, line: &str) -> (i32, String) {
        let mut words = line.split(' ');
        let output = self
            .command(words.next().unwrap())
            .args(words)
            .output()
            .unwrap();
        self.printed(&output)
    }

    /// What a command printed, after a look for secrets in it.
    pub(crate) fn printed(&self, output: &Output) -> (i32, String) {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        self.check_secrets(&text);
        (output.status.code().unwrap_or(-1), text)
    }

    /// Neither passwords nor signatures nor tokens are in `text`.
    pub(crate) fn check_secrets(&self, text: &str) {
        for secret in &self.secrets {
            assert!(!text.contains(secret.as_str()), "{text}");
        }
        for word in ["sig=", "Bearer", "eyJ"] {
            assert!(!text.contains(word), "{text}");
        }
        PRINTED.lock().unwrap().push_str(text);
    }

    pub(crate) fn good(&self, line: &str) -> String {
        let (code, text) = self.run(line);
        assert_eq!(code, 0, "{line}: {text}");
        text
    }

    /// Makes the disk `azure:prod/NAME` with these bytes, which are whole MiB.
    pub(crate) fn disk(&self, disk: &str, bytes: &[u8]) -> Resource {
        let size = bytes.len() as u64;
        let new = NewDisk {
            region: "eastus",
            bytes: size + 512,
            sku: None,
            tags: &BTreeMap::new(),
        };
        let shown = format!("azure:prod/{disk}");
        let made = self.cloud.create_disk(&name(&shown), &new).unwrap();
        let far = self
            .cloud
            .open(&made, Access::Write, shown.as_ref())
            .unwrap();
        for (n, part) in bytes.chunks(1 << 20).enumerate() {
            if part.iter().any(|byte| *byte != 0) {
                far.write_all_at(part, (n << 20) as u64).unwrap();
            }
        }
        let footer = Footer::for_disk(DiskType::Fixed, size, None);
        far.write_all_at(&footer.encode(), size).unwrap();
        far.sync().unwrap();
        drop(far);
        self.cloud.refresh(&made).unwrap()
    }

    /// Writes into a disk.
    pub(crate) fn write(&self, disk: &Resource, at: u64, bytes: &[u8]) {
        let now = self.cloud.refresh(disk).unwrap();
        let far = self
            .cloud
            .open(&now, Access::Write, disk.id.as_ref())
            .unwrap();
        far.write_all_at(bytes, at).unwrap();
        far.sync().unwrap();
    }

    /// Takes an incremental snapshot.
    pub(crate) fn snapshot(&self, disk: &Resource, snapshot: &str) -> Resource {
        let new = NewSnapshot {
            group: "prod",
            name: snapshot,
            source: disk,
            region: None,
            incremental: true,
            sku: None,
            tags: &BTreeMap::new(),
        };
        self.cloud.create_snapshot(&new).unwrap()
    }

    /// Nothing is granted to anybody, and nothing is noted as granted.
    #[track_caller]
    pub(crate) fn assert_nothing_granted(&self) {
        let identity = self.server.as_ref().unwrap().identity().clone();
        for snapshot in self.cloud.snapshots(&identity.subscription, None).unwrap() {
            assert!(!snapshot.is_granted(), "{}", snapshot.id);
        }
        let state = self.path("state");
        let notes = if state.exists() {
            super::names_in(&state)
        } else {
            Vec::new()
        };
        assert!(!notes.iter().any(|path| path.is_file()), "{notes:?}");
    }
}

/// A client with these variables.
pub(crate) fn client(variables: &[(String, String)], authority: &Path) -> Cloud {
    let variables: Arc<Vec<(String, String)>> = Arc::new(variables.to_vec());
    let route = Route {
        authorities: Some(fs::read(authority).unwrap()),
        ..Route::default()
    };
    let lookup = move |name: &str| {
        let found = variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    let connector = Connector::new(&route, lookup.clone()).unwrap();
    Cloud::new(&connector, lookup, None)
}

/// Bytes that differ from place to place.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut numbers = super::Numbers(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(numbers.below(u64::MAX).to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}
