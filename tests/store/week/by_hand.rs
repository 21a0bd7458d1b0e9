//! Restoring as `docs/store-format.md` tells a person to: with the names of the files and `vhd-apply`, nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::disk::{command, run};
use crate::store::lab::ends;
use crate::week::Day;

/// Makes `out` as the disk was on that day.
pub(crate) fn restore(folder: &Path, day: &Day, out: &Path) {
    let files = files_of(folder, day.name);
    assert_eq!(
        files,
        chain(folder, day.name),
        "the names say another chain than the manifests"
    );
    let files: Vec<PathBuf> = files.iter().map(|file| folder.join(file)).collect();
    match files.as_slice() {
        [base] => run(&mut command!(
            "vhd", "convert", base, out, "-O", "raw", "-q"
        )),
        _ => run(command!("vhd-apply", "-q", "-o", out).args(&files)),
    };
}

/// In the order of `ls`: from the last base at or before the snapshot on, up to the snapshot.
fn files_of(folder: &Path, name: &str) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|file| ends(file, "vhd") || ends(file, "vhddiff"))
        .collect();
    names.sort();
    let is_it = |file: &String| file.split(['-', '.']).nth(1) == Some(name);
    let until = names.iter().position(is_it).unwrap();
    names.truncate(until + 1);
    let base = names.iter().rposition(|file| ends(file, "vhd")).unwrap();
    names.split_off(base)
}

/// The same from the manifests: from parent to parent.
fn chain(folder: &Path, name: &str) -> Vec<String> {
    let manifests: Vec<Value> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == "json"))
        .map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
        .collect();
    let mut at = manifests.iter().find(|found| found["name"] == name);
    let mut files = Vec::new();
    while let Some(manifest) = at {
        files.push(manifest["data"]["file"].as_str().unwrap().to_owned());
        at = manifests
            .iter()
            .find(|found| found["id"] == manifest["parent"]);
    }
    files.reverse();
    files
}
