//! Stores that are encrypted: that they work as others do, that nothing shows from outside, and that whoever has the key
//! needs nothing else than `age` and `vhd-apply`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::disk::{Random, assert_same, content, disk, pipe, run, run_to};
use crate::store::lab::{Lab, flip};

/// What nobody may see, neither in a file of the store nor in the name of one.
const TOLD: [&str; 7] = [
    "payroll",
    "before-merger",
    "after-merger",
    "much-later",
    "figures",
    "confidential",
    "correct horse",
];

const PASSPHRASE: &str = "correct horse battery";

/// A key as `age-keygen` makes it; the name of its file.
fn key(lab: &Lab, name: &str) -> String {
    run(Command::new("age-keygen").args(["-o".into(), lab.path(name)]));
    name.to_owned()
}

/// A folder with an encrypted store whose key is in the file `key`.
fn by_key() -> Lab {
    let lab = Lab::empty();
    key(&lab, "key");
    lab.good(&["init", "--encrypt", "--key-file", "key", "store"]);
    lab
}

/// A folder with an encrypted store whose passphrase is in the file `pass`, and its recovery key in `recovery`.
fn by_passphrase() -> Lab {
    let lab = Lab::empty();
    lab.0.file("pass", PASSPHRASE.as_bytes());
    let args = ["--passphrase-file", "pass", "--recovery-key", "recovery"];
    let said = lab.good(&[&["init", "--encrypt", "store"], &args[..]].concat());
    assert!(said.contains("keep it elsewhere"), "{said}");
    lab
}

/// With the key of [`by_key`].
fn keyed<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &["--key-file", "key"]].concat()
}

/// All files below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        }
        files.push(path);
    }
    files.sort();
    files
}

/// The folder of the only disk of a store.
fn only_disk(lab: &Lab, store: &str) -> PathBuf {
    let mut folders = walk(&lab.path(store));
    folders.retain(|path| path.is_dir());
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders.remove(0)
}

/// The files of the only disk whose names end so.
fn stored(lab: &Lab, store: &str, ending: &str) -> Vec<PathBuf> {
    let mut files = walk(&only_disk(lab, store));
    files.retain(|file| file.to_str().unwrap().ends_with(ending));
    files
}

/// Fails if anything in the store tells a name, or has any of these bytes.
fn tells_nothing(lab: &Lab, secrets: &[&[u8]]) {
    let key = content(lab.path("key"));
    let key = String::from_utf8(key).unwrap();
    let key = key.lines().last().unwrap();
    let names = TOLD.iter().map(|name| name.as_bytes());
    let all: Vec<&[u8]> = names
        .chain(secrets.iter().copied())
        .chain([key.as_bytes()])
        .collect();
    let finder = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
    for path in walk(&lab.path("store")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = if path.is_file() {
            content(&path)
        } else {
            Vec::new()
        };
        for what in &all {
            assert!(!finder(name.as_bytes(), what), "{name}");
            assert!(!finder(&bytes, what), "{name}");
        }
        let free = name.contains(".damaged")
            || name == "vhdkit-store.json"
            || name == "lock"
            || name == "copy.lock";
        assert!(
            path.is_dir() || free || bytes.starts_with(b"age-encryption.org/v1\n"),
            "{name} is as it is"
        );
    }
}

/// Three points of a disk. No bytes of theirs can be packed.
fn points(lab: &Lab) -> Vec<Vec<u8>> {
    let mut bytes = disk(3, 2 << 20);
    let mut random = Random::new(9);
    let mut all = Vec::new();
    for name in ["before-merger", "after-merger", "much-later"] {
        bytes[300_032..300_032 + 70_000].copy_from_slice(&random.bytes(70_000));
        lab.0.file("figures.raw", &bytes);
        let tag = ["--tag", "why=confidential", "--name", name, "figures.raw"];
        lab.good(&keyed(
            &[&["create", "--disk", "payroll"], &tag[..]].concat(),
        ));
        all.push(bytes.clone());
    }
    all
}

fn restores(lab: &Lab, store: &str, name: &str, bytes: &[u8]) {
    let args = [
        "restore", "--store", store, name, "-o", "restored", "--force",
    ];
    lab.good(&keyed(&args));
    assert_same(&content(lab.path("restored")), bytes, name);
}

#[test]
fn a_whole_life_in_which_nothing_shows() {
    let lab = by_key();
    let all = points(&lab);
    let secrets: Vec<&[u8]> = all.iter().map(|bytes| &bytes[300_032..300_064]).collect();
    tells_nothing(&lab, &secrets);
    let listed = lab.good(&keyed(&["list"]));
    assert!(
        listed.contains("payroll") && listed.contains("much-later"),
        "{listed}"
    );
    for (name, bytes) in ["before-merger", "after-merger", "much-later"]
        .iter()
        .zip(&all)
    {
        restores(&lab, "store", name, bytes);
    }
    for line in [
        "verify --read-data",
        "show before-merger",
        "stats",
        "map",
        "hash much-later",
        "diff before-merger much-later",
        "hold after-merger --reason confidential",
        "tag after-merger --set note=confidential",
        "rename after-merger payroll-2",
        "prune --keep-last 2",
        "verify --read-data",
        "repair",
        "upgrade",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let said = lab.ends(line.starts_with("diff").into(), &keyed(&args));
        assert!(!said.contains("AGE-SECRET"), "{line}: {said}");
        tells_nothing(&lab, &secrets);
    }
    restores(&lab, "store", "payroll-2", &all[1]);
    // A point in time as an image, by every command.
    let point = "store::payroll@payroll-2";
    lab.run("vhd", &keyed(&["hash", point]));
    lab.run("vhd", &keyed(&["info", point]));
    lab.run(
        "vhd-diff",
        &keyed(&[point, "store::payroll@much-later", "-o", "d.vhddiff"]),
    );
    lab.good(&keyed(&[
        "create",
        "--full",
        "--disk",
        "payroll",
        "--name",
        "much-later-2",
        "figures.raw",
    ]));
    lab.good(&keyed(&["delete", "payroll-2", "--release-hold"]));
    lab.good(&keyed(&["verify", "--read-data"]));
    tells_nothing(&lab, &secrets);
    restores(&lab, "store", "much-later", &all[2]);
    lab.good(&keyed(&["delete", "much-later"]));
    restores(&lab, "store", "much-later-2", &all[2]);
    let names: Vec<String> = walk(&only_disk(&lab, "store"))
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let kinds = ["vhddiff.age", "json.age", "newest.windows.age", "lock"];
    assert!(
        names
            .iter()
            .all(|name| kinds.iter().any(|kind| name.ends_with(kind))),
        "{names:?}"
    );
}

#[test]
fn age_and_vhd_apply_restore_by_hand_and_what_age_wrote_is_read() {
    let lab = by_key();
    let all = points(&lab);
    let mut plain = vec!["/dev/null".to_owned()];
    for (n, file) in stored(&lab, "store", ".vhddiff.age").iter().enumerate() {
        let to = format!("{n}.vhddiff");
        run(Command::new("age")
            .current_dir(lab.path("."))
            .args(["-d", "-i", "key", "-o", &to])
            .arg(file));
        plain.push(to);
    }
    let args: Vec<&str> = plain.iter().map(String::as_str).collect();
    lab.run("vhd-apply", &[&args[..], &["-o", "by-hand.raw"]].concat());
    assert_same(&content(lab.path("by-hand.raw")), &all[2], "by hand");
    let public = String::from_utf8(content(lab.path("key"))).unwrap();
    let public = public
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "));
    for file in walk(&only_disk(&lab, "store")) {
        if file.extension().is_none_or(|ending| ending != "age") {
            continue;
        }
        let decrypt = Command::new("age")
            .args(["-d", "-i"])
            .args([&lab.path("key"), &file])
            .output()
            .unwrap();
        assert!(decrypt.status.success(), "{file:?}: {decrypt:?}");
        let name = file.to_str().unwrap();
        if name.ends_with(".json.age") {
            let manifest: serde_json::Value = serde_json::from_slice(&decrypt.stdout).unwrap();
            assert_eq!(manifest["source"]["name"], "figures.raw");
        }
        lab.0.file("plain", &decrypt.stdout);
        run(Command::new("age")
            .args(["-r", public.unwrap(), "-o"])
            .args([&file, &lab.path("plain")]));
    }
    lab.good(&keyed(&["verify", "--read-data"]));
    for (name, bytes) in ["before-merger", "after-merger", "much-later"]
        .iter()
        .zip(&all)
    {
        restores(&lab, "store", name, bytes);
    }
}

#[test]
fn copies_are_encrypted_with_the_key_of_their_own_store() {
    let lab = by_key();
    let all = points(&lab);
    key(&lab, "other");
    lab.good(&["init", "--encrypt", "--key-file", "other", "second"]);
    let both = ["--key-file", "key", "--key-file", "other"];
    let said = lab.ends(2, &keyed(&["copy", "--to", "second"]));
    assert!(said.contains("not the key of this store"), "{said}");
    lab.good(&[&["copy", "--to", "second"], &both[..]].concat());
    let said = lab.good(&[&["copy", "--to", "second"], &both[..]].concat());
    assert!(said.contains("nothing"), "{said}");
    let args = [
        "verify",
        "--store",
        "second",
        "--read-data",
        "--key-file",
        "other",
    ];
    lab.good(&args);
    let said = lab.ends(2, &keyed(&["list", "--store", "second"]));
    assert!(said.contains("not the key of this store"), "{said}");
    // Out of the protection only if that is wanted.
    for init in [true, false] {
        if !init {
            lab.good(&["init", "plain"]);
        }
        let args: &[&str] = if init { &["--init"] } else { &[] };
        let said = lab.ends(2, &keyed(&[&["copy", "--to", "plain"], args].concat()));
        assert!(
            said.contains("wouldn't be") && said.contains("--unencrypted"),
            "{said}"
        );
        assert!(init != lab.path("plain").exists());
    }
    lab.good(&keyed(&["copy", "--to", "plain", "--unencrypted"]));
    assert!(lab.path("plain/payroll/000001-before-merger.json").exists());
    lab.good(&["verify", "--store", "plain", "--read-data"]);
    // And into it.
    key(&lab, "third-key");
    lab.good(&["init", "--encrypt", "--key-file", "third-key", "third"]);
    let third = [
        "--store",
        "plain",
        "--to",
        "third",
        "--key-file",
        "third-key",
    ];
    lab.good(&[&["copy"], &third[..]].concat());
    let listed = lab.good(&["list", "--store", "third", "--key-file", "third-key"]);
    assert!(listed.contains("much-later"), "{listed}");
    // Through a pipe, which isn't protected by this.
    lab.good(&["init", "--encrypt", "--key-file", "key", "sent"]);
    let (_, said) = (
        pipe(
            &mut lab.command("vhd", &keyed(&["snapshot", "send", "--disk", "payroll"])),
            &mut lab.command("vhd", &keyed(&["snapshot", "receive", "--store", "sent"])),
        ),
        lab.ends(0, &keyed(&["send", "--disk", "payroll", "-o", "stream"])),
    );
    assert!(said.contains("stream is not encrypted"), "{said}");
    restores(&lab, "sent", "much-later", &all[2]);
    // Bases that are images stay where they are.
    lab.good(&["init", "--store-version", "1", "old"]);
    lab.good(&[
        "create",
        "--store",
        "old",
        "--disk",
        "web",
        "--name",
        "a",
        "figures.raw",
    ]);
    let said = lab.ends(4, &keyed(&["copy", "--store", "old", "--to", "store"]));
    assert!(said.contains("packed bases only"), "{said}");
    lab.good(&["upgrade", "--store", "old"]);
    lab.good(&keyed(&["copy", "--store", "old", "--to", "store"]));
}

#[test]
fn whoever_has_no_key_is_told_so_at_once() {
    let lab = by_passphrase();
    lab.0.file("figures.raw", &disk(1, 1 << 20));
    let with = |file: &'static str| ["--passphrase-file", file];
    let create = [
        "create",
        "--disk",
        "payroll",
        "--name",
        "mon",
        "figures.raw",
    ];
    lab.good(&[&create[..], &with("pass")].concat());
    lab.0.file("wrong", b"incorrect horse");
    let before = walk(&lab.path("store"));
    let commands: [&[&str]; 6] = [
        &["list"],
        &["show", "mon"],
        &["verify"],
        &["repair"],
        &["delete", "mon", "--last"],
        &[
            "create",
            "--disk",
            "payroll",
            "--name",
            "tue",
            "figures.raw",
        ],
    ];
    for (n, args) in commands.iter().enumerate() {
        if n < 2 {
            let said = lab.ends(2, &[args, &with("wrong")[..]].concat());
            assert!(said.contains("wrong passphrase"), "{said}");
            assert!(!said.contains("horse"), "{said}");
        }
        // Without a terminal nothing is asked.
        let mut command = Command::new("setsid");
        let inner = lab.command("vhd", &["snapshot"]);
        command
            .arg("-w")
            .arg(inner.get_program())
            .args(inner.get_args());
        command
            .args(*args)
            .current_dir(lab.path("."))
            .env("VHDKIT_STORE", "store");
        let said = String::from_utf8(run_to(&mut command, 2).stderr).unwrap();
        assert!(said.contains("no key was given"), "{said}");
        assert!(said.contains("--passphrase-file FILE"), "{said}");
    }
    assert_eq!(walk(&lab.path("store")), before);
    // By the environment, and by the recovery key.
    let mut command = lab.command("vhd", &["snapshot", "list"]);
    run(command.env("VHDKIT_PASSPHRASE_FILE", lab.path("pass")));
    let mut command = lab.command("vhd", &["snapshot", "list"]);
    run(command.env("VHDKIT_KEY_FILE", lab.path("recovery")));
    // A key that others may read.
    run(Command::new("chmod").args(["644".into(), lab.path("recovery")]));
    let said = lab.good(&["list", "--key-file", "recovery"]);
    assert!(
        said.contains("others may read this key") && said.contains("chmod 600"),
        "{said}"
    );
    for (bad, what) in [
        ("pass", "not a key"),
        ("figures.raw", "cannot read"),
        ("none", "cannot read"),
    ] {
        let said = lab.ends(2, &["list", "--key-file", bad]);
        assert!(said.contains(what), "{said}");
        assert!(!said.contains("horse"), "{said}");
    }
}

#[test]
fn a_passphrase_changes_and_a_lost_key_comes_back() {
    let lab = by_passphrase();
    lab.0.file("figures.raw", &disk(1, 1 << 20));
    let old = ["--passphrase-file", "pass"];
    let create = [
        "create",
        "--disk",
        "payroll",
        "--name",
        "mon",
        "figures.raw",
    ];
    lab.good(&[&create[..], &old].concat());
    lab.0.file("new", b"another one\n");
    let change = ["passphrase", "store", "--new-passphrase-file", "new"];
    lab.ends(2, &[&change[..], &["--passphrase-file", "new"]].concat());
    lab.good(&[&change[..], &old].concat());
    let said = lab.ends(2, &[&["list"], &old[..]].concat());
    assert!(said.contains("wrong passphrase"), "{said}");
    lab.good(&["list", "--passphrase-file", "new"]);
    let key = lab.path("store/vhdkit-store.key.age");
    let kept = content(&key);
    for lost in [true, false] {
        if lost {
            fs::remove_file(&key).unwrap();
        } else {
            flip(&key, kept.len() - 20);
        }
        let said = lab.ends(3, &["list", "--passphrase-file", "new"]);
        assert!(said.contains("use the recovery key"), "{said}");
        assert!(said.contains("--key-file FILE"), "{said}");
        lab.good(&["list", "--key-file", "recovery"]);
        lab.good(&[&change[..], &["--key-file", "recovery"]].concat());
        lab.good(&["verify", "--read-data", "--passphrase-file", "new"]);
    }
    let said = lab.ends(2, &["passphrase", "figures.raw"]);
    assert!(!said.is_empty());
    lab.good(&["init", "plain"]);
    let said = lab.ends(2, &["passphrase", "plain"]);
    assert!(said.contains("not an encrypted store"), "{said}");
}

#[test]
fn a_marker_that_is_lost_or_replaced_is_noticed_and_made_again() {
    let lab = by_passphrase();
    lab.0.file("figures.raw", &disk(1, 1 << 20));
    let with = ["--passphrase-file", "pass"];
    let create = [
        "create",
        "--disk",
        "payroll",
        "--name",
        "mon",
        "figures.raw",
    ];
    lab.good(&[&create[..], &with].concat());
    let marker = lab.path("store/vhdkit-store.json");
    for (bytes, code) in [
        (Some(&b"{}"[..]), 3),
        (Some(b"{\"vhdkit_store\": 3, \"id\": \"x\"}"), 3),
        (Some(b"{\"vhdkit_store\": 2, \"id\": \"x\"}"), 3),
        (None, 2),
    ] {
        let _ = fs::remove_file(&marker);
        if let Some(bytes) = bytes {
            fs::write(&marker, bytes).unwrap();
        }
        for args in [&["list"][..], &create] {
            lab.ends(code, &[args, &with].concat());
        }
        if bytes == Some(b"{\"vhdkit_store\": 2, \"id\": \"x\"}") {
            let said = lab.ends(3, &[&["list"], &with[..]].concat());
            assert!(said.contains("doesn't say that it is encrypted"), "{said}");
            continue;
        }
        let said = lab.ends(2, &["init", "store"]);
        assert!(said.contains("vhd snapshot init --encrypt"), "{said}");
        let again = ["init", "--encrypt", "store", "--recovery-key", "again"];
        lab.0.file("wrong", b"x");
        lab.ends(2, &[&again[..], &["--passphrase-file", "wrong"]].concat());
        lab.good(&[&again[..], &with].concat());
        assert_eq!(
            content(lab.path("again")).last_chunk::<60>(),
            content(lab.path("recovery")).last_chunk::<60>(),
            "the same key"
        );
        fs::remove_file(lab.path("again")).unwrap();
        lab.good(&[&["verify", "--read-data"], &with[..]].concat());
    }
    // Newer, for an older program: as this one refuses what it doesn't know.
    fs::write(&marker, "{\"vhdkit_store\": 5, \"id\": \"x\"}").unwrap();
    let said = lab.ends(3, &[&["list"], &with[..]].concat());
    assert!(said.contains("newer version"), "{said}");
}

#[test]
fn a_store_by_key_file_whose_marker_was_replaced_by_a_plain_one_gets_nothing_as_it_is() {
    let lab = by_key();
    points(&lab);
    let marker = lab.path("store/vhdkit-store.json");
    fs::write(&marker, "{\"vhdkit_store\": 2, \"id\": \"x\"}").unwrap();
    lab.0.file("other.raw", &disk(9, 1 << 20));
    let create = ["create", "--disk", "other", "--name", "a", "other.raw"];
    for args in [&["list"][..], &["verify"], &create] {
        for args in [args.to_vec(), keyed(args)] {
            let said = lab.ends(3, &args);
            assert!(said.contains("there is an encrypted disk"), "{said}");
        }
    }
    assert_eq!(fs::read_dir(lab.path("store")).unwrap().count(), 2);
}

#[test]
fn damage_has_a_name_and_is_repaired_from_another_store() {
    let lab = by_key();
    let all = points(&lab);
    lab.good(&["init", "--encrypt", "--key-file", "key", "second"]);
    lab.good(&keyed(&["copy", "--to", "second"]));
    for ending in [".vhddiff.age", ".json.age", "newest.windows.age"] {
        for file in stored(&lab, "store", ending) {
            let whole = content(&file);
            for at in [10, 120, 190, whole.len() - 1] {
                flip(&file, at);
                let said = lab.ends(1, &keyed(&["verify", "--read-data"]));
                assert!(!said.contains("panicked"), "{said}");
                fs::write(&file, &whole).unwrap();
            }
            for len in [0, 100, 184, 201, whole.len() - 1] {
                fs::write(&file, &whole[..len]).unwrap();
                lab.ends(1, &keyed(&["verify", "--read-data"]));
                lab.good(&keyed(&["repair", "--from", "second"]));
                lab.good(&keyed(&["verify", "--read-data"]));
            }
        }
    }
    for (name, bytes) in ["before-merger", "after-merger", "much-later"]
        .iter()
        .zip(&all)
    {
        restores(&lab, "store", name, bytes);
    }
    let secrets: Vec<&[u8]> = all.iter().map(|bytes| &bytes[300_032..300_064]).collect();
    tells_nothing(&lab, &secrets);
    // A file of another store, whose key is another one.
    key(&lab, "other");
    lab.good(&["init", "--encrypt", "--key-file", "other", "third"]);
    let both = ["--to", "third", "--key-file", "key", "--key-file", "other"];
    lab.good(&[&["copy"], &both[..]].concat());
    let foreign = &stored(&lab, "third", ".vhddiff.age")[1];
    let own = &stored(&lab, "store", ".vhddiff.age")[1];
    let kept = content(own);
    fs::copy(foreign, own).unwrap();
    let said = lab.ends(1, &keyed(&["verify"]));
    assert!(said.contains("another key"), "{said}");
    assert!(said.contains("000002-after-merger.vhddiff"), "{said}");
    fs::write(own, kept).unwrap();
    // Under its own name it is nothing that the store would read.
    fs::copy(foreign, own.with_file_name(foreign.file_name().unwrap())).unwrap();
    lab.good(&keyed(&["list"]));
    lab.good(&keyed(&[
        "create",
        "--disk",
        "payroll",
        "--name",
        "next",
        "figures.raw",
    ]));
}

/// Runs a line in a terminal, types an answer to each question, and returns what the terminal showed.
fn in_terminal(lab: &Lab, line: &str, answers: &[(&str, &str)]) -> String {
    let mut command = Command::new("script")
        .args(["-qec", line, "/dev/null"])
        .current_dir(lab.path("."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (
        command.stdin.take().unwrap(),
        command.stdout.take().unwrap(),
    );
    let (mut seen, mut from, mut buf) = (String::new(), 0, [0; 4096]);
    let mut answers = answers.iter();
    let mut next = answers.next();
    loop {
        let len = output.read(&mut buf).unwrap_or(0);
        if len == 0 {
            break;
        }
        seen.push_str(&String::from_utf8_lossy(&buf[..len]));
        if let Some((question, answer)) = next
            && seen[from..].contains(question)
        {
            from = seen.len();
            input.write_all(format!("{answer}\n").as_bytes()).unwrap();
            next = answers.next();
        }
    }
    assert!(next.is_none(), "{next:?} wasn't asked: {seen}");
    let status = command.wait().unwrap();
    assert!(status.success(), "{status}: {seen}");
    seen
}

#[test]
fn a_passphrase_is_typed_unseen_and_age_takes_it_too() {
    let lab = Lab::empty();
    let vhd = lab
        .command("vhd", &[])
        .get_program()
        .to_str()
        .unwrap()
        .to_owned();
    let seen = in_terminal(
        &lab,
        &format!("{vhd} snapshot init --encrypt store"),
        &[
            ("New passphrase of store: ", PASSPHRASE),
            ("The same again: ", PASSPHRASE),
        ],
    );
    assert!(!seen.contains("horse"), "{seen}");
    let printed = seen
        .split_whitespace()
        .find(|word| word.starts_with("AGE-SECRET-KEY-1"));
    let printed = printed.unwrap();
    lab.0.file("a.raw", &disk(1, 1 << 20));
    let create = format!("{vhd} snapshot create --store store --disk web a.raw");
    let seen = in_terminal(&lab, &create, &[("Passphrase of store: ", PASSPHRASE)]);
    assert!(!seen.contains("horse"), "{seen}");
    let line = "age -d -o opened store/vhdkit-store.key.age";
    in_terminal(&lab, line, &[("passphrase", PASSPHRASE)]);
    let opened = String::from_utf8(content(lab.path("opened"))).unwrap();
    assert_eq!(opened.trim(), printed);
    // What age makes of it opens the store.
    fs::remove_file(lab.path("store/vhdkit-store.key.age")).unwrap();
    let line = "age -p -o store/vhdkit-store.key.age opened";
    in_terminal(
        &lab,
        line,
        &[
            ("nter passphrase", "of age"),
            ("onfirm passphrase", "of age"),
        ],
    );
    lab.0.file("pass", b"of age");
    lab.good(&["list", "--passphrase-file", "pass"]);
    // Nobody sees a recovery key that is printed to a file.
    lab.0.file("pass", b"x");
    let said = lab.ends(
        2,
        &["init", "--encrypt", "--passphrase-file", "pass", "other"],
    );
    assert!(said.contains("--recovery-key FILE"), "{said}");
    assert!(!lab.path("other").exists());
}
