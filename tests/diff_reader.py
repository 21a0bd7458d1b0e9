#!/usr/bin/env python3
"""An independent reader of diff files, written from docs/diff-format.md alone.

    python3 diff_reader.py BASE DIFF OUT     verify DIFF, check that BASE (raw) is its base, write the target (raw)
    python3 diff_reader.py --reverse TARGET DIFF OUT    the way back of a reversible diff
    python3 diff_reader.py --fixtures DIR    do so in memory for every golden file in DIR

Needs the packages blake3 and zstandard. Exits 0 when all is right, 3 when the diff is damaged or unknown, 4 when it
isn't for this base, 2 otherwise. For tests: it holds the base, the diff and the target in memory.
"""

import pathlib
import struct
import sys
import zlib

import zstandard
from blake3 import blake3

PAGE = 512
WINDOW = 4 << 20
DIGEST_WINDOW = 1 << 20
MAGIC = b"\x89VHDDIF\n"
UNKNOWN = bytes(32)


class Damaged(Exception):
    pass


class Misfit(Exception):
    pass


def need(right, what, offset):
    if not right:
        raise Damaged(f"{what} at offset {offset}")


def hash_of(data):
    return blake3(data).digest()


def content_digest(disk):
    hasher = blake3(b"vhdkit content 1" + struct.pack(">Q", len(disk)))
    for at in range(0, len(disk), DIGEST_WINDOW):
        hasher.update(hash_of(disk[at : at + DIGEST_WINDOW]))
    return hasher.digest()


class Way:
    """The frames of one of the ways of a diff, which leads to a disk of `size` bytes."""

    def __init__(self, size):
        self.size = size
        self.frames = []  # (kind, base hash, [(start, end, is clear)], data of updates)
        self.end, self.segment, self.root = 0, [], []
        self.totals, self.full = [0] * 5, True

    def count(self, frame, start):
        ranges, stored = frame[2], frame[4]
        need(ranges[0][0] >= self.end, "frames don't ascend", start)
        self.end = ranges[-1][1]
        self.segment.append((ranges[0][0], self.end, start))
        cleared = sum(e - s for s, e, clear in ranges if clear)
        updated = sum(e - s for s, e, clear in ranges if not clear)
        for n, more in enumerate((1, len(ranges), updated, cleared, stored)):
            self.totals[n] += more
        self.frames.append(frame[:4])

    def index(self, entries, start):
        need(entries == self.segment, "entries", start)
        self.root.append((entries[0][0], entries[-1][1], start))
        self.segment, self.full = [], len(entries) == 4096


class Diff:
    """A diff that was read and verified: sizes, records, frames, digests."""

    def __init__(self, data):
        self.data = data
        self.at = 0
        self.records = {}
        self.header()
        self.forward = Way(self.target_size)
        self.back = Way(self.base_size) if self.reversible else None
        ways = [way for way in (self.forward, self.back) if way]
        sequence = 0
        while True:
            start = self.at
            kind, count, number = struct.unpack(">4sIQ", self.take(16))
            sequence += 1
            need(number == sequence, "sequence", start)
            way = self.back if self.reversible and kind in (b"page", b"cler", b"indx") else self.forward
            kind = kind.upper() if way is self.back else kind
            if kind in (b"PAGE", b"CLER"):
                open_ways = all(len(each.segment) < 4096 and each.full for each in ways)
                need(open_ways, "index missing or too early", start)
                frame = self.page(start, count, way) if kind == b"PAGE" else self.clear(start, count, way)
                way.count(frame, start)
            elif kind == b"INDX":
                need(1 <= count <= 4096, "entries", start)
                entries = self.take(24 * count)
                self.crc(start, "index_crc32")
                for other in ways:
                    if other is not way:
                        # Directly behind the 4096th frame; the last ones at the end, that of the way back second.
                        early = len(other.segment) == 4096 or (count == 4096 or way is self.forward) and not other.full
                        late = count < 4096 and way is self.back and other.segment
                        need(not early and not late, "index in the wrong place", start)
                way.index(list(struct.iter_unpack(">QQQ", entries)), start)
            elif kind == b"TAIL":
                return self.tail(start, count)
            else:
                raise Damaged(f"unknown section type {kind!r} at offset {start}")

    def take(self, length):
        piece = self.data[self.at : self.at + length]
        need(len(piece) == length, "cut off", len(self.data))
        self.at += length
        return piece

    def crc(self, start, what):
        expected = zlib.crc32(self.data[start : self.at])
        need(struct.unpack(">I", self.take(4))[0] == expected, what, start)

    def header(self):
        fixed = self.take(48)
        magic, version, flags, length, page, window, reserved, base, target = struct.unpack(">8s6I2Q", fixed)
        need(magic == MAGIC, "magic", 0)
        need(version == 1, "version", 8)
        need(flags in (0, 1), "must_understand", 12)
        self.reversible = flags == 1
        need(52 <= length <= 1 << 20, "header_length", 16)
        records = self.take(length - 52)
        self.crc(0, "header_crc32")
        need((page, window, reserved) == (PAGE, WINDOW, 0), "page_size, window_size, reserved", 20)
        for size in (base, target):
            need(size % PAGE == 0 and size < 1 << 63, "size", 32)
        self.base_size, self.target_size = base, target
        at, last = 0, -1
        while at < len(records):
            need(at + 6 <= len(records), "record", 48 + at)
            tag, size = struct.unpack_from(">HI", records, at)
            need(tag > last and at + 6 + size <= len(records), "record", 48 + at)
            self.record(tag, records[at + 6 : at + 6 + size], 48 + at)
            at, last = at + 6 + size, tag

    def record(self, tag, value, at):
        side, kind = tag >> 8, tag & 0xFF
        if tag == 1 or side in (1, 2) and kind in (1, 2, 5, 6, 7):
            try:
                value = value.decode("utf-8")
            except UnicodeDecodeError:
                raise Damaged(f"text at offset {at}") from None
        elif tag == 2:
            need(len(value) % 32 == 0, "identities", at)
        elif side in (1, 2) and kind in (3, 4, 8):
            need(len(value) == {3: 16, 4: 8, 8: 512}[kind], "length of a record", at)
        else:
            need(tag & 0x8000 == 0, f"unknown record {tag:#06x}", at)
        self.records[tag] = value

    def page(self, start, count, way):
        need(1 <= count <= 8192, "ranges", start)
        fixed = self.take(56)
        window, length, stored, codec, reserved, payload_crc, base_hash = struct.unpack(">QIIB3sI32s", fixed)
        page_ranges = self.take(4 * count)
        self.crc(start, "header_crc32")
        need(window % WINDOW == 0, "window", start)
        need(codec in (0, 1) and reserved == bytes(3), "codec, reserved", start)
        need(length <= WINDOW, "payload_len", start)
        need(stored == length if codec == 0 else stored < length, "stored_len", start)
        ranges, end, updates, last = [], 0, 0, None
        for first, second in struct.iter_unpack(">HH", page_ranges):
            clear, pages = second >> 15 == 1, (second & 0x7FFF) + 1
            need(first >= end and not (first == end and last is clear), "page ranges out of order or not joined", start)
            end, last = first + pages, clear
            need(end <= WINDOW // PAGE and window + end * PAGE <= way.size, "page range too far", start)
            ranges.append((window + first * PAGE, window + end * PAGE, clear))
            updates += 0 if clear else pages * PAGE
        need(updates == length, "payload_len", start)
        payload = self.take(stored)
        need(zlib.crc32(payload) == payload_crc, "payload_crc32", start)
        if codec == 1:
            try:
                need(zstandard.frame_content_size(payload) in (-1, length), "payload", start)
                unpacker = zstandard.ZstdDecompressor()
                payload = unpacker.decompress(payload, max_output_size=length, allow_extra_data=False)
            except zstandard.ZstdError as error:
                raise Damaged(f"payload: {error} at offset {start}") from None
        need(len(payload) == length, "payload", start)
        return b"PAGE", base_hash, ranges, payload, stored

    def clear(self, start, count, way):
        first, length, base_hash = struct.unpack(">QQ32s", self.take(48))
        self.crc(start, "header_crc32")
        end = first + length
        need(count == 0 and first % WINDOW == 0 and length > 0, "clear", start)
        need(end <= way.size and (end % WINDOW == 0 or end == way.size), "clear", start)
        return b"CLER", base_hash, [(first, end, True)], b"", 0

    def tail(self, start, count):
        way = self.forward
        need(not way.segment and count == len(way.root), "segments", start)
        need(list(struct.unpack(">5Q", self.take(40))) == way.totals, "totals", start)
        flags, reserved, base, target = struct.unpack(">II32s32s", self.take(72))
        need(flags <= 3 and reserved == 0, "flags, reserved", start)
        need((flags & 1 or base == UNKNOWN) and (flags & 2 or target == UNKNOWN), "digest without its flag", start)
        self.base_digest = base if flags & 1 else None
        self.target_digest = target if flags & 2 else None
        need(list(struct.iter_unpack(">QQQ", self.take(24 * count))) == way.root, "root", start)
        if self.reversible:
            way = self.back
            count, reserved, *totals = struct.unpack(">II5Q", self.take(48))
            need(not way.segment and count == len(way.root) and reserved == 0, "back_count, reserved", start)
            need(totals == way.totals, "totals of the way back", start)
            need(list(struct.iter_unpack(">QQQ", self.take(24 * count))) == way.root, "root of the way back", start)
        need(struct.unpack(">Q", self.take(8))[0] == start, "tail_offset", start)
        computed = hash_of(self.data[: self.at])
        self.digest = self.take(32)
        need(self.digest == computed, "digest", start)
        need(self.take(8) == MAGIC[::-1], "end_magic", start)
        need(self.at == len(self.data), "something behind the end", self.at)

    def base_hash(self, frame, base):
        """What the frame's base hash is for this base."""
        kind, _, ranges, _ = frame

        def under(start, end):
            return base[start:end].ljust(end - start, b"\0")

        if kind == b"PAGE":
            return hash_of(b"".join(under(start, end) for start, end, _ in ranges))
        (start, end, _), = ranges
        windows = ((at, min(at + WINDOW, end)) for at in range(start, end, WINDOW))
        return hash_of(b"".join(hash_of(under(*window)) for window in windows))

    def apply(self, base):
        return self.go(base, self.base_size, self.base_digest, self.forward, self.target_digest)

    def reverse(self, target):
        if not self.reversible:
            raise Misfit("the diff isn't reversible")
        return self.go(target, self.target_size, self.target_digest, self.back, self.base_digest)

    def go(self, base, size, digest, way, target_digest):
        if len(base) != size:
            raise Misfit(f"the base has {len(base)} bytes, not {size}")
        if digest not in (None, content_digest(base)):
            raise Misfit("the base has another content digest")
        for frame in way.frames:
            if frame[1] != UNKNOWN and frame[1] != self.base_hash(frame, base):
                raise Misfit(f"the base is another one under {frame[2]}")
        disk = bytearray(base[: way.size].ljust(way.size, b"\0"))
        for _, _, ranges, data in way.frames:
            at = 0
            for start, end, clear in ranges:
                if clear:
                    disk[start:end] = bytes(end - start)
                else:
                    disk[start:end] = data[at : at + end - start]
                    at += end - start
        if target_digest not in (None, content_digest(disk)):
            raise Damaged("the result has another content digest than the target")
        return bytes(disk)


def check_fixtures(folder):
    """Applies every golden file to its base, of which page n is filled with the byte 1 + n % 250, as far as it is."""
    files = sorted(pathlib.Path(folder).glob("*.vhddiff"))
    for path in files:
        text = dict(line.split(" ", 1) for line in path.with_suffix(".txt").read_text().splitlines() if line[0] != " ")
        diff = Diff(path.read_bytes())
        filled = int(text.get("base_filled", diff.base_size // PAGE))
        base = b"".join(bytes([1 + n % 250]) * PAGE for n in range(filled)).ljust(diff.base_size, b"\0")
        target = diff.apply(base)
        assert not diff.reversible or diff.reverse(target) == base, path
        assert hash_of(target).hex() == text["target_blake3"], path
        assert diff.digest.hex() == text["digest"], path
        for at in range(len(diff.data)):
            for bad in (diff.data[:at], diff.data[:at] + bytes([diff.data[at] ^ 1]) + diff.data[at + 1 :]):
                try:
                    Diff(bad)
                except Damaged:
                    continue
                raise AssertionError(f"{path}: damage at {at} isn't noticed")
        print(f"{path.name}: {len(diff.forward.frames)} frames, {len(target)} bytes, {diff.digest.hex()}")
    assert files, "no fixtures"


def main(arguments):
    try:
        if len(arguments) == 2 and arguments[0] == "--fixtures":
            check_fixtures(arguments[1])
        elif len(arguments) == 4 and arguments[0] == "--reverse":
            target, diff, out = map(pathlib.Path, arguments[1:])
            out.write_bytes(Diff(diff.read_bytes()).reverse(target.read_bytes()))
        elif len(arguments) == 3:
            base, diff, out = map(pathlib.Path, arguments)
            out.write_bytes(Diff(diff.read_bytes()).apply(base.read_bytes()))
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except Damaged as error:
        print(f"damaged: {error}", file=sys.stderr)
        return 3
    except Misfit as error:
        print(f"doesn't fit: {error}", file=sys.stderr)
        return 4
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
