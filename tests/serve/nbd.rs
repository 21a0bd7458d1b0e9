//! What the NBD clients of others see.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, contexts, name_and};
use crate::disk::{Random, assert_same, changed, content, disk, program, run, run_to};
use crate::lab::{Lab, flip};

/// Two snapshots of a disk with holes: their bytes.
fn store(lab: &Lab) -> [Vec<u8>; 2] {
    let mut first = disk(51, 9 << 20);
    first[2 << 20..5 << 20].fill(0);
    let mut second = changed(52, &first);
    second.resize(11 << 20, 0);
    for (name, bytes) in [("mon", &first), ("tue", &second)] {
        let image = lab.image(name, bytes, "raw");
        lab.add(name, &image);
    }
    [first, second]
}

/// Runs a shell script while something is served.
fn while_served(lab: &Lab, what: &str, script: &str, code: i32) -> (String, String) {
    let mut command = lab.command(
        "vhd",
        &["serve", what, "--", "sh", "-ec", script, "sh", "{}"],
    );
    let output = run_to(&mut command, code);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A server that runs until it is ended, and the socket that it has.
struct Running(Child, PathBuf);

fn serve(lab: &Lab, what: &str) -> Running {
    let socket = lab.path("nbd.sock");
    let mut command = lab.command("vhd", &["serve", what, "--socket"]);
    command
        .arg(&socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let stdout = child.stdout.as_mut().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(
        line,
        format!("nbd+unix:///?socket={}\n", socket.to_str().unwrap())
    );
    Running(child, socket)
}

impl Running {
    /// Ends it; its exit code and what it said.
    fn end(self, signal: Signal) -> (Option<i32>, String) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let output = self.0.wait_with_output().unwrap();
        assert!(!self.1.exists(), "the socket is left");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    }
}

#[test]
fn qemu_and_libnbd_see_the_image() {
    let lab = Lab::new();
    let bytes = store(&lab);
    lab.0.file("mon.bytes", &bytes[0]);
    lab.0.file("tue.bytes", &bytes[1]);
    for (what, name) in [
        ("::web@mon", "mon"),
        ("::web@tue", "tue"),
        ("mon.raw", "mon"),
    ] {
        let script = format!(
            "qemu-img compare -f raw -F raw $1 {name}.bytes
             rm -f copy.*; nbdcopy $1 copy.raw; cmp copy.raw {name}.bytes
             qemu-img convert -f raw -O qcow2 $1 copy.qcow2
             qemu-img compare -f qcow2 -F raw copy.qcow2 {name}.bytes
             qemu-io -r -f raw -c 'read 5 1000001' $1
             nbdinfo --size $1
             qemu-io -f raw -c 'write 0 512' $1 && exit 1 || true"
        );
        let (out, _) = while_served(&lab, what, &script, 0);
        let size = if name == "mon" { 9 << 20 } else { 11 << 20 };
        assert!(out.contains(&format!("\n{size}\n")), "{out}");
        // What is known to be zero is told.
        let (map, _) = while_served(&lab, what, "nbdinfo --map --totals $1", 0);
        let found: Vec<u64> = map
            .lines()
            .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
            .collect();
        let ours = lab.run("vhd", &["map", what, "--json"]);
        let ours: serde_json::Value = serde_json::from_slice(&ours.stdout).unwrap();
        let mut expected = std::collections::BTreeMap::<String, u64>::new();
        for extent in ours["extents"].as_array().unwrap() {
            let state = extent["state"].as_str().unwrap().to_owned();
            *expected.entry(state).or_default() += extent["length"].as_u64().unwrap();
        }
        let expected: Vec<u64> = expected.into_values().collect();
        assert_eq!(found, expected, "{map}");
    }
    for format in ["fixed", "dynamic"] {
        let image = lab.image("tue", &bytes[1], format);
        while_served(
            &lab,
            &image,
            "qemu-img compare -f raw -F raw $1 tue.bytes",
            0,
        );
    }
    // Through a port, with JSON.
    let mut command = lab.command("vhd", &["serve", "mon.raw", "--listen", "0", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut out = out.lines().map(Result::unwrap);
    let line = out.find(|line| line.contains("\"uri\": ")).unwrap();
    let uri = line.split('"').nth(3).unwrap();
    assert!(uri.starts_with("nbd://127.0.0.1:"), "{line}");
    run(Command::new("nbdinfo").arg("--size").arg(uri));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert!(out.any(|line| line.contains("\"exit_code\": 0")));
    assert!(child.wait().unwrap().success());
}

/// What nbdinfo says of the blocks in a context: offset, length and whether they are dirty.
fn dirty(map: &str) -> Vec<(usize, usize, bool)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let mut number = || words.next().unwrap().parse().unwrap();
        (number(), number(), number() == 1)
    };
    map.lines().map(line).collect()
}

/// Backup programs that pull increments take them out of a store: what is dirty since an earlier snapshot, laid over that
/// one, makes the later one.
#[test]
fn what_changed_since_an_earlier_snapshot_is_dirty() {
    for lab in [Lab::new(), Lab::packed()] {
        let mut all: Vec<(&str, Vec<u8>)> = Vec::new();
        let mut bytes = disk(61, 9 << 20);
        for (n, name) in ["mon", "tue", "wed", "thu"].into_iter().enumerate() {
            let image = lab.image(name, &bytes, "raw");
            lab.add(name, &image);
            all.push((name, bytes.clone()));
            bytes = changed(n as u64 + 62, &bytes);
            bytes.resize([11 << 20, 6 << 20, 12 << 20, 1][n], 0);
        }
        for (n, (to, after)) in all.iter().enumerate() {
            let what = format!("::web@{to}");
            let (listed, _) = while_served(&lab, &what, "nbdinfo --json $1", 0);
            for (m, (since, before)) in all.iter().enumerate() {
                let context = format!("qemu:dirty-bitmap:since-{since}");
                assert_eq!(
                    listed.contains(&format!("\"{context}\"")),
                    m < n,
                    "{listed}"
                );
                if m >= n {
                    continue;
                }
                let script = format!("nbdinfo --map={context} $1");
                let map = dirty(&while_served(&lab, &what, &script, 0).0);
                let mut made = before.clone();
                made.resize(after.len(), 0);
                let mut end = 0;
                for (start, len, is_dirty) in map {
                    assert_eq!(start, end);
                    end = start + len;
                    if is_dirty {
                        made[start..end].copy_from_slice(&after[start..end]);
                    }
                }
                assert_eq!(end, after.len());
                assert_same(&made, after, &format!("{since} to {to}"));
            }
        }
        // QEMU asks for one context, and calls dirty what isn't data.
        let script = "qemu-img map --output=json --image-opts \
                      driver=nbd,server.type=unix,server.path=${1#*socket=},x-dirty-bitmap=qemu:dirty-bitmap:since-mon";
        let (map, _) = while_served(&lab, "::web@tue", script, 0);
        let found: serde_json::Value = serde_json::from_str(&map).unwrap();
        let of_qemu: u64 = found
            .as_array()
            .unwrap()
            .iter()
            .filter(|extent| extent["data"] == false)
            .map(|extent| extent["length"].as_u64().unwrap())
            .sum();
        let script = "nbdinfo --map=qemu:dirty-bitmap:since-mon $1";
        let map = dirty(&while_served(&lab, "::web@tue", script, 0).0);
        let ours: usize = map.iter().filter(|part| part.2).map(|part| part.1).sum();
        assert_eq!(of_qemu, ours as u64);
        assert!(ours < 9 << 20, "{ours}");
    }
}

#[test]
fn contexts_are_those_of_the_export_that_is_chosen() {
    let lab = Lab::new();
    store(&lab);
    let running = serve(&lab, "::web");
    let since = "qemu:dirty-bitmap:since-mon";
    let agreed = |export: &str, queries: &[&str]| {
        let mut client = Client::connect(&running.1).unwrap();
        client.send(&1_u32.to_be_bytes()).unwrap();
        client.option(8, &[]).unwrap();
        assert_eq!(client.answer().unwrap().0, 1);
        client.option(10, &contexts(export, queries)).unwrap();
        let mut found = Vec::new();
        let end = loop {
            match client.answer().unwrap() {
                (4, data) => found.push(String::from_utf8(data[4..].to_vec()).unwrap()),
                (end, _) => break end,
            }
        };
        (client, found, end)
    };
    let (mut client, found, _) = agreed("web@tue", &[since, "base:allocation", since, "qemu:"]);
    assert_eq!(found, [since, "base:allocation"]);
    client.option(7, &name_and("web@tue", &[0, 0])).unwrap();
    while client.answer().unwrap().0 != 1 {}
    // Both at once: pairs of length and state, each context to the same end.
    client.request(7, 0, 11 << 20).unwrap();
    assert!(client.reply().unwrap().unwrap().len() >= 16);
    // Another export has none of it.
    let (mut client, ..) = agreed("web@tue", &[since]);
    client.option(7, &name_and("web@mon", &[0, 0])).unwrap();
    while client.answer().unwrap().0 != 1 {}
    client.request(7, 0, 4096).unwrap();
    assert_eq!(client.reply().unwrap(), Err(22));
    // Neither its own name, nor one that isn't there or is no text.
    for name in ["tue", "wed", "", "mon\u{1b}"] {
        let query = format!("qemu:dirty-bitmap:since-{name}");
        assert!(agreed("web@tue", &[&query]).1.is_empty(), "{name}");
    }
    assert!(agreed("web@mon", &[since]).1.is_empty());
    running.end(Signal::INT);
}

#[test]
fn a_store_is_served_with_all_its_snapshots() {
    let lab = Lab::new();
    let bytes = store(&lab);
    lab.good(&["create", "--disk", "db", "--name", "first", "mon.raw"]);
    let running = serve(&lab, "::");
    let mut client = Client::connect(&running.1).unwrap();
    client.send(&1_u32.to_be_bytes()).unwrap();
    client.option(3, &[]).unwrap();
    let mut names = Vec::new();
    while let (2, data) = client.answer().unwrap() {
        let len = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
        names.push(String::from_utf8(data[4..4 + len].to_vec()).unwrap());
    }
    assert_eq!(names, ["db@first", "web@mon", "web@tue"]);
    let all = |name: &str| {
        let mut client = Client::connect(&running.1).unwrap();
        client.go(name, true).map(|()| client)
    };
    for (name, bytes) in [
        ("web@mon", &bytes[0]),
        ("web@tue", &bytes[1]),
        ("web", &bytes[1]),
        ("db", &bytes[0]),
    ] {
        let len = u32::try_from(bytes.len()).unwrap();
        let read = all(name).unwrap().read(0, len).unwrap();
        assert_same(&read, bytes, name);
    }
    for name in ["", "web@wed", "nothing", "@mon", "../web@mon", "web@"] {
        assert!(all(name).is_err(), "{name}");
    }
    // Several clients at once, while the store changes under them.
    let mut clients: Vec<Client> = (0..4).map(|_| all("web@mon").unwrap()).collect();
    thread::scope(|scope| {
        for (n, client) in clients.iter_mut().enumerate() {
            let expected = &bytes[0];
            scope.spawn(move || {
                let mut random = Random::new(n as u64);
                for _ in 0..300 {
                    let len = 1 + random.below(100_000);
                    let at = random.below(expected.len() - len);
                    let read = client.read(at as u64, u32::try_from(len).unwrap()).unwrap();
                    assert_same(&read, &expected[at..at + len], "mon");
                }
            });
        }
        let image = lab.image("wed", &bytes[0], "raw");
        lab.add("wed", &image);
        lab.good(&["delete", "web@mon"]);
        lab.good(&["prune", "--disk", "web", "--keep-last", "1"]);
    });
    let len = u32::try_from(bytes[0].len()).unwrap();
    assert_same(&clients[0].read(0, len).unwrap(), &bytes[0], "mon");
    drop(clients);
    assert!(all("web@mon").is_err());
    assert_same(&all("web").unwrap().read(0, len).unwrap(), &bytes[0], "wed");
    let (code, said) = running.end(Signal::TERM);
    assert_eq!(code, Some(0), "{said}");
}

/// Damage is an error for whoever reads it, a message for whoever serves it, and the exit code at the end.
#[test]
fn damage_is_told_on_both_sides() {
    let lab = Lab::new();
    let bytes = store(&lab);
    let diff = lab.file(".vhddiff");
    let len = content(&diff).len();
    flip(&diff, len / 2);
    let (_, said) = while_served(
        &lab,
        "::web@tue",
        "rm -f copy.raw; nbdcopy $1 copy.raw && exit 1 || true",
        3,
    );
    assert!(said.contains(".vhddiff: "), "{said}");
    assert!(said.contains("hint: rebuild it"), "{said}");
    assert!(
        said.contains("not all requested data could be read"),
        "{said}"
    );
    // Other points, and other places, are served as ever; the command's own exit code comes first.
    lab.0.file("mon.bytes", &bytes[0]);
    while_served(
        &lab,
        "::web@mon",
        "rm -f copy.raw; nbdcopy $1 copy.raw; cmp copy.raw mon.bytes",
        0,
    );
    while_served(&lab, "::web@tue", "nbdcopy $1 copy.raw || exit 7", 7);
    let running = serve(&lab, "::web@tue");
    let mut client = Client::connect(&running.1).unwrap();
    client.go("", true).unwrap();
    let mut failed = 0;
    for at in (0..11 << 20).step_by(1 << 18) {
        client.request(0, at, 1 << 18).unwrap();
        failed += match client.reply().unwrap() {
            Err(number) => number,
            Ok(_) => 0,
        };
    }
    assert!(failed > 0 && failed % 5 == 0);
    let (code, said) = running.end(Signal::INT);
    assert_eq!(code, Some(3), "{said}");
    let messages = said.lines().filter(|line| line.contains("error: ")).count();
    assert!((2..=3).contains(&messages), "{said}");
}

#[test]
fn what_can_not_be_served_is_refused() {
    let lab = Lab::new();
    store(&lab);
    fs::write(lab.path("taken"), b"").unwrap();
    drop(UnixListener::bind(lab.path("left.sock")).unwrap());
    for (args, code, text) in [
        (&["::web@wed"][..], 2, "no such snapshot"),
        (&["::nothing"], 2, "no such disk"),
        (&["nothing.raw"], 2, "cannot open"),
        (&["-"], 2, "pipe"),
        (&["::web@mon", "-f", "raw"], 2, "can't be chosen"),
        (&["mon.raw", "--listen", "0.0.0.0:0"], 2, "ssh -L"),
        (
            &["mon.raw", "--socket", "left.sock"],
            2,
            "remove it with rm",
        ),
        // What isn't a socket is never to be removed.
        (
            &["mon.raw", "--socket", "taken"],
            2,
            "isn't a socket: choose",
        ),
        (
            &["mon.raw", "--socket", "mon.raw"],
            2,
            "isn't a socket: choose",
        ),
        (
            &["mon.raw", "--socket", "/dev/null"],
            2,
            "isn't a socket: choose",
        ),
        (&["mon.raw", "--", "no such program"], 2, "after --"),
    ] {
        let mut command = program("vhd");
        command
            .arg("serve")
            .args(args)
            .current_dir(lab.path("."))
            .env("VHDKIT_STORE", lab.path("store"));
        let output = run_to(&mut command, code);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(text), "{args:?}: {said}");
    }
}
