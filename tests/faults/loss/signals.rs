//! Ctrl-C, termination and a terminal that goes away.

use std::fs;
use std::process::Child;

use crate::disk::{program, run};
use crate::loss::scene::{Scene, ended};

const SIGNALS: [(&str, i32); 3] = [("INT", 130), ("TERM", 143), ("HUP", 129)];

/// Sends a signal to the program that runs under `strace`.
fn send(strace: &Child, signal: &str) {
    let id = strace.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let child = children.split_whitespace().next().unwrap();
    run(program("kill").args(["-s", signal, child]));
}

/// `line` with the system's own handling of signals, whatever the caller of the tests ignores: `nohup` and some
/// schedulers start everything with SIGHUP ignored.
fn by_default(line: &str) -> String {
    let (name, arguments) = line.split_once(' ').unwrap();
    let ours = program(name);
    let ours = ours.get_program().to_str().unwrap();
    format!("env --default-signal=HUP,INT,TERM {ours} {arguments}")
}

#[test]
fn a_signal_leaves_no_temporary_file() {
    for turn in 0..2 {
        let signals = SIGNALS.iter().cycle().skip(turn);
        let lines = [
            "vhd-diff base.raw target.raw -o new",
            "vhd-apply base.raw diff -o new",
            "vhd-apply base.raw diff --in-place journal",
            "vhd-apply base.raw diff --in-place copy",
            "vhd convert base.raw new.vhd",
        ];
        for (line, (signal, code)) in lines.into_iter().zip(signals) {
            let scene = Scene::new();
            let running = scene.paused(&by_default(line), "fsync:when=1", None);
            scene.wait(|name| name.starts_with(".vhdkit-"));
            // The call at which it pauses comes a moment after.
            std::thread::sleep(std::time::Duration::from_millis(300));
            send(&running, signal);
            ended(&running.wait_with_output().unwrap(), *code);
            scene.no_trace();
            scene.holds("base.raw", &scene.base);
        }
    }
}

#[test]
fn a_signal_behind_the_journal_leaves_both_ways_on() {
    for (n, (signal, code)) in SIGNALS.into_iter().enumerate() {
        let scene = Scene::new();
        let line = "vhd-apply base.raw diff --in-place journal";
        let running = scene.paused(&by_default(line), "fsync:when=1", Some("base.raw"));
        scene.wait(|name| name == "base.raw.undo-journal");
        std::thread::sleep(std::time::Duration::from_millis(300));
        send(&running, signal);
        ended(&running.wait_with_output().unwrap(), code);
        scene.ends(5, "vhd hash base.raw");
        if n == 0 {
            scene.ends(0, "vhd-apply --rollback base.raw");
            scene.holds("base.raw", &scene.base);
        } else {
            scene.ends(0, line);
            scene.holds("base.raw", &scene.target);
        }
        scene.no_trace();
    }
}

/// `nohup` means it.
#[test]
fn a_hangup_that_the_caller_ignores_stays_ignored() {
    let scene = Scene::new();
    fs::write(scene.path("script"), "trap '' HUP; exec \"$@\"").unwrap();
    let apply = program("vhd-apply");
    let apply = apply.get_program().to_str().unwrap();
    let line = format!("sh script {apply} base.raw diff -o new -O raw");
    let running = scene.paused(&line, "fsync:when=1", None);
    scene.wait(|name| name.starts_with(".vhdkit-"));
    std::thread::sleep(std::time::Duration::from_millis(300));
    send(&running, "HUP");
    ended(&running.wait_with_output().unwrap(), 0);
    scene.holds("new", &scene.target);
}
