//! Clients of a mount that do what nobody should.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::disk::{changed, disk};
use crate::lab::Lab;

fn points(lab: &Lab) -> [Vec<u8>; 2] {
    let mut first = disk(71, 2 << 20);
    first[1 << 19..1 << 20].fill(0);
    let second = changed(72, &first);
    for (name, bytes) in [("mon", &first), ("tue", &second)] {
        let image = lab.image(name, bytes, "raw");
        lab.add(name, &image);
    }
    [first, second]
}

/// Clients of a mount that do what nobody should, many at a time, some of them killed while they read.
#[test]
#[ignore = "mounts file systems: needs root"]
fn hostile_clients_of_a_mount() {
    if !Path::new("/dev/fuse").exists() {
        println!("NOT TESTED: mounting, which needs /dev/fuse");
        return;
    }
    let lab = Lab::packed();
    let bytes = points(&lab);
    fs::create_dir(lab.path("m")).unwrap();
    lab.run("vhd", &["mount", "::", "m", "--detach"]);
    let script = r#"
        cd m/web
        for n in 1 2 3 4 5 6 7 8; do (
            for round in 1 2 3 4 5; do
                dd if=tue.raw of=/dev/null bs=$((n * 4096 + 512)) skip=$n status=none
                dd if=tue.raw of=/dev/null bs=1M iflag=direct status=none
                dd if=tue.raw of=/dev/null bs=1 skip=9223372036854775000 count=1 status=none
                echo x > tue.raw; echo x > new; mkdir d; rm -f mon.raw; mv mon.raw x; ln mon.raw y; ln -s a b
                truncate -s 0 mon.raw; fallocate -l 1M mon.raw; touch mon.raw; chmod 777 mon.raw; chown 1 mon.raw
                setfattr -n user.x -v y mon.raw; getfattr -d mon.raw; mkfifo p; mknod q c 1 3; flock -n mon.raw true
                ls -laR .. ; stat -f .; ls "$(head -c 250 /dev/zero | tr '\0' n)"; cat ../../m/web/../web/nothing.raw; cat .
                dd if=mon.raw of=/dev/null bs=64k status=none & victim=$!; kill -9 $victim
                ls -d *.raw/x ./*/; cat tue.raw | head -c 100
            done
        ) > /dev/null 2>&1 & done
        wait
    "#;
    let status = Command::new("timeout")
        .args(["120", "bash", "-c", script])
        .current_dir(lab.path("."))
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0), "somebody was left waiting");
    let held: Vec<fs::File> = (0..500)
        .map(|_| fs::File::open(lab.path("m/web/mon.raw")).unwrap())
        .collect();
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
    for (name, bytes) in [("mon", &bytes[0]), ("tue", &bytes[1])] {
        let found = fs::read(lab.path("m/web").join(format!("{name}.raw"))).unwrap();
        assert!(found == *bytes, "{name}: wrong bytes");
    }
    drop(held);
    lab.run("vhd", &["unmount", "m"]);
    lab.good(&["verify", "--read-data"]);
}
