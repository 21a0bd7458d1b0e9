//! Images that are served and mounted, beside QEMU's programs for that, over the same dynamic VHD.

use std::path::Path;

use super::Result;
use super::cases::{Bench, vhd};
use super::data::make_disk;
use super::run::{Case, Contender, NeedsRoot, Step, Target};

/// A script; its words are `$1` and so on.
fn shell(script: &str, words: &[&Path]) -> Step {
    let step = Step::new("sh").arg("-ec").arg(script).arg("sh");
    words.iter().fold(step, Step::arg)
}

/// A dynamic VHD.
fn image(bench: &Bench) -> Result<std::path::PathBuf> {
    let (raw, dynamic) = (bench.file("disk.img")?, bench.file("disk.vhd")?);
    make_disk(&raw, bench.size().min(2 << 30))?;
    vhd("convert -q --force -O dynamic")
        .arg(&raw)
        .arg(&dynamic)
        .run()?;
    Ok(dynamic)
}

/// The reads of a client of NBD: 4 KiB at random places, 16 at a time.
fn nbd_reads(bench: &Bench) -> String {
    let size = if bench.quick() { "16M" } else { "400M" };
    format!(
        "fio --name=r --ioengine=nbd --rw=randread --bs=4k --iodepth=16 --io_size={size} --size=100% --output=/dev/null --uri="
    )
}

/// QEMU's server of `$1` in the background, until a client is done with the socket `$2`.
fn with_qemu_nbd(client: &str, after: &str) -> String {
    format!(
        "rm -f \"$2\"; qemu-nbd -r -f vpc -t -e 8 -k \"$2\" \"$1\" & \
         for n in $(seq 1000); do [ ! -S \"$2\" ] || break; sleep 0.01; done; \
         {client}'nbd+unix:///?socket='\"$2\"{after} || failed=1; kill $!; wait $! || true; [ -z \"$failed\" ]"
    )
}

pub(crate) fn served_random(bench: &Bench) -> Result<Case> {
    let (image, socket) = (image(bench)?, bench.file("nbd.sock")?);
    let store = bench.file("store")?;
    vhd("snapshot create -q --init --disk web --name one --store")
        .arg(&store)
        .arg(&image)
        .run()?;
    let reads = nbd_reads(bench);
    let ours = |what: &Path| {
        let step = vhd("serve -q").arg(what).arg("--");
        reads.split(' ').fold(step, |step, word| {
            step.arg(if word == "--uri=" { "--uri={}" } else { word })
        })
    };
    let point = format!("{}::web@one", store.display());
    Ok(Case {
        contenders: vec![
            Contender::new("vhd serve").step(ours(&image)),
            Contender::new("vhd serve, a point in time").step(ours(Path::new(&point))),
            Contender::new("qemu-nbd").step(shell(&with_qemu_nbd(&reads, ""), &[&image, &socket])),
        ],
        targets: vec![Target::AtLeastTimesAsFast {
            ours: "vhd serve",
            peer: "qemu-nbd",
            limit: 1.0,
        }],
    })
}

pub(crate) fn served_whole(bench: &Bench) -> Result<Case> {
    let (image, socket) = (image(bench)?, bench.file("nbd.sock")?);
    let copy = vhd("serve -q").arg(&image).words("-- nbdcopy {} null:");
    let theirs = with_qemu_nbd("nbdcopy -- ", " null:");
    Ok(Case {
        contenders: vec![
            Contender::new("vhd serve").step(copy),
            Contender::new("qemu-nbd").step(shell(&theirs, &[&image, &socket])),
        ],
        targets: vec![Target::AtLeastTimesAsFast {
            ours: "vhd serve",
            peer: "qemu-nbd",
            limit: 1.0,
        }],
    })
}

pub(crate) fn mounted_random(bench: &Bench) -> Result<Case> {
    if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
        return Err(NeedsRoot("it needs to mount a file system, with /dev/fuse".into()).into());
    }
    let image = image(bench)?;
    let (folder, file) = (bench.file("m")?, bench.file("disk.fuse")?);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(&file, b"")?;
    let size = if bench.quick() { "16M" } else { "400M" };
    let reads = format!(
        "fio --name=r --ioengine=psync --direct=1 --rw=randread --bs=4k --io_size={size} --readonly --output=/dev/null --filename="
    );
    let step = vhd("mount -q").arg(&image).arg(&folder).arg("--");
    let ours = reads.split(' ').fold(step, |step, word| {
        step.arg(if word == "--filename=" {
            "--filename={}/disk.raw"
        } else {
            word
        })
    });
    let theirs = format!(
        "qemu-storage-daemon --blockdev driver=file,node-name=f,filename=\"$1\",read-only=on \
         --blockdev driver=vpc,node-name=d,file=f,read-only=on \
         --export type=fuse,id=e,node-name=d,mountpoint=\"$2\",writable=off & \
         for n in $(seq 1000); do [ \"$(stat -c %s \"$2\")\" = 0 ] || break; sleep 0.01; done; \
         {reads}\"$2\" || failed=1; kill $!; wait $! || true; [ -z \"$failed\" ]"
    );
    Ok(Case {
        contenders: vec![
            Contender::new("vhd mount").step(ours),
            Contender::new("qemu-storage-daemon").step(shell(&theirs, &[&image, &file])),
        ],
        targets: vec![Target::AtLeastTimesAsFast {
            ours: "vhd mount",
            peer: "qemu-storage-daemon",
            limit: 1.0,
        }],
    })
}
