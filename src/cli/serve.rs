//! `vhd serve`: serves images and points in time over NBD.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::args::{InputFormat, Parents, SaidFormat};
use super::context::Context;
use super::exit::Outcome;
use super::output::{JsonList, Output, failed};
use super::{serve_azure, serving};
use crate::error::{Error, Result};
use crate::serve::nbd::{Address, Server};

/// Serve images and points in time over NBD, without restoring them.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "QEMU, qemu-img, nbdcopy, nbdinfo, nbdfuse, guestfish and the nbd-client of Linux read what is served; nobody can \
     write it. The address is printed on stdout as one line, and all is served until Ctrl-C or a termination; or, with \
     a command after --, until that ends, whose exit code is then ours. In its arguments {} stands for the address; \
     VHD_NBD_URI holds it too.\n\n",
    "WHAT is an image, STORE::DISK@SNAPSHOT, STORE::DISK with all its snapshots, or a store (STORE or STORE::) with all \
     its disks. The names of the exports are then DISK@SNAPSHOT; DISK is its newest one. A point in time is opened \
     when a client asks for it. Snapshots can be added, pruned and deleted meanwhile, and what is read stays the same. \
     The context qemu:dirty-bitmap:since-SNAPSHOT tells what may have changed since an earlier one that it is made of.\n\n",
    "Whatever can't be read is an I/O error for the client; the reason is printed on stderr, and the exit code is 3 at \
     the end if it was damage, so that a copy made meanwhile doesn't look good.\n\n",
    "Examples:\n",
    "  vhd serve backup::web@tue\n",
    "  vhd serve backup::web@tue -- qemu-img convert -O qcow2 {} tuesday.qcow2\n",
    "  vhd serve backup --socket /run/backup.sock\n",
    "  vhd serve disk.vhd --listen 10809\n",
    "  vhd serve azure --store cloud             disks and snapshots as the cloud serves them\n\n",
    super::args::exit_codes!(),
))]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    /// The image, point in time, disk or store to serve.
    #[arg(required = true)]
    what: Option<PathBuf>,
    /// The format of an image [default: detected].
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<InputFormat>,
    /// Create the socket here [default: in a new folder that only its owner can enter].
    #[arg(long, value_name = "FILE", conflicts_with = "listen")]
    socket: Option<PathBuf>,
    /// Listen on this port of this machine instead; 0 chooses a free one. Every user of the machine can read what is
    /// served.
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = loopback)]
    listen: Option<SocketAddr>,
    /// Print the address and the exports as JSON, at once; the document is complete when serving ends.
    #[arg(long, conflicts_with = "command")]
    json: bool,
    #[command(flatten)]
    parents: Parents,
    /// Run this command while it is served, and end with it.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Servers other than NBD.
#[derive(Debug, clap::Subcommand)]
enum Other {
    Azure(serve_azure::Args),
}

/// Parses the address to listen on, which must be local to this machine.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = match text.parse::<u16>() {
        Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        Err(_) => text
            .replacen("localhost:", "127.0.0.1:", 1)
            .parse()
            .map_err(|_| "a port, 127.0.0.1:PORT or [::1]:PORT is needed".to_owned())?,
    };
    let ip = match address.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        ip @ IpAddr::V4(_) => ip,
    };
    if ip.is_loopback() {
        return Ok(address);
    }
    Err("only this machine itself can be served, because NBD has neither logins nor encryption here; \
         from another machine: ssh -L 10809:127.0.0.1:10809 HOST"
        .to_owned())
}

#[derive(Serialize)]
struct Serving<'a> {
    uri: &'a str,
}

/// Nothing follows the exports.
#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Export {
    name: String,
    uri: String,
    description: String,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if let Some(Other::Azure(args)) = &args.other {
        return serve_azure::run(args, context);
    }
    let Some(what) = &args.what else {
        return Err(Error::usage("there is nothing to serve").with_hint("name an image or a store"));
    };
    let format = SaidFormat::by("-f", args.format);
    let shelf = serving::shelf(what, format, &args.parents, context)?;
    let faults = serving::faults(context);
    // The folder is removed with the command, and the socket with it.
    let (address, folder) = match (&args.listen, &args.socket) {
        (Some(address), _) => (Address::Tcp(*address), None),
        (None, Some(path)) => {
            // A client may be started in another folder.
            let path = std::path::absolute(path)
                .map_err(|e| Error::io("cannot find the current folder", e).with_path(path))?;
            (Address::Unix(path), None)
        }
        (None, None) => {
            let folder = serving::private_folder()?;
            (Address::Unix(folder.path().join("nbd.sock")), Some(folder))
        }
    };
    let threads = context.workers()?.threads();
    let server = Server::start(shelf, address, Arc::clone(&faults), threads)?;
    let named = Named(match server.address() {
        Address::Unix(path) if folder.is_none() => Some(path.clone()),
        _ => None,
    });
    if let Some(path) = &named.0 {
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .map_err(|e| Error::io("cannot set the permissions of", e).with_path(path))?;
    }
    let uri = server.uri("");
    let mut told = None;
    if args.command.is_empty() {
        let mut output = Output::text()?;
        if args.json {
            // The document is completed at the end, but the address is needed now.
            let list = list(&server, &uri, &mut output)?;
            output.flush().map_err(failed)?;
            told = Some((list, output));
        } else {
            output.line(&uri)?;
            output.finish()?;
        }
        context.note("serving until Ctrl-C or a termination");
    }
    let (_, waiting) = serving::events();
    let place = ("VHD_NBD_URI", OsStr::new(&uri));
    let code = waiting.wait(&args.command, place, || true)?;
    server.stop();
    drop(named);
    if let Some(folder) = folder {
        // What is left of it is empty.
        let _ = folder.close();
    }
    if let Some((list, mut output)) = told {
        list.end_with(&mut output, &Nothing {})?;
        output.finish()?;
    }
    serving::end(code, &faults, context)
}

/// A socket that is removed when the command ends.
struct Named(Option<PathBuf>);

impl Drop for Named {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Begins the document with the address and the exports.
fn list(server: &Server, uri: &str, output: &mut Output) -> Result<JsonList> {
    let mut list = JsonList::begin(output, &Serving { uri }, "exports")?;
    for (name, description) in server.exports()? {
        let export = Export {
            uri: server.uri(&name),
            name,
            description,
        };
        list.item(output, &export)?;
    }
    // Readers that read line by line get complete lines so far.
    output.bytes(b"\n")?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_listened_to() {
        for (text, address) in [
            ("0", Some("127.0.0.1:0")),
            ("10809", Some("127.0.0.1:10809")),
            ("localhost:1", Some("127.0.0.1:1")),
            ("127.8.0.1:2", Some("127.8.0.1:2")),
            ("[::1]:3", Some("[::1]:3")),
            ("0.0.0.0:1", None),
            ("[::]:1", None),
            ("192.168.1.1:1", None),
            ("[::ffff:192.168.1.1]:1", None),
            ("example.org:1", None),
            ("", None),
            ("65536", None),
        ] {
            let found = loopback(text).ok().map(|address| address.to_string());
            assert_eq!(found.as_deref(), address, "{text}");
        }
    }
}
