//! A week of a real file system on a managed disk: written through a grant, backed up every night, with kills in the middle;
//! every point in time is what the disk was.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::cloud_lab::Lab;
use super::ext4::Ext4;

/// Bytes that are written at a time.
const BLOCK: usize = 64 << 10;

/// Writes what differs from `before`.
fn send(lab: &Lab, disk: &vhdkit::cloud::Resource, before: &[u8], now: &[u8]) {
    use vhdkit::storage::WriteAt as _;
    let current = lab.cloud.refresh(disk).unwrap();
    let write = vhdkit::cloud::Access::Write;
    let far = lab.cloud.open(&current, write, "disk".as_ref()).unwrap();
    for (n, (old, new)) in before.chunks(BLOCK).zip(now.chunks(BLOCK)).enumerate() {
        if old != new {
            far.write_all_at(new, (n * BLOCK) as u64).unwrap();
        }
    }
    far.sync().unwrap();
}

#[test]
fn a_week_of_a_file_system_comes_back_whole() {
    const BACKUP: &str = "vhd backup azure:prod/web --to shelf --init --keep-snapshots 2";
    let lab = Lab::new();
    let work = lab.path("work");
    fs::create_dir(&work).unwrap();
    let mut system = Ext4::new(work);
    let mut now = fs::read(&system.image).unwrap();
    let disk = lab.disk("web", &now);
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    for (n, day) in days.iter().enumerate() {
        match n {
            0 => {}
            1 => system.overwrite("srv/database", 40),
            2 => system.add("srv/photos-3", 3 << 20),
            3 => system.append("var/log/syslog", 200 << 10),
            4 => system.delete("srv/photos-1"),
            5 => system.add("home/report.txt", 700 << 10),
            _ => system.overwrite("srv/database", 200),
        }
        let today = fs::read(&system.image).unwrap();
        send(&lab, &disk, &now, &today);
        now = today;
        fs::write(lab.path(&format!("{day}.img")), &now).unwrap();
        if n % 3 == 1 {
            // Killed as soon as it reads.
            let mut child = lab
                .command("vhd")
                .args(BACKUP.split(' ').skip(1))
                .args(["--name", &format!("{day}-killed"), "--limit-rate", "64K"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let begun = Instant::now();
            let name = super::cloud_lab::name("azure:prod/web");
            while !lab
                .cloud
                .family(&name)
                .unwrap()
                .snapshots
                .iter()
                .any(vhdkit::cloud::Resource::is_granted)
                && child.try_wait().unwrap().is_none()
            {
                assert!(begun.elapsed() < Duration::from_secs(60));
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            child.wait().unwrap();
        }
        lab.good(&format!("{BACKUP} --name {day}"));
        lab.assert_nothing_granted();
    }
    for day in days {
        let _ = fs::remove_file(lab.path("back.raw"));
        lab.good(&format!(
            "vhd snapshot restore --store shelf web@{day} -o back.raw"
        ));
        let expected = fs::read(lab.path(&format!("{day}.img"))).unwrap();
        assert!(fs::read(lab.path("back.raw")).unwrap() == expected, "{day}");
    }
    lab.good("vhd snapshot verify --store shelf --read-data");
    let left = lab
        .cloud
        .family(&super::cloud_lab::name("azure:prod/web"))
        .unwrap();
    let names: Vec<&str> = left.snapshots.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["sat", "sun"]);
}
