#!/usr/bin/env python3
"""The block device against fio's io_uring engine, on one file, in turns, in one run.

    bench/block_file.py build/release/bin/block_file_bench [--folder DIR] [--rounds 5] [--seconds 2]

Prints one JSON line per case: operations per second of both (medians) and their ratio.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile

IMAGE_BYTES = 256 << 20


def run_fio(path, operation, depth, seconds):
    out = subprocess.run(
        ["fio", "--name=x", f"--filename={path}", "--ioengine=io_uring", "--direct=1", "--bs=4k",
         f"--rw=rand{operation}", f"--iodepth={depth}", f"--size={IMAGE_BYTES}", "--time_based",
         f"--runtime={seconds}", "--registerfiles=1", "--norandommap", "--output-format=json"],
        check=True, capture_output=True, text=True)
    return json.loads(out.stdout)["jobs"][0][operation]["iops"]


def run_ours(program, path, operation, depth, seconds):
    out = subprocess.run([program, path, operation, str(depth), str(seconds)],
                         check=True, capture_output=True, text=True)
    return float(out.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--folder", default=".")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    args = parser.parse_args()
    with tempfile.NamedTemporaryFile(dir=args.folder, prefix="godwit-bench-") as image:
        for _ in range(IMAGE_BYTES >> 20):
            image.write(b"\x5a" * (1 << 20))
        image.flush()
        os.fsync(image.fileno())
        for operation in ("read", "write"):
            for depth in (1, 32):
                ours, fio = [], []
                for _ in range(args.rounds):
                    ours.append(run_ours(args.program, image.name, operation, depth, args.seconds))
                    fio.append(run_fio(image.name, operation, depth, args.seconds))
                a, b = statistics.median(ours), statistics.median(fio)
                print(json.dumps({"case": f"4k rand{operation} qd{depth}", "godwit_iops": round(a),
                                  "fio_iops": round(b), "ratio": round(a / b, 3)}), flush=True)


if __name__ == "__main__":
    main()
