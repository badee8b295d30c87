"""Runs the replication that a file describes with the Sling that its package brings: sling_copy.py FILE"""
import os
import pathlib
import sys

import sling_linux_amd64

program = next(pathlib.Path(sling_linux_amd64.__file__).parent.glob("bin/sling*"))
program.chmod(0o755)
os.execv(program, [str(program), "run", "-r", sys.argv[1]])
