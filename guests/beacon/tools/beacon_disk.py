#!/usr/bin/env python3
"""Checks beacon's journal blocks in a raw disk image, offline.

Every block that carries beacon's magic must name its own place and have a right checksum. With a log
that ends in a final (or verified) line, exactly the blocks which that line says must be there, with the
newest acknowledged sequence among them. Prints a summary as JSON; exit code 1 on any violation.
"""

import argparse
import json
import struct
import sys

import beacon_log

MAGIC = 0x6B636F6C64777467
HEADER = struct.Struct("<6Q")  # magic, run, block, sequence, length, check
CHECK_WORD = 5
MASK = (1 << 64) - 1


def hash_words(words) -> int:
    value = MAGIC
    for word in words:
        value = ((value ^ word) * 0x9E3779B97F4A7C15) & MASK
        value ^= value >> 29
    return value


def check_block(data: bytes, number: int) -> list:
    """What is wrong with a block that carries the magic."""
    _, _, block, _, length, check = HEADER.unpack_from(data)
    problems = []
    if block != number:
        problems.append(f"block {number} says it is {block}")
    if length != len(data):
        problems.append(f"block {number} says its length is {length}, not {len(data)}")
    words = list(struct.unpack(f"<{len(data) // 8}Q", data))
    words[CHECK_WORD] = 0
    if hash_words(words) != check:
        problems.append(f"block {number} has a wrong checksum")
    return problems


def scan(image: str, block_bytes: int, run=None) -> dict:
    """Walks the image; counts only blocks of `run` where given."""
    problems, found, other_runs, newest = [], 0, 0, 0
    with open(image, "rb") as file:
        number = 0
        while len(data := file.read(block_bytes)) == block_bytes:
            magic, block_run, _, sequence, _, _ = HEADER.unpack_from(data)
            if magic == MAGIC and run is not None and block_run != run:
                other_runs += 1
            elif magic == MAGIC:
                problems += check_block(data, number)
                found += 1
                newest = max(newest, sequence)
            number += 1
    return {
        "blocks": found,
        "blocks_of_other_runs": other_runs,
        "newest_sequence": newest,
        "violations": problems,
    }


def compare(result: dict, report: dict) -> None:
    """Adds a violation where the image and beacon's last word differ."""
    disk = report["disk"]
    for name, mine in (("blocks_written", "blocks"), ("newest_acknowledged", "newest_sequence")):
        if disk[name] != result[mine]:
            result["violations"].append(f"beacon says {name} {disk[name]}, image {result[mine]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("image")
    parser.add_argument("--block", type=int, default=4096, help="disk_block of the run (bytes)")
    parser.add_argument("--log", help="console log of the run, compared with the image")
    arguments = parser.parse_args()
    report = None
    if arguments.log:
        log = beacon_log.Log()
        with open(arguments.log, "rb") as file:
            log.feed(file.read())
        report = log.last("final") or log.last("verified")
        if report is None or "disk" not in report:
            print("the log has no final or verified line with a disk", file=sys.stderr)
            return 1
    run = int(report["disk"]["run"], 16) if report else None
    result = scan(arguments.image, arguments.block, run)
    if report:
        compare(result, report)
    result["ok"] = not result["violations"]
    json.dump(result, sys.stdout, indent=2)
    print()
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
