"""A function as pipelines in Python are written: what it imports and makes before its first event."""
import json
import os
import urllib.request

import boto3
import pandas  # noqa: F401
import pg8000.native
import pyarrow.parquet  # noqa: F401

s3 = boto3.client("s3")
secrets = boto3.client("secretsmanager")
api = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
while True:
    with urllib.request.urlopen(f"{api}/next") as event:
        request = event.headers["Lambda-Runtime-Aws-Request-Id"]
    source = pg8000.native.Connection("postgres", host="127.0.0.1", port=int(os.environ["DATABASE"]), database="source")
    answer = json.dumps([source.run("SELECT count(*) FROM design")[0][0], len(s3.list_buckets()["Buckets"])])
    urllib.request.urlopen(f"{api}/{request}/response", data=answer.encode())
