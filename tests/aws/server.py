"""AWS on this machine, for the tests: moto's server with the stack that Terraform describes (stack.json).

    server.py STACK FUNCTIONS

What a bucket notifies is sent to the address FUNCTIONS, as Lambda would: tried again as often as the stack says, then put into the
failure queue. A function signs its requests with the name of its stage, and may do what the policy of its role allows. The
first line that is printed says where all is; after that, commands are read as lines of JSON and answered in one.
"""
import fnmatch
import io
import json
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import unquote

os.environ.update(AWS_ACCESS_KEY_ID="admin", AWS_SECRET_ACCESS_KEY="admin", AWS_DEFAULT_REGION="eu-west-2")
import boto3  # noqa: E402
from moto.awslambda.models import LambdaFunction  # noqa: E402
from moto.server import DomainDispatcherApplication, create_backend_app  # noqa: E402
from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: E402

stack = json.load(open(sys.argv[1]))
functions = sys.argv[2]
denied = []


def of(kind):
    return stack.get("aws_" + kind, {})


def wanted(method, path, query, service, body):
    """The action of a request, and its resource."""
    if service == "secretsmanager":
        return "secretsmanager:GetSecretValue", json.loads(body)["SecretId"]
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    if not key:
        return "s3:ListBucket", f"arn:aws:s3:::{bucket}"
    actions = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "POST": "PutObject"}
    action = "AbortMultipartUpload" if method == "DELETE" and "uploadId" in query else actions.get(method, method)
    return "s3:" + action, f"arn:aws:s3:::{bucket}/{key}"


def matches(statement, action, resource):
    return any(fnmatch.fnmatchcase(action, one) for one in statement["Action"]) and any(
        fnmatch.fnmatchcase(resource, one) for one in statement["Resource"]
    )


def is_allowed(stage, action, resource, headers):
    """As IAM decides: the role allows it, and the bucket does not deny it."""
    for policy in of("s3_bucket_policy").values():
        for statement in policy["policy"]["Statement"]:
            unless = statement["Condition"].get("Null", {})
            if "s3:if-none-match" in unless and "HTTP_IF_NONE_MATCH" not in headers and matches(statement, action, resource):
                return False
    statements = of("iam_role_policy")[stage]["policy"]["Statement"]
    return any(statement["Effect"] == "Allow" and matches(statement, action, resource) for statement in statements)


def guarded(application):
    def answer(environ, start_response):
        login = re.search(r"Credential=(\w+)/\d+/[\w-]+/(\w+)/", environ.get("HTTP_AUTHORIZATION", ""))
        if login and login[1] in of("iam_role_policy"):
            body = b""
            if login[2] != "s3":
                body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                environ["wsgi.input"] = io.BytesIO(body)
            action, resource = wanted(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], login[2], body)
            if not is_allowed(login[1], action, resource, environ):
                denied.append([login[1], action, resource])
                start_response("403 Forbidden", [("content-type", "application/xml")])
                return [b"<Error><Code>AccessDenied</Code><Message>not by its role</Message></Error>"]
        answers = application(environ, start_response)
        # moto calls the root of this answer otherwise than S3 does. As long as before, with a space for each letter.
        return (part.replace(b"CompleteMultipartUploadResponse", b"CompleteMultipartUploadResult  ") for part in answers)

    return answer


def run(stage, body):
    request = urllib.request.Request(f"{functions}/{stage}", data=body.encode(), method="POST")
    return urllib.request.urlopen(request).status == 200


def invoke(function, body, request_headers, response_headers):
    """What Lambda does with an event that nobody waits for."""
    stage = next(stage for stage, known in of("lambda_function").items() if known["function_name"] == function.function_name)
    bucket = json.loads(body)["Records"][0]["s3"]["bucket"]["arn"]
    allowed = [p["source_arn"] for p in of("lambda_permission").values() if p["function_name"] == function.function_name]
    if bucket not in allowed:
        return
    config = of("lambda_function_event_invoke_config")[stage]

    def tries():
        for number in range(1 + config.get("maximum_retry_attempts", 2)):
            time.sleep(number and 1)  # AWS waits a minute, then two.
            try:
                return run(stage, body)
            except urllib.error.HTTPError:
                pass
        queue = config["destination_config"][0]["on_failure"][0]["destination"].rsplit(":", 1)[1]
        sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=queue)["QueueUrl"], MessageBody=body)

    threading.Thread(target=tries, daemon=True).start()


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


LambdaFunction.invoke = invoke
server = make_server("127.0.0.1", 0, guarded(DomainDispatcherApplication(create_backend_app)), threaded=True, request_handler=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_port}"
client = lambda service: boto3.client(service, endpoint_url=endpoint)  # noqa: E731
s3, sqs, sns, iam, awslambda, secrets = map(client, ["s3", "sqs", "sns", "iam", "lambda", "secretsmanager"])
urllib.request.urlopen(f"{endpoint}/moto-api/config", data=b'{"lambda": {"use_docker": false}}')

arns = {}
for secret in of("secretsmanager_secret").values():
    invented = f"arn:aws:secretsmanager:eu-west-2:123456789012:{secret['name']}"
    arns[invented] = secrets.create_secret(Name=secret["name"])["ARN"]
text = json.dumps(stack)
for invented, real in arns.items():
    text = text.replace(invented, real)
stack = json.loads(text)
for bucket in of("s3_bucket").values():
    s3.create_bucket(Bucket=bucket["bucket"], CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
for bucket in of("s3_bucket_versioning").values():
    s3.put_bucket_versioning(
        Bucket=bucket["bucket"], VersioningConfiguration={"Status": bucket["versioning_configuration"][0]["status"]}
    )
for queue in of("sqs_queue").values():
    sqs.create_queue(QueueName=queue["name"], Attributes={"MessageRetentionPeriod": str(queue["message_retention_seconds"])})
for topic in of("sns_topic").values():
    sns.create_topic(Name=topic["name"])
trust = {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}]}
for stage, function in of("lambda_function").items():
    name = function["function_name"]
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    awslambda.create_function(
        FunctionName=name,
        Runtime="provided.al2023",
        Handler="bootstrap",
        Role=f"arn:aws:iam::123456789012:role/{name}",
        Code={"ZipFile": b"PK\5\6" + bytes(18)},
        Timeout=function["timeout"],
        Publish=True,
    )
    awslambda.create_alias(FunctionName=name, Name=f"live-{stage}", FunctionVersion="1")
for notification in of("s3_bucket_notification").values():
    configurations = [
        {
            "LambdaFunctionArn": to["lambda_function_arn"],
            "Events": to["events"],
            "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": to.get("filter_prefix", "")}]}},
        }
        for to in notification["lambda_function"]
    ]
    s3.put_bucket_notification_configuration(
        Bucket=notification["bucket"], NotificationConfiguration={"LambdaFunctionConfigurations": configurations}
    )


def failed(stage):
    """The events in a failure queue."""
    url = sqs.get_queue_url(QueueName=of("sqs_queue")[stage]["name"])["QueueUrl"]
    return [message["Body"] for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])]


def secret(name, value):
    secrets.put_secret_value(SecretId=of("secretsmanager_secret")[name]["name"], SecretString=json.dumps(value))


def manifests(bucket):
    """The keys of the manifests in a bucket."""
    found = s3.list_objects_v2(Bucket=of("s3_bucket")[bucket]["bucket"], Prefix="batches/")
    return [known["Key"] for known in found.get("Contents", [])]


def get(bucket, key):
    return json.load(s3.get_object(Bucket=of("s3_bucket")[bucket]["bucket"], Key=key)["Body"])


def put(bucket, key, value):
    s3.put_object(Bucket=of("s3_bucket")[bucket]["bucket"], Key=key, Body=json.dumps(value))


def release():
    """Publishes a second version of each function, and has the alias point to it."""
    for function in of("lambda_function").values():
        name = function["function_name"]
        awslambda.update_function_code(FunctionName=name, ZipFile=b"PK\5\6" + bytes(17) + b"\1", Publish=True)
        awslambda.create_alias(FunctionName=name, Name="live", FunctionVersion="2")


def live():
    """The versions that the aliases point to."""
    names = [function["function_name"] for function in of("lambda_function").values()]
    return {name: awslambda.get_alias(FunctionName=name, Name="live")["FunctionVersion"] for name in names}


def bucket(name):
    """What keeps a bucket safe."""
    return {
        "versioning": s3.get_bucket_versioning(Bucket=name).get("Status"),
        "public": s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
        "encryption": s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"],
        "policy": json.loads(s3.get_bucket_policy(Bucket=name)["Policy"]),
    }


print(json.dumps({"endpoint": endpoint, "stack": stack}), flush=True)
commands = [failed, secret, manifests, get, put, release, live, bucket]
commands = {command.__name__: command for command in commands} | {"denied": lambda: denied}
for line in sys.stdin:
    command, *arguments = json.loads(line)
    print(json.dumps(commands[command](*arguments)), flush=True)
