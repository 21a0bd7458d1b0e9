//! Addresses of other machines and services, which must not be mistaken for files and folders.

use std::fs;
use std::path::Path;

use super::role::Role;
use crate::error::{Error, quoted};

/// Services that other programs address as `NAME:PLACE`.
const SERVICES: &[&str] = &[
    "s3", "gs", "gcs", "b2", "swift", "rclone", "rest", "abfs", "abfss", "wasb", "wasbs", "azblob",
];

/// An address outside of this machine's file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remote {
    /// A path on another machine, and that machine's name for ssh.
    Host { host: String, path: String },
    /// A URL of a file on this machine.
    LocalUrl(String),
    /// Any other URL.
    Url { azure: bool },
    /// A managed disk, as `azure:GROUP/DISK`.
    Azure,
    /// A bucket or container of a storage service.
    Service,
    /// A Windows path.
    Windows,
}

impl Remote {
    /// Parses `path` as an address. Returns `None` if it is a file or a folder of this machine, which a leading `./`
    /// makes certain. If there is no scheme, existing files take precedence.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let text = path.to_string_lossy();
        if text.starts_with(['.', '/']) && !text.starts_with("//") {
            return None;
        }
        if let Some((scheme, rest)) = text.split_once("://")
            && is_scheme(scheme)
        {
            return Some(Self::of_url(&scheme.to_ascii_lowercase(), rest));
        }
        if fs::symlink_metadata(path).is_ok() {
            return None;
        }
        if text.starts_with("\\\\") || is_share(&text) || is_drive(&text) {
            return Some(Self::Windows);
        }
        let (host, path) = split_host(&text)?;
        let lower = host.to_ascii_lowercase();
        Some(match lower.as_str() {
            "azure" | "az" => Self::Azure,
            "file" => Self::LocalUrl(path.to_owned()),
            "http" | "https" => Self::Url { azure: false },
            service if SERVICES.contains(&service) => Self::Service,
            _ => Self::Host {
                host: host.to_owned(),
                path: path.to_owned(),
            },
        })
    }

    fn of_url(scheme: &str, rest: &str) -> Self {
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        match scheme {
            "ssh" | "sftp" | "scp" | "rsync" => {
                let (user, machine) = authority.rsplit_once('@').unwrap_or(("", authority));
                let user = user.split(':').next().unwrap_or("");
                let at = if user.is_empty() { "" } else { "@" };
                let target = format!("{user}{at}{machine}");
                let host = if machine.contains(':') && scheme != "rsync" {
                    format!("ssh://{target}")
                } else {
                    target.split(':').next().unwrap_or(&target).to_owned()
                };
                Self::Host {
                    host,
                    path: path.to_owned(),
                }
            }
            "file" => Self::LocalUrl(path.to_owned()),
            "http" | "https" => {
                let host = authority.to_ascii_lowercase();
                let azure = host.contains(".blob.core.") || host.contains(".blob.storage.azure");
                Self::Url { azure }
            }
            "azure" | "az" => Self::Azure,
            service if SERVICES.contains(&service) => Self::Service,
            _ => Self::Url { azure: false },
        }
    }

    /// The error for `path` as an argument in this role.
    pub(super) fn refusal(&self, role: Role, path: &Path) -> Error {
        let folder = matches!(role, Role::Store | Role::StoreTo | Role::Folder);
        let wanted = if folder { "a folder" } else { "a file" };
        let what = match self {
            Self::Host { .. } => "this is an address on another machine",
            Self::LocalUrl(_) | Self::Url { .. } => "this is a URL",
            Self::Azure => "this is the name of a managed disk, which this command doesn't take",
            Self::Service => "this is the address of a storage service, which isn't supported",
            Self::Windows => "this is a Windows path or a network share",
        };
        let message = match self {
            Self::Azure | Self::Service => what.to_owned(),
            _ => format!("{what}, not {wanted} here"),
        };
        Error::usage(message)
            .with_path(path)
            .with_hint(self.hint(role, path, folder))
    }

    fn hint(&self, role: Role, path: &Path, folder: bool) -> String {
        let output = matches!(role, Role::Output | Role::OutputFile);
        match self {
            Self::Host { host, path: there } => {
                let here = quoted(Path::new(".").join(path));
                let way = host_way(role, host, there, output);
                let kind = if folder { "folder" } else { "file" };
                format!("{way}; {here} is a {kind} of that name")
            }
            Self::LocalUrl(local) => format!("use {}", quoted(local)),
            Self::Url { azure: true } if output => {
                "this command doesn't write page blobs: write a file, and upload that with vhd convert".into()
            }
            Self::Azure | Self::Url { azure: true } if folder => {
                "this command is for stores in folders: name one, or copy there first, with vhd snapshot copy --to FOLDER"
                    .into()
            }
            Self::Url { azure: true } if !folder => {
                "this command doesn't read page blobs: convert it to a file first, with vhd convert"
                    .into()
            }
            _ if folder => "name a folder of this machine, or one that is mounted here".into(),
            Self::Windows => {
                "mount the share or the drive, and use the path where it is mounted".into()
            }
            _ if output => "write a file, and upload that".into(),
            _ => "download it to a file first".into(),
        }
    }
}

/// The advice for a path on another machine that is reached by ssh.
fn host_way(role: Role, host: &str, there: &str, output: bool) -> String {
    let ssh = quoted(host);
    if there.starts_with(':') {
        // An rsync module, which only rsync can access.
        let module = quoted(format!("{host}:{there}"));
        return match role {
            Role::Store | Role::StoreTo | Role::Folder => {
                "name a folder of this machine, or one that is mounted here".into()
            }
            _ if output => format!("write a file here, and copy that there: rsync FILE {module}"),
            _ => format!("copy it here first: rsync {module} ."),
        };
    }
    match role {
        Role::Store | Role::StoreTo => {
            let receive = on(
                host,
                &format!("vhd snapshot receive --store {}", quoted(there)),
            );
            let list = on(
                host,
                &format!("vhd snapshot list --store {}", quoted(there)),
            );
            format!(
                "keep the store here and send its snapshots, as in: vhd snapshot send --store STORE --disk DISK | \
                 {receive}; or run vhd there, as in: {list}"
            )
        }
        Role::Folder => "name a folder of this machine, or one that is mounted here".into(),
        Role::Input => format!(
            "read it through ssh and use - here: {} |",
            on(host, &format!("cat {}", quoted(there)))
        ),
        Role::Output => format!(
            "use - here and pipe the output through ssh: | ssh {ssh} {}",
            quoted(format!("cat > {}", quoted(there)))
        ),
        _ if output => format!("write a file here, and copy that to {ssh} with scp"),
        _ => {
            let address = match host.strip_prefix("ssh://") {
                Some(machine) => format!("scp://{machine}{there}"),
                None => format!("{host}:{there}"),
            };
            format!("copy it here first: scp {} .", quoted(address))
        }
    }
}

/// The command line that runs `command` on `host`, whose shell parses it once more.
pub(super) fn on(host: &str, command: &str) -> String {
    let host = quoted(host);
    if command.contains(['\'', '$', '\\']) {
        format!("ssh {host} {}", quoted(command))
    } else {
        format!("ssh {host} {command}")
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// Splits `HOST:PATH` as rsync and scp do: at a colon before the first slash.
fn split_host(text: &str) -> Option<(&str, &str)> {
    let (host, path) = match text.split_once("]:") {
        // An IPv6 address.
        Some((host, path)) if host.contains('[') => (&text[..=host.len()], path),
        _ => text.split_once(':')?,
    };
    let name = host.rsplit('@').next().unwrap_or(host);
    let named = !name.is_empty() && !host.contains(['/', ' ']) && !path.is_empty();
    // A point in time of a store has two colons, unless a slash comes after them.
    let point = path.starts_with(':') && !path.contains('/');
    (named && !point).then_some((host, path))
}

/// Returns whether it is `//server/share`, where the first component isn't a folder here.
fn is_share(text: &str) -> bool {
    let Some(rest) = text
        .strip_prefix("//")
        .filter(|rest| !rest.starts_with('/'))
    else {
        return false;
    };
    let first = rest.split('/').next().unwrap_or("");
    rest.contains('/') && fs::symlink_metadata(Path::new("/").join(first)).is_err()
}

/// Returns whether it is `C:\disks`, `C:/disks`, `C:disk.vhd` or `C:`. Two colons mean a point in time.
fn is_drive(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes, [letter, b':', rest @ ..] if letter.is_ascii_alphabetic() && !rest.starts_with(b":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str, path: &str) -> Remote {
        Remote::Host {
            host: host.into(),
            path: path.into(),
        }
    }

    #[test]
    fn addresses_are_told_from_paths() {
        for (text, expected) in [
            ("backup@nas:/srv/web", Some(host("backup@nas", "/srv/web"))),
            ("nas:web", Some(host("nas", "web"))),
            ("[fe80::1]:/srv", Some(host("[fe80::1]", "/srv"))),
            ("ssh://me@nas/srv/w", Some(host("me@nas", "/srv/w"))),
            (
                "sftp://me:pw@nas:2222/w",
                Some(host("ssh://me@nas:2222", "/w")),
            ),
            ("nas::module/web", Some(host("nas", ":module/web"))),
            ("https://a/b", Some(Remote::Url { azure: false })),
            (
                "HTTPS://x.blob.core.windows.net/c",
                Some(Remote::Url { azure: true }),
            ),
            ("https:/a/b", Some(Remote::Url { azure: false })),
            ("file:///tmp/x", Some(Remote::LocalUrl("/tmp/x".into()))),
            ("nbd+unix:///x", Some(Remote::Url { azure: false })),
            ("s3:bucket/key", Some(Remote::Service)),
            ("s3://bucket/key", Some(Remote::Service)),
            ("azure:group/disk", Some(Remote::Azure)),
            (r"C:\vms\a.vhd", Some(Remote::Windows)),
            (r"\\nas\share", Some(Remote::Windows)),
            ("//no-such-server/share", Some(Remote::Windows)),
            ("//tmp/x", None),
            ("disk.vhd", None),
            ("./nas:web", None),
            ("../nas:web", None),
            ("/srv/nas:web", None),
            ("folder/nas:web", None),
            ("web@tue", None),
            ("st::web@tue", None),
            ("::web@tue", None),
            ("dir/st::web@tue", None),
            ("a b:c", None),
            ("name:", None),
        ] {
            assert_eq!(Remote::of(Path::new(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_runs_there_is_quoted_for_two_shells() {
        assert_eq!(on("nas", "cat /srv/a"), "ssh nas cat /srv/a");
        let spaced = format!("cat {}", quoted("/srv/my disk"));
        assert_eq!(on("nas", &spaced), r"ssh nas 'cat '\''/srv/my disk'\'''");
    }
}
