"""Reads a state as `terraform show -json` prints it, prints what the tests make of it."""
import json
import re
import sys

KEPT = {
    "aws_cloudwatch_log_metric_filter": ["log_group_name", "pattern"],
    "aws_cloudwatch_metric_alarm": ["namespace", "metric_name"],
    "aws_iam_role_policy": ["role", "policy"],
    "aws_lambda_function": ["function_name", "role", "timeout", "memory_size", "environment"],
    "aws_lambda_function_event_invoke_config": ["function_name", "qualifier", "maximum_retry_attempts", "destination_config"],
    "aws_lambda_permission": ["function_name", "qualifier", "principal", "source_arn"],
    "aws_s3_bucket": ["bucket"],
    "aws_s3_bucket_notification": ["bucket", "lambda_function"],
    "aws_s3_bucket_policy": ["bucket", "policy"],
    "aws_s3_bucket_versioning": ["bucket", "versioning_configuration"],
    "aws_scheduler_schedule": ["name", "schedule_expression", "state", "target"],
    "aws_secretsmanager_secret": ["name"],
    "aws_sns_topic": ["name"],
    "aws_sqs_queue": ["name", "message_retention_seconds"],
}
# What is invented of nested blocks, or left out by them.
INVENTED = ["id"]


def plain(value):
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if part not in (None, [], {}) and key not in INVENTED}
    return [plain(part) for part in value] if isinstance(value, list) else value


def resources(module, index=None):
    """The resources of a module and of those in it, each with the index of the module."""
    yield from ((index, resource) for resource in module.get("resources", []))
    for inner in module.get("child_modules", []):
        yield from resources(inner, re.search(r'\["(\w+)"\]$', inner["address"])[1])


def key(module, resource):
    """`extract`, `extract-duration`: the index of the module and that of the resource; what has none is called by its name."""
    index = resource.get("index")
    own = index if isinstance(index, str) else None if module and resource["name"] in ["this", "bucket", "live", "failed"] else resource["name"]
    return "-".join(part for part in [module, own] if part)


stack = {}
for module, resource in resources(json.load(sys.stdin)["values"]["root_module"]):
    kept = KEPT.get(resource["type"])
    if resource["mode"] == "managed" and kept:
        values = plain({name: resource["values"][name] for name in kept})
        if "policy" in values:
            values["policy"] = json.loads(values["policy"])
        stack.setdefault(resource["type"], {})[key(module, resource)] = values
text = json.dumps(stack, indent=1, sort_keys=True)
# As AWS writes the ARN of an alias.
names = {stage: function["function_name"] for stage, function in stack["aws_lambda_function"].items()}
print(re.sub(r"(:lambda:[^:]*:[^:]*):live-(\w+)", lambda found: f"{found[1]}:function:{names[found[2]]}:live-{found[2]}", text))
