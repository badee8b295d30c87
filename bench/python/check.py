"""The check of a file as a Lambda in Python does it: read whole, its encoding by trial, its rows by csv."""
import csv
import io
import json
import sys

import chardet

body = open(sys.argv[1], "rb").read()
sample = b"\n".join(body.splitlines()[:20])
candidates = ["utf-8", "windows-1252", "latin-1"]
if (chardet.detect(sample)["encoding"] or "").lower() == "utf-16le":
    candidates.insert(0, "utf-16le")
for encoding in candidates:
    try:
        text = body.decode(encoding)
        break
    except UnicodeDecodeError:
        pass
columns, rows, short = None, 0, None
for row in csv.reader(io.StringIO(text), csv.Sniffer().sniff(text.splitlines()[0], delimiters=",\t")):
    rows += 1
    columns = columns or len(row)
    if len(row) < columns:
        short = rows
        break
print(json.dumps({"csv_valid": short is None, "csv_rows": short or rows, "csv_encoding": encoding}))
