"""S3 and Secrets Manager on this machine, by moto: two buckets, of which one has an object lock, and the secrets whose JSON it reads. Prints
the address, and ends with its input."""
import json
import os
import sys
import threading

os.environ.update(AWS_ACCESS_KEY_ID="admin", AWS_SECRET_ACCESS_KEY="admin", AWS_DEFAULT_REGION="us-east-1")
import boto3  # noqa: E402
from moto.server import DomainDispatcherApplication, create_backend_app  # noqa: E402
from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: E402


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), request_handler=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_port}"
s3 = boto3.client("s3", endpoint_url=endpoint)
s3.create_bucket(Bucket="open")
s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
retention = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 90}}
s3.put_object_lock_configuration(
    Bucket="locked", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
)
secrets = boto3.client("secretsmanager", endpoint_url=endpoint)
for name, secret in json.loads(sys.stdin.readline()).items():
    secrets.create_secret(Name=name, SecretString=json.dumps(secret))
print(json.dumps(endpoint), flush=True)
sys.stdin.read()
