# When the functions run without an event of a bucket.

resource "aws_scheduler_schedule" "stage" {
  for_each = { extract = var.schedule, transform = var.sweep, load = var.sweep }

  name                = "${local.prefix}-${each.key}"
  description         = each.key == "extract" ? "Blackwater: look for changes" : "Blackwater: do what an event did not bring"
  schedule_expression = each.value
  state               = var.enabled ? "ENABLED" : "DISABLED"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_alias.live[each.key].arn
    role_arn = aws_iam_role.scheduler.arn
    input    = jsonencode({ source = "aws.scheduler", pipeline = local.prefix })

    # The next run is near.
    retry_policy {
      maximum_retry_attempts = 0
    }
  }
}

resource "aws_iam_role" "scheduler" {
  name                 = "${local.prefix}-scheduler"
  assume_role_policy   = data.aws_iam_policy_document.assume["scheduler"].json
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "scheduler" {
  name   = "invoke"
  role   = aws_iam_role.scheduler.id
  policy = data.aws_iam_policy_document.scheduler.json
}

data "aws_iam_policy_document" "scheduler" {
  statement {
    actions   = ["lambda:InvokeFunction"]
    resources = [for stage in keys(local.stages) : aws_lambda_alias.live[stage].arn]
  }
}
