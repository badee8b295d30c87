"""SES and Secrets Manager on this machine, by moto. Prints the address; then, for each line that it reads, the mails that were sent."""
import json
import os
import sys
import threading

os.environ.update(AWS_ACCESS_KEY_ID="admin", AWS_SECRET_ACCESS_KEY="admin", AWS_DEFAULT_REGION="eu-west-2")
import boto3  # noqa: E402
from moto.server import DomainDispatcherApplication, create_backend_app  # noqa: E402
from moto.ses.models import ses_backends  # noqa: E402
from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: E402


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), request_handler=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_port}"
boto3.client("sesv2", endpoint_url=endpoint).create_email_identity(EmailIdentity="gate@example.com")
secret = {"Name": "gate/issue", "SecretString": json.dumps({"token": "github-token"})}
boto3.client("secretsmanager", endpoint_url=endpoint).create_secret(**secret)
print(json.dumps(endpoint), flush=True)
for _ in sys.stdin:
    sent = ses_backends["123456789012"]["eu-west-2"].sent_messages
    print(json.dumps([{"from": one.source, "to": one.destinations, "subject": one.subject, "text": one.body} for one in sent]), flush=True)
