//! `vhd serve azure`: the cloud's interface on this machine.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::Context;
use super::exit::Outcome;
use super::output::{JsonList, Output, failed};
use super::serving;
use super::size;
use crate::error::{Error, Result, quoted};
use crate::serve::azure::{Options, Server};
use crate::storage::{AtomicFile, Audience, Overwrite, WriteAt as _};

/// Serve page blobs, managed disks and snapshots as the cloud does, on a folder of this machine.
///
/// az, azcopy and the SDKs can use it as they are.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The folder holds each disk as a fixed VHD (disks/NAME-ID/NAME.vhd) and the snapshots of all disks as a store \
     (snapshots), so that the other commands work on them while no server runs. It is made if it isn't there, for its \
     owner alone: keys and passwords are in it.\n\n",
    "The lines to type are printed on stdout: the file env.sh sets what az, azcopy and the SDKs need, in that shell alone. \
     All is served until Ctrl-C or a termination; or, with a command after --, until that ends, whose exit code is then \
     ours. In its arguments {} stands for env.sh; VHD_AZURE_ENV holds it too.\n\n",
    "Examples:\n",
    "  vhd serve azure --store cloud\n",
    "  vhd serve azure --store cloud -- sh -c '. \"$VHD_AZURE_ENV\"; az storage container list'\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The folder that holds everything; made if it isn't there.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Listen here; 0 takes a free port. An address of the network lets other machines in, through TLS only.
    #[arg(long, value_name = "[ADDRESS:]PORT", default_value = "10443", value_parser = address)]
    listen: SocketAddr,
    /// A name or address that other machines know the server by, for its certificate; can be repeated.
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// The name of the storage account, in a new folder.
    #[arg(long, value_name = "NAME", default_value = "vhdkit", value_parser = account)]
    account: String,
    /// The region of resources that don't specify one, in a new folder.
    #[arg(long, value_name = "REGION", default_value = "eastus")]
    location: String,
    /// Give tokens to every program of this machine, as a machine of the cloud does.
    #[arg(long)]
    managed_identity: bool,
    /// Copy snapshots between regions with so many bytes for each second at most.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    copy_rate: Option<u64>,
    /// Print JSON: the address of the server, and the lines to type.
    #[arg(long, conflicts_with = "command")]
    json: bool,
    /// A command to run meanwhile.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from((IpAddr::from(Ipv4Addr::LOCALHOST), port))),
        Err(_) => text
            .replacen("localhost:", "127.0.0.1:", 1)
            .parse()
            .map_err(|_| "a port or ADDRESS:PORT is needed".to_owned()),
    }
}

fn account(text: &str) -> Result<String, String> {
    let good = text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if good && (3..=24).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("the name of a storage account has 3 to 24 small letters and digits".to_owned())
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let folder = std::path::absolute(&args.store)
        .map_err(|e| Error::io("cannot find the current folder", e).with_path(&args.store))?;
    let options = Options {
        listen: args.listen,
        names: args.names.clone(),
        account: args.account.clone(),
        location: args.location.clone(),
        open_identity: args.managed_identity,
        copy_rate: args.copy_rate,
    };
    let server = Server::start(&folder, &options, Box::new(context.reporter()))?;
    let environment = folder.join("env.sh");
    let text = variables(&server, &folder);
    let file = AtomicFile::for_audience(&environment, Audience::nobody_else())?;
    file.file().write_all_at(text.as_bytes(), 0)?;
    file.publish(Overwrite::Yes)?;
    let mut told = None;
    if args.command.is_empty() {
        let mut output = Output::text()?;
        let lines = lines(&server, &environment, args.managed_identity);
        if args.json {
            told = Some((list(&server, &environment, &lines, &mut output)?, output));
        } else {
            lines.iter().try_for_each(|line| output.line(line))?;
            output.finish()?;
        }
        context.note("serving until Ctrl-C or a termination");
    }
    let (_, waiting) = serving::events();
    let place = ("VHD_AZURE_ENV", environment.as_os_str());
    let code = waiting.wait(&args.command, place, || true)?;
    server.stop()?;
    if let Some((list, mut output)) = told {
        list.end_with(&mut output, &Nothing {})?;
        output.finish()?;
    }
    Ok(if code == 0 {
        Outcome::Done
    } else {
        Outcome::Code(code)
    })
}

/// The head of the document.
#[derive(Serialize)]
struct Serving<'a> {
    endpoint: String,
    subscription: &'a str,
    account: &'a str,
    environment: String,
}

#[derive(Serialize)]
struct Nothing {}

/// Begins the document, which ends with the server.
fn list(
    server: &Server,
    environment: &Path,
    lines: &[String],
    output: &mut Output,
) -> Result<JsonList> {
    let identity = server.identity();
    let head = Serving {
        endpoint: server.root(),
        subscription: &identity.subscription,
        account: &identity.account,
        environment: environment.to_string_lossy().into_owned(),
    };
    let mut list = JsonList::begin(output, &head, "lines")?;
    lines.iter().try_for_each(|line| list.item(output, line))?;
    // Readers that read line by line get complete lines so far.
    output.bytes(b"\n")?;
    output.flush().map_err(failed)?;
    Ok(list)
}

/// The settings that programs need, as a shell sets them.
fn variables(server: &Server, folder: &Path) -> String {
    let (root, identity) = (server.root(), server.identity());
    let endpoint = format!("{root}/{}", identity.account);
    let connection = format!(
        "DefaultEndpointsProtocol=https;AccountName={};AccountKey={};BlobEndpoint={endpoint};",
        identity.account, identity.account_key
    );
    let authority = server.authority().to_path_buf();
    let az = folder.join("az");
    let all: [(&str, &OsStr); 17] = [
        // What az keeps of this server doesn't mix with what it knows of the cloud.
        ("AZURE_CONFIG_DIR", az.as_os_str()),
        ("AZURE_CORE_COLLECT_TELEMETRY", OsStr::new("false")),
        ("REQUESTS_CA_BUNDLE", authority.as_os_str()),
        ("SSL_CERT_FILE", authority.as_os_str()),
        ("AZURE_AUTHORITY_HOST", OsStr::new(&root)),
        ("AZURE_TENANT_ID", OsStr::new(&identity.tenant)),
        ("AZURE_CLIENT_ID", OsStr::new(&identity.client_id)),
        ("AZURE_CLIENT_SECRET", OsStr::new(&identity.client_secret)),
        ("AZURE_SUBSCRIPTION_ID", OsStr::new(&identity.subscription)),
        ("AZURE_RESOURCE_MANAGER", OsStr::new(&root)),
        ("AZURE_RESOURCE_MANAGER_ENDPOINT", OsStr::new(&root)),
        ("AZURE_STORAGE_ACCOUNT", OsStr::new(&identity.account)),
        ("AZURE_STORAGE_KEY", OsStr::new(&identity.account_key)),
        ("AZURE_STORAGE_SERVICE_ENDPOINT", OsStr::new(&endpoint)),
        ("AZURE_STORAGE_CONNECTION_STRING", OsStr::new(&connection)),
        ("AZCOPY_DISABLE_SYSLOG", OsStr::new("true")),
        (
            "VHD_AZURE_IDENTITY_HEADER",
            OsStr::new(&identity.identity_header),
        ),
    ];
    let mut text =
        String::from("# Made by vhd serve azure at each start. Keys and passwords are in it.\n");
    for (name, value) in all {
        // Writing to a string can't fail.
        let _ = writeln!(text, "export {name}={}", quoted(value));
    }
    text
}

/// The lines to type.
fn lines(server: &Server, environment: &Path, machine: bool) -> Vec<String> {
    let (root, identity) = (server.root(), server.identity());
    let mut lines = vec![
        format!("# {root}, subscription {}, storage account {}", identity.subscription, identity.account),
        format!(". {}", quoted(environment)),
        "# az, once for each folder:".to_owned(),
        format!("az cloud register -n vhdkit --endpoint-resource-manager {root}"),
        "az cloud set -n vhdkit".to_owned(),
        "az login --service-principal -u \"$AZURE_CLIENT_ID\" -p \"$AZURE_CLIENT_SECRET\" --tenant \"$AZURE_TENANT_ID\"".to_owned(),
        "# or as a program with a managed identity, in this shell:".to_owned(),
        format!("export IDENTITY_ENDPOINT={root}/msi/token IDENTITY_HEADER=\"$VHD_AZURE_IDENTITY_HEADER\""),
    ];
    if machine {
        lines.push(format!("export AZURE_POD_IDENTITY_AUTHORITY_HOST={root}"));
    }
    lines.push(
        "# azcopy needs the kinds of both ends, and an address with a signature (SAS):".to_owned(),
    );
    lines.push(
        "azcopy copy disk.vhd \"$AZURE_STORAGE_SERVICE_ENDPOINT/CONTAINER/disk.vhd?$SAS\" --from-to LocalBlob --blob-type PageBlob"
            .to_owned(),
    );
    lines
}
