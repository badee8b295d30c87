"""Runs a command that prints JSON: what it printed, its seconds of CPU and of time, and its most memory in kB."""
import json
import resource
import subprocess
import sys
import time

began = time.monotonic()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)
wall = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
if done.returncode not in (0, 3):
    sys.exit(f"exit code {done.returncode}")
print(json.dumps({
    "printed": json.loads(done.stdout),
    "wall": wall,
    "cpu": used.ru_utime + used.ru_stime,
    "memory": used.ru_maxrss,
}))
