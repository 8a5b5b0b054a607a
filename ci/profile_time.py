#!/usr/bin/env python3
"""Processor time of the demo's service with the heap profile at its default rate over that without, in rounds of one run
each, one after the other. A machine that others use says little; instructions are steadier (ci/profile_cost.sh).

    cargo build --profile fat -p demo --bin svc-spandrel
    ci/profile_time.py [ROUNDS] [REQUESTS]      25 rounds of 20000 requests
"""
import os
import resource
import statistics
import subprocess
import sys

rounds, requests = [int(word) for word in sys.argv[1:]] + [25, 20000][len(sys.argv) - 1:]
folder = os.environ.get("CARGO_TARGET_DIR", os.path.join(os.path.dirname(__file__), "..", "target"))
service = os.path.join(folder, "fat", "svc-spandrel")


def seconds(*more):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [service, "--threads", "1", "--connections", "4", "--requests", str(requests), "--warm-up", "100",
         "--settle-ms", "0", "--deadline", "3000", *more],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


ratios = []
for _ in range(rounds):
    off = seconds()
    ratios.append(seconds("--heap-profile") / off)
ratios.sort()
quarter = len(ratios) // 4
print(f"median {statistics.median(ratios):.3f}, half of {rounds} rounds between {ratios[quarter]:.3f} and "
      f"{ratios[-1 - quarter]:.3f}")
