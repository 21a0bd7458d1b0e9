//! The keys of encrypted stores: from files, or asked for on the terminal.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::args::KeyArgs;
use super::message::{Topic, Warning};
use super::{exit, progress};
use crate::age::{Identity, Passphrase};
use crate::error::{Error, Result, quoted};
use crate::snapshot::{KeyRequest, StoreKey, ask_for_keys};
use crate::text::shown;

/// The environment variable with the name of a file with the passphrase.
pub(super) const PASSPHRASE_VARIABLE: &str = "VHDKIT_PASSPHRASE_FILE";

/// The environment variable with the name of a file with the key.
pub(super) const KEY_VARIABLE: &str = "VHDKIT_KEY_FILE";

/// A longer file has neither a key nor a passphrase.
const LONGEST: u64 = 64 << 10;

impl KeyArgs {
    /// With the files of the environment, if no other is given.
    fn or_environment(mut self) -> Self {
        if self.passphrase_file.is_empty() && self.key_file.is_empty() {
            let file = |name: &str| {
                let value = std::env::var_os(name).filter(|value| !value.is_empty());
                value.map(PathBuf::from)
            };
            self.key_file.extend(file(KEY_VARIABLE));
            self.passphrase_file.extend(file(PASSPHRASE_VARIABLE));
        }
        self
    }

    /// The key in the file, if one is given.
    pub(super) fn identity(&self, program: &'static str) -> Result<Option<Identity>> {
        let args = self.clone().or_environment();
        args.key_file
            .first()
            .map(|file| read_identity(program, file))
            .transpose()
    }

    /// The passphrase in the file, if one is given; else it is asked for, twice.
    pub(super) fn new_passphrase(&self, store: &Path) -> Result<Passphrase> {
        let args = self.clone().or_environment();
        match args.passphrase_file.first() {
            Some(file) => read_passphrase(file),
            None => ask_new(store),
        }
    }
}

/// Gives these keys to whatever opens an encrypted store, and asks for a passphrase where there are none.
pub(super) fn offer(program: &'static str, args: &KeyArgs) {
    let args = args.clone().or_environment();
    ask_for_keys(move |request| given(program, &args, request));
}

fn given(program: &'static str, args: &KeyArgs, request: &KeyRequest<'_>) -> Result<Vec<StoreKey>> {
    let (mut keys, mut fits) = (Vec::new(), false);
    for file in &args.key_file {
        let identity = read_identity(program, file)?;
        fits |= request.fits(&identity);
        keys.push(StoreKey::Identity(identity));
    }
    if request.passphrase && !fits {
        for file in &args.passphrase_file {
            keys.push(StoreKey::Passphrase(read_passphrase(file)?));
        }
        if args.passphrase_file.is_empty()
            && let Some(typed) = ask(&format!("Passphrase of {}: ", shown(request.store)))?
        {
            keys.push(StoreKey::Passphrase(Passphrase::new(&typed)?));
        }
    }
    Ok(keys)
}

/// The text of a small file. A pipe will do, as `<(pass show backup)` is one.
fn read(file: &Path) -> Result<Zeroizing<String>> {
    let failed = |e| Error::io("cannot read", e).with_path(file);
    let mut text = Zeroizing::new(String::new());
    let opened = fs::File::open(file).map_err(failed)?;
    let len = opened
        .take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if len as u64 > LONGEST {
        return Err(Error::usage("this is too long for a key or a passphrase").with_path(file));
    }
    Ok(text)
}

pub(super) fn read_passphrase(file: &Path) -> Result<Passphrase> {
    Passphrase::new(&read(file)?).map_err(|e| e.with_path(file))
}

fn read_identity(program: &'static str, file: &Path) -> Result<Identity> {
    let identity = Identity::from_text(&read(file)?).map_err(|e| e.with_path(file))?;
    let open = fs::metadata(file)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o077 != 0);
    if open {
        let what = format!("{}: others may read this key", shown(file));
        let warning = Warning {
            hint: Some(format!("chmod 600 {}", quoted(file))),
            ..Warning::new(Topic::KeyReadable, what)
        };
        exit::warn(program, &warning);
    }
    Ok(identity)
}

/// Asks for a new passphrase.
pub(super) fn ask_new(store: &Path) -> Result<Passphrase> {
    let nowhere = || {
        Error::usage("a new passphrase can't be asked for without a terminal").with_hint(
            "write it into a file that only you can read, and name that file in the command",
        )
    };
    let first = ask(&format!("New passphrase of {}: ", shown(store)))?.ok_or_else(nowhere)?;
    let first = Passphrase::new(&first)?;
    let again = ask("The same again: ")?.ok_or_else(nowhere)?;
    if !first.is(&Passphrase::new(&again)?) {
        return Err(Error::usage("the two passphrases differ"));
    }
    Ok(first)
}

/// What the terminal was like before its echo was turned off.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Asks for a secret on the terminal; `None` if there is none. What is typed isn't shown.
fn ask(question: &str) -> Result<Option<Zeroizing<String>>> {
    let opened = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty");
    let Ok(mut terminal) = opened else {
        return Ok(None);
    };
    let failed = |e: rustix::io::Errno| Error::io("cannot ask on the terminal", e.into());
    let before = tcgetattr(&terminal).map_err(failed)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    let asked = progress::hidden(|| {
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        terminal.write_all(question.as_bytes())?;
        let mut line = Zeroizing::new(String::new());
        BufReader::new((&terminal).take(LONGEST)).read_line(&mut line)?;
        std::io::Result::Ok(line)
    });
    echo_again();
    asked
        .map(Some)
        .map_err(|e| Error::io("cannot ask on the terminal", e))
}

/// Leaves the terminal as it was, also when a signal ends the program while it asks.
pub(super) fn echo_again() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before
        && let Ok(terminal) = fs::File::open("/dev/tty")
    {
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
    }
}
