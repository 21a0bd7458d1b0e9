"""A store in a folder goes to a container, killed ten times on its way; other programs read what is there. Run by main.rs."""
import os
import random
import subprocess
import time
from datetime import datetime, timedelta, timezone

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobLeaseClient, BlobServiceClient, generate_container_sas

E = os.environ
NAMES = ["mon", "tue", "wed", "thu", "fri"]
endpoint = E["AZURE_STORAGE_SERVICE_ENDPOINT"]
there = f"{endpoint}/backups/night"


def run(*args, code=0):
    done = subprocess.run(args, capture_output=True, text=True)
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def vhd(*args, code=0):
    return run("vhd", *args, code=code)


def points():
    """Five points of a real file system: files come, change and go."""
    run("truncate", "-s", "48M", "disk.raw")
    run("mke2fs", "-q", "-t", "ext4", "-F", "disk.raw")
    vhd("snapshot", "init", "store")
    numbers = random.Random(1)
    for n, name in enumerate(NAMES):
        with open("file", "wb") as f:
            f.write(numbers.randbytes(3 << 20))
        commands = [f"write file f{n}"] + ([f"rm f{n - 2}"] if n > 2 else [])
        for command in commands:
            run("debugfs", "-w", "-R", command, "disk.raw")
        run("cp", "--sparse=always", "disk.raw", f"{name}.raw")
        vhd("snapshot", "create", "--store", "store", "--disk", "web", "--name", name,
            "--time", f"2026-11-2{n}T06:00:00Z", "disk.raw")
        run("e2fsck", "-fn", "disk.raw")


points()
service = BlobServiceClient.from_connection_string(E["AZURE_STORAGE_CONNECTION_STRING"])
container = service.create_container("backups")
blob = container.get_blob_client("night/web.vhd")

# Killed ten times, each time later; what a killed program held is taken from it.
killed, wait = 0, 0.05
while killed < 10:
    copy = subprocess.Popen(["vhd", "snapshot", "copy", "--store", "store", "--to", there, "--limit-rate", "6M"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(wait)
    if copy.poll() is not None:
        assert copy.returncode == 0, copy.returncode
        break
    copy.kill()
    copy.wait()
    killed += 1
    wait += 0.1
    try:
        BlobLeaseClient(blob).break_lease(0)
    except HttpResponseError:
        pass
print("killed", killed, "times")
assert killed >= 5
said = vhd("snapshot", "copy", "--store", "store", "--to", there)
assert "the newest is fri" in said, said
for name in NAMES:
    vhd("snapshot", "restore", "--store", there, f"web@{name}", "-o", "out.raw", "--force")
    run("cmp", "out.raw", f"{name}.raw")
said = vhd("snapshot", "verify", "--store", there, "--read-data")
assert "5 snapshots, all data read and compared with the digests: no problems" in said, said

# The SDK lists the points in time, and reads them.
listed = container.list_blobs(name_starts_with="night/", include=["snapshots", "metadata"])
snapshots = sorted((b for b in listed if b.snapshot), key=lambda b: b.snapshot)
assert [b.metadata["vhdkit_name"] for b in snapshots] == NAMES
for b in snapshots:
    data = container.get_blob_client(b.name, snapshot=b.snapshot).download_blob().readall()
    with open(b.metadata["vhdkit_name"] + ".raw", "rb") as f:
        assert data[:-512] == f.read()
    assert data[-512:-504] == b"conectix"
assert "vhdkit_state" not in (blob.get_blob_properties().metadata or {})
changed = blob.list_page_ranges(previous_snapshot=snapshots[-1].snapshot)
assert list(changed) == []

# azcopy lists and downloads the newest point in time, and an earlier one.
sas = generate_container_sas(E["AZURE_STORAGE_ACCOUNT"], "backups", account_key=E["AZURE_STORAGE_KEY"], permission="rl",
                             expiry=datetime.now(timezone.utc) + timedelta(hours=1))
common = ["--skip-version-check"]
names = run("azcopy", "list", f"{endpoint}/backups?{sas}", "--location", "Blob", *common)
assert "night/web.vhd" in names, names
for query, name in [("", "fri"), (f"snapshot={snapshots[1].snapshot}&", "tue")]:
    run("azcopy", "copy", f"{endpoint}/backups/night/web.vhd?{query}{sas}", "down.vhd", "--from-to", "BlobLocal", "--overwrite=true", *common)
    with open("down.vhd", "rb") as f, open(f"{name}.raw", "rb") as expected:
        assert f.read()[:-512] == expected.read(), name

# Back to a folder, which is a store like the first one.
vhd("snapshot", "copy", "--init", "--store", there, "--to", "back")
for name in NAMES:
    vhd("snapshot", "restore", "--store", "back", f"web@{name}", "-o", "out.raw", "--force")
    run("cmp", "out.raw", f"{name}.raw")
# A night after which little changed needs few requests.
with open("disk.raw", "r+b") as f:
    f.seek(20 << 20)
    f.write(b"night" * 1000)
vhd("snapshot", "create", "--store", "store", "--disk", "web", "--name", "sat", "disk.raw")
said = vhd("snapshot", "copy", "-v", "--store", "store", "--to", there)
requests = next(line for line in said.splitlines() if " requests: " in line)
print(requests)
assert int(requests.split(" requests")[0].split()[-1]) <= 32, said
print("all as expected")
