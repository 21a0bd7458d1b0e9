#!/usr/bin/env bash
# Machines from one template, kept for a month: what our store takes beside borg and restic, on the same images.
#
#   tests/bench/clones.sh [--mib 600] [--clones 6] [--days 30] [--tree /usr] [--dir target/clones] [--vhd vhd]
#
# The template is an ext4 file system of programs and libraries: files of --tree, in an order by chance that is the same
# each time, until they are --mib together. Each clone gets its own name, keys and logs, and newer versions of some
# files. From day to day the template's machine gets logs, scattered writes in a database, and once a week newer versions
# of files. Needs mke2fs and debugfs (no rights of root), borg and restic. What it prints is a table in Markdown.
set -euo pipefail

mib=600 clones=6 days=30 tree=/usr dir=target/clones vhd=vhd
while (($#)); do
    case $1 in
        --mib) mib=$2 ;;
        --clones) clones=$2 ;;
        --days) days=$2 ;;
        --tree) tree=$2 ;;
        --dir) dir=$2 ;;
        --vhd) vhd=$2 ;;
        *) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 2 ;;
    esac
    shift 2
done
for program in mke2fs debugfs borg restic python3 "$vhd"; do
    command -v "$program" >/dev/null || { echo "clones: $program is not installed" >&2 && exit 2; }
done
vhd=$(realpath "$(command -v "$vhd")")
mkdir -p "$dir"
dir=$(mktemp -d "$(realpath "$dir")/run.XXXXXX")
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export RESTIC_PASSWORD=none RESTIC_REPOSITORY=$dir/restic RESTIC_CACHE_DIR=$dir/cache
export BORG_REPO=$dir/borg BORG_BASE_DIR=$dir/base BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes

# Writes the files of a change, and the commands that put them into an image: KIND, what the bytes follow from.
cat >change.py <<'PYTHON'
import os, random, sys
kind, seed = sys.argv[1], sys.argv[2]
chance = random.Random(kind + seed)
words = ["accepted", "connection", "from", "failed", "session", "opened", "for", "user", "systemd", "started", "unit"]
commands = ["cd /"]

def put(path, data):
    local = f"change/{len(commands)}"
    with open(local, "wb") as out:
        out.write(data)
    commands.extend([f"rm {path}", f"write {local} {path}"])

def log(mib):
    lines, size = [], 0
    while size < mib << 20:
        line = "%s host app[%d]: %s %08x\n" % (seed, chance.randrange(99999), " ".join(chance.choices(words, k=7)), chance.getrandbits(32))
        lines.append(line)
        size += len(line)
    return "".join(lines).encode()

# A newer version: the same for every machine; code is moved, and some of it is other code.
def newer(share, version):
    files = [line.rstrip("\n") for line in open("files")]
    pick = random.Random(version)
    for path in pick.sample(files, max(1, int(len(files) * share))):
        data = bytearray(open("tree/" + path, "rb").read())
        for _ in range(1 + len(data) // 20000):
            at = pick.randrange(len(data) + 1)
            data[at:at] = pick.randbytes(pick.randrange(1, 200))
        put("/" + path, bytes(data))

os.makedirs("change", exist_ok=True)
if kind == "clone":
    put("/hostname", seed.encode())
    put("/machine-id", b"%032x" % chance.getrandbits(128))
    for key in ("rsa", "ecdsa", "ed25519"):
        put(f"/ssh_host_{key}_key", chance.randbytes(2600))
    put("/syslog", log(6))
    put("/journal", chance.randbytes(2 << 20) + bytes(6 << 20))
    newer(0.01, "clone")
else:
    put(f"/syslog.{seed}", log(2))
    if int(seed) > 7:
        commands.append(f"rm /syslog.{int(seed) - 7}")
    if int(seed) % 7 == 0:
        newer(0.01, seed)
print("\n".join(commands))
PYTHON

# The database of a machine changes in place, at places by chance: IMAGE SEED.
cat >pages.py <<'PYTHON'
import random, subprocess, sys
image, seed = sys.argv[1:]
chance = random.Random("pages" + seed)
blocks = subprocess.run(["debugfs", "-R", "blocks /database", image], capture_output=True, text=True).stdout.split()
with open(image, "r+b") as disk:
    for block in chance.sample(blocks, min(200, len(blocks))):
        disk.seek(int(block) * 4096)
        disk.write(chance.randbytes(1024) + bytes(3072))
PYTHON

change() { # IMAGE KIND SEED
    python3 change.py "$2" "$3" >commands
    debugfs -w -f commands "$1" >debugfs.log 2>&1
    if grep -i 'no free\|could not allocate\|no space' debugfs.log >&2; then exit 1; fi
    [[ $2 == clone ]] || python3 pages.py "$1" "$3"
    rm -rf change
}

echo "clones: makes the template ..." >&2
mkdir tree
(cd "$tree" && find . -xdev -type f -size -40M -readable -printf '%s %P\n') | grep -v '[^ -~]\| .* ' | LC_ALL=C sort -k2 |
    shuf --random-source=<(yes) | awk -v left="$((mib << 20))" '{ if (left > 0) { left -= $1; print $2 } }' >files
tar -C "$tree" -c -T files | tar -C tree -x
python3 -c 'import random; open("tree/database", "wb").write(b"".join(random.Random(n).randbytes(1024) + bytes(3072) for n in range(8192)))'
mke2fs -q -t ext4 -b 4096 -d tree -U 00112233-4455-6677-8899-aabbccddeeff m0.img "$((mib * 5 / 4 + 330))M" >mke2fs.log
virtual=$(stat -c %s m0.img) data=$(du -B1 m0.img | cut -f1)

declare -A stored seconds
tools=(vhd borg restic)
size() { du -s -B1 "$1" | cut -f1; }
now() { date +%s%N; }
took() { # KEY COMMAND...: adds its time
    local key=$1 begun
    shift
    sync
    begun=$(now)
    "$@" >tool.log 2>&1 || { cat tool.log >&2 && exit 1; }
    sync -f "$dir"
    seconds[$key]=$((${seconds[$key]:-0} + ($(now) - begun) / 1000000))
}
like=()
keep() { # KEY MACHINE NAME: stores the image of this machine by all programs
    local tool
    took "$1.vhd" "$vhd" snapshot create -q --store vhd --disk "$2" --name "$3" "${like[@]}" "$2.img"
    took "$1.borg" borg create --compression zstd,3 "::$2-$3" "$2.img"
    took "$1.restic" restic backup -q --tag "$2-$3" "$2.img"
    for tool in "${tools[@]}"; do stored[$1.$tool]=$(size "$tool"); done
}

"$vhd" snapshot init -q vhd
borg init -e none
restic init -q
echo "clones: the first disk ..." >&2
keep first m0 day0
if ((clones)) && "$vhd" snapshot create --help | grep -q -- '--like'; then like=(--like m0@day0); fi
for ((n = 1; n <= clones; n++)); do
    echo "clones: clone $n ..." >&2
    cp --sparse=always m0.img "m$n.img"
    change "m$n.img" clone "$n"
    keep clones "m$n" day0
    if ((n < clones)); then rm "m$n.img"; fi
done
like=()
for ((day = 1; day <= days; day++)); do
    echo "clones: day $day ..." >&2
    change m0.img day "$day"
    keep days m0 "day$day"
done

echo "clones: restores ..." >&2
restore() { # KEY MACHINE NAME
    mkdir out
    took "$1.vhd" "$vhd" snapshot restore -q --store vhd "$2@$3" -o out/vhd.img
    cmp "$2.img" out/vhd.img
    took "$1.borg" env -C out borg extract --sparse "::$2-$3"
    cmp "$2.img" "out/$2.img"
    rm -r out
    took "$1.restic" restic restore -q latest --tag "$2-$3" --target out
    cmp "$2.img" "$(find out -name "$2.img")"
    rm -r out
}
restore last m0 "day$days"
if ((clones)); then restore clone "m$clones" day0; fi

row() { # WORDS FUNCTION
    local tool line="| $1 |"
    for tool in "${tools[@]}"; do line+=" $("$2" "$tool") |"; done
    echo "$line"
}
mebi() { printf '%d' $((($1 + (1 << 19)) >> 20)); }
sec() { printf '%d.%d' $(($1 / 1000)) $(($1 % 1000 / 100)); }
first() { mebi "${stored[first.$1]}"; }
further() { mebi $(((stored[clones.$1] - stored[first.$1]) / clones)); }
firstday() { mebi "${stored[clones.$1]}"; }
month() { mebi "${stored[days.$1]}"; }
daily() { mebi $(((stored[days.$1] - stored[clones.$1]) / days)); }
t_first() { sec "${seconds[first.$1]}"; }
t_clone() { sec $((seconds[clones.$1] / clones)); }
t_day() { sec $((seconds[days.$1] / days)); }
t_last() { sec "${seconds[last.$1]}"; }
t_restore() { sec "${seconds[clone.$1]}"; }
cat <<TABLE
$(mebi "$data") MiB of data in a disk of $(mebi "$virtual") MiB, $clones clones, $days days; $("$vhd" --version), $(borg --version), $(restic version | cut -d' ' -f1,2)

| | vhd snapshot | borg, zstd,3 | restic |
| --- | ---: | ---: | ---: |
TABLE
row "first disk, MiB" first
row "each further clone, MiB" further
row "all disks, first day, MiB" firstday
row "each day, MiB" daily
row "after $days days, MiB" month
row "create the first, s" t_first
row "create a clone, s" t_clone
row "create a day, s" t_day
row "restore the last day, s" t_last
row "restore the last clone, s" t_restore
