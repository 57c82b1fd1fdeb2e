#!/usr/bin/env python3
"""What a disk holds that consists of an image and deltas over it: docs/formats/disk-delta.md, read once more.

    delta_view.py OUTPUT BASE [DELTA..]     the oldest delta first

Nothing of Godwit is used for it, so that it can disagree. Checksums are left to 'godwit disk check'.
"""

import shutil
import struct
import sys

BLOCK = 4096
JOURNAL = 2 * BLOCK
IN_BASE = 0xFFFFFFFF
HEADER = struct.Struct("<8sIIQQQQIIQ16sQQI")
JOURNAL_HEADER = struct.Struct("<4sIQQ16sQQ")
ENTRY = struct.Struct("<QII")


class Delta:
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            self.read(file)

    def read(self, file):
        best = None
        for place in (0, BLOCK):
            file.seek(place)
            block = file.read(BLOCK)
            magic, version, *values = HEADER.unpack_from(block)
            if magic == b"GODWDLT1" and (best is None or values[1] > best[1]):
                assert version == 2, version
                best = values
        assert best is not None, f"{self.path} has no header"
        (self.cluster_bytes, self.generation, self.disk_bytes, self.slots, self.data_offset, self.journal_blocks,
         self.active_half, self.epoch, self.snapshot, _, self.journal_id, self.checkpoint_blocks) = best
        self.clusters = {}
        blocks = 0
        while blocks < self.journal_blocks:
            file.seek(JOURNAL + (self.active_half * self.journal_blocks + blocks) * BLOCK)
            block = file.read(BLOCK)
            if len(block) < BLOCK:
                break
            magic, count, generation, index, snapshot, _, journal_id = JOURNAL_HEADER.unpack_from(block)
            if (magic, generation, index, snapshot, journal_id) != (
                    b"DLTJ", self.generation, blocks, self.snapshot, self.journal_id):
                break
            for number in range(count):
                cluster, slot, run = ENTRY.unpack_from(block, 64 + number * ENTRY.size)
                for i in range(run):
                    self.clusters.pop(cluster + i, None)
                    if slot != IN_BASE:
                        self.clusters[cluster + i] = slot + i
            blocks += 1
        assert blocks >= self.checkpoint_blocks, f"{self.path}: its checkpoint is damaged"

    def apply(self, output):
        with open(self.path, "rb") as file:
            for cluster, slot in sorted(self.clusters.items()):
                place = cluster * self.cluster_bytes
                file.seek(self.data_offset + slot * self.cluster_bytes)
                data = file.read(min(self.cluster_bytes, self.disk_bytes - place))
                output.seek(place)
                output.write(data.ljust(min(self.cluster_bytes, self.disk_bytes - place), b"\0"))


def combine(output, base, deltas):
    """Writes the disk into `output`; returns the deltas as they were read."""
    shutil.copyfile(base, output)
    read = [Delta(str(path)) for path in deltas]
    with open(output, "r+b") as file:
        for delta in read:
            delta.apply(file)
    return read


if __name__ == "__main__":
    combine(sys.argv[1], sys.argv[2], sys.argv[3:])
