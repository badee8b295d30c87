# What must hold of every stack. The runs apply, because policies are known only then: against a provider that invents what AWS would
# answer. With the real one the login below lets nothing be made.

provider "aws" {
  region                      = "eu-west-2"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

variables {
  name                = "team"
  environment         = "test"
  region              = "eu-west-2"
  package             = "tests/packages/contributors.zip"
  organization        = "acme"
  database_secret_arn = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:database"
  alert_emails        = ["data@example.com"]
}

run "whole" {
  command = apply

  assert {
    condition = alltrue(flatten([
      for function in module.function : [
        for statement in jsondecode(function.resources.policy).Statement : concat(
          [for action in flatten([statement.Action]) : !strcontains(action, "*") && !strcontains(action, "Delete")],
          [for resource in flatten([statement.Resource]) : startswith(resource, "arn:") && !endswith(resource, ":::*")],
        )
      ]
    ]))
    error_message = "A role may do more than it names."
  }

  # Poll has no other secret than GitHub's token, and load none than the login of the database. Load writes nothing to the bucket.
  assert {
    condition = {
      for name, function in module.function : name => join(", ", sort(flatten([
        for statement in jsondecode(function.resources.policy).Statement : [
          for grant in setproduct(flatten([statement.Action]), flatten([statement.Resource])) : replace(join(" ", grant), module.bucket.arn, "bucket")
          if !contains(["Log", "Failed"], statement.Sid)
        ]
      ])))
      } == {
      poll = join(", ", [
        "s3:GetObject bucket/answers/*", "s3:GetObject bucket/state/*", "s3:ListBucket bucket", "s3:PutObject bucket/answers/*",
        "s3:PutObject bucket/state/*", "secretsmanager:GetSecretValue ${aws_secretsmanager_secret.github.arn}",
      ])
      load = join(", ", [
        "s3:GetObject bucket/answers/*", "s3:ListBucket bucket", "secretsmanager:GetSecretValue ${var.database_secret_arn}",
      ])
    }
    error_message = "A function may do something else than its work."
  }

  assert {
    condition = {
      for name, function in module.function : name => function.resources.function.environment[0].variables
      } == {
      poll = tomap({
        CONTRIBUTORS_NAME            = "team-test"
        CONTRIBUTORS_DOES            = "poll"
        CONTRIBUTORS_BUCKET          = module.bucket.name
        CONTRIBUTORS_ORGANIZATION    = "acme"
        CONTRIBUTORS_GITHUB__SECRET  = aws_secretsmanager_secret.github.arn
        CONTRIBUTORS_GITHUB__RESERVE = "500"
      })
      load = tomap({
        CONTRIBUTORS_NAME             = "team-test"
        CONTRIBUTORS_DOES             = "load"
        CONTRIBUTORS_BUCKET           = module.bucket.name
        CONTRIBUTORS_ORGANIZATION     = "acme"
        CONTRIBUTORS_DATABASE__SECRET = var.database_secret_arn
      })
    }
    error_message = "Each function knows its own settings, and not the other's."
  }

  assert {
    condition = (
      length(module.function["poll"].resources.notifications) == 0
      && length(module.function["poll"].resources.permissions) == 0
      && module.function["load"].resources.notifications[0].bucket == module.bucket.name
      && module.function["load"].resources.notifications[0].lambda_function[0].filter_prefix == "answers/"
      && module.function["load"].resources.permissions[0].source_arn == module.bucket.arn
    )
    error_message = "New answers invoke load. Poll must not invoke itself by what it writes."
  }

  assert {
    condition = (
      { for name, function in module.function : name => function.resources.schedule.schedule_expression } == { poll = "rate(10 minutes)", load = "rate(30 minutes)" }
      && { for name, function in module.function : name => function.resources.invocation.maximum_retry_attempts } == { poll = 0, load = 2 }
      && alltrue([for function in module.function : function.resources.schedule.state == "ENABLED"])
    )
    error_message = "Both run on their schedules. Lambda repeats a load; the next poll is near."
  }

  assert {
    condition = (
      { for name, function in module.function : name => function.resources.function.memory_size } == { poll = 256, load = 256 }
      && { for name, function in module.function : name => function.resources.function.timeout } == { poll = 840, load = 300 }
    )
    error_message = "The functions have their memory and time."
  }

  assert {
    condition = [
      for statement in jsondecode(module.bucket.rules.policy).Statement : flatten([statement.Resource]) if try(statement.Condition.Null["s3:if-none-match"], null) != null
    ] == [["${module.bucket.arn}/answers/*"]]
    error_message = "Answers are written once. The state is overwritten."
  }

  assert {
    condition = {
      for rule in module.bucket.rules.lifecycle.rule : one(rule.filter).prefix => one(rule.expiration).days if length(rule.expiration) > 0
    } == { "answers/" = 400 } && length(flatten([for rule in module.bucket.rules.lifecycle.rule : rule.transition])) == 0
    error_message = "Answers expire. The state never does, or all would be asked for again."
  }

  assert {
    condition = alltrue([
      module.bucket.rules.access.block_public_acls, module.bucket.rules.access.block_public_policy,
      module.bucket.rules.access.ignore_public_acls, module.bucket.rules.access.restrict_public_buckets,
    ])
    error_message = "The bucket may become public."
  }

  assert {
    condition = alltrue([
      for name, function in module.function :
      function.resources.errors.metric_transformation[0].namespace == aws_cloudwatch_metric_alarm.all["errors"].namespace
      && function.resources.errors.metric_transformation[0].name == aws_cloudwatch_metric_alarm.all["errors"].metric_name
    ]) && aws_cloudwatch_metric_alarm.all["errors"].threshold == 1 && aws_cloudwatch_metric_alarm.all["errors"].statistic == "Sum" && aws_cloudwatch_metric_alarm.all["errors"].comparison_operator == "GreaterThanOrEqualToThreshold"
    error_message = "Any error of either function is told."
  }

  assert {
    condition = {
      for name, alarm in aws_cloudwatch_metric_alarm.all :
      name => join(" ", [alarm.namespace, alarm.metric_name, alarm.statistic, alarm.comparison_operator, alarm.threshold, alarm.period * alarm.evaluation_periods, alarm.treat_missing_data])
      if name != "errors"
      } == {
      oldest = "Contributors OldestPollSeconds Maximum GreaterThanThreshold 3600 3600 breaching"
      budget = "Contributors Remaining Maximum LessThanOrEqualToThreshold 500 21600 ignore"
      behind = "Contributors NewestPollSeconds Maximum GreaterThanThreshold 7200 7200 breaching"
    }
    error_message = "It is told that polls or loads are late, even if none runs, and that the token's budget is used up."
  }

  assert {
    condition = alltrue([
      for name, alarm in aws_cloudwatch_metric_alarm.all :
      try(alarm.dimensions.name, null) == module.function["poll"].resources.function.environment[0].variables.CONTRIBUTORS_NAME && length(alarm.dimensions) == 1
      if name != "errors"
    ])
    error_message = "The alarms watch what the functions report."
  }

  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.all), flatten([for function in module.function : values(function.resources.alarms)])) :
      alarm.alarm_actions == toset([aws_sns_topic.alarms.arn]) && alarm.ok_actions == toset([aws_sns_topic.alarms.arn]) && alarm.actions_enabled
    ]) && { for email, subscription in aws_sns_topic_subscription.email : email => subscription.topic_arn } == { "data@example.com" = aws_sns_topic.alarms.arn }
    error_message = "Somebody hears of every alarm."
  }

  assert {
    condition     = alltrue([for function in module.function : function.resources.function.publish && endswith(function.resources.function.description, local.deployment)])
    error_message = "A deployment makes a version of both functions, or a rollback would mix deployments."
  }

  assert {
    condition     = alltrue([for function in module.function : length(function.resources.function.vpc_config) == 0])
    error_message = "Without a VPC both run outside."
  }
}

run "disabled_in_a_vpc" {
  command = apply

  variables {
    enabled                  = false
    kms_key_arn              = "arn:aws:kms:eu-west-2:123456789012:key/one"
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
    vpc                      = { subnet_ids = ["subnet-1", "subnet-2"], security_group_ids = ["sg-1"] }
    database_url             = "postgres://db.example/metrics"
    reserve                  = 2000
    oldest_minutes           = 90
    behind_minutes           = 240
    answers_days             = null
    schedule                 = "rate(15 minutes)"
    sweep                    = "rate(1 hour)"
    memory_mb                = { poll = 512 }
    timeout_seconds          = { load = 600 }
  }

  assert {
    condition = (
      module.function["load"].resources.function.vpc_config[0].subnet_ids == toset(["subnet-1", "subnet-2"])
      && module.function["load"].resources.function.vpc_config[0].security_group_ids == toset(["sg-1"])
      && length(module.function["poll"].resources.function.vpc_config) == 0
    )
    error_message = "Load is in the VPC, and poll, which needs the Internet, is not."
  }

  assert {
    condition = (
      module.function["load"].resources.function.environment[0].variables.CONTRIBUTORS_DATABASE__URL == "postgres://db.example/metrics"
      && !anytrue([for variable in keys(module.function["poll"].resources.function.environment[0].variables) : strcontains(variable, "DATABASE")])
    )
    error_message = "Load alone knows the address of the database."
  }

  assert {
    condition = (
      module.function["poll"].resources.function.environment[0].variables.CONTRIBUTORS_GITHUB__RESERVE == "2000"
      && { for name, alarm in aws_cloudwatch_metric_alarm.all : name => [alarm.threshold, alarm.period] if name != "errors" }
      == { oldest = [5400, 5400], budget = [2000, 21600], behind = [14400, 14400] }
    )
    error_message = "The alarms are raised at the limits that are set."
  }

  assert {
    condition = alltrue(concat(
      [for function in module.function : function.resources.schedule.state == "DISABLED"],
      [for alarm in aws_cloudwatch_metric_alarm.all : !alarm.actions_enabled],
    ))
    error_message = "What is disabled neither runs nor raises alarms."
  }

  assert {
    condition = (
      { for name, function in module.function : name => function.resources.schedule.schedule_expression } == { poll = "rate(15 minutes)", load = "rate(1 hour)" }
      && { for name, function in module.function : name => function.resources.function.memory_size } == { poll = 512, load = 256 }
      && { for name, function in module.function : name => function.resources.function.timeout } == { poll = 840, load = 600 }
    )
    error_message = "The functions have the schedules, memory and time that are set."
  }

  assert {
    condition     = alltrue([for rule in module.bucket.rules.lifecycle.rule : length(rule.expiration) == 0])
    error_message = "Answers are kept for ever."
  }

  assert {
    condition     = alltrue(flatten([for function in module.function : [for role in function.resources.roles : role.permissions_boundary == var.permissions_boundary_arn]]))
    error_message = "Every role has the boundary."
  }

  assert {
    condition = aws_secretsmanager_secret.github.kms_key_id == var.kms_key_arn && aws_sns_topic.alarms.kms_master_key_id == var.kms_key_arn && alltrue([
      for function in module.function : strcontains(function.resources.policy, var.kms_key_arn)
    ])
    error_message = "Its own key encrypts all, and both functions may use it."
  }
}

run "what_is_none" {
  command = plan

  variables {
    name                     = "Team!"
    environment              = "production-and-more"
    region                   = "London"
    architecture             = "riscv"
    package                  = "nothing.zip"
    organization             = "github.com/acme"
    reserve                  = 0.5
    database_secret_arn      = "contributors/database"
    database_url             = "postgres://loader:password@db.example/metrics"
    vpc                      = { subnet_ids = ["subnet-1"], security_group_ids = [] }
    schedule                 = "often"
    sweep                    = "seldom"
    oldest_minutes           = 1
    behind_minutes           = 2000
    answers_days             = 1
    memory_mb                = { load = 128 }
    timeout_seconds          = { poll = 1000 }
    noncurrent_version_days  = 0
    alert_emails             = ["nobody"]
    log_retention_days       = 31
    kms_key_arn              = "alias/key"
    permissions_boundary_arn = "boundary"
  }

  expect_failures = [
    var.name, var.environment, var.region, var.architecture, var.package, var.organization, var.reserve, var.database_secret_arn,
    var.database_url, var.vpc, var.schedule, var.sweep, var.oldest_minutes, var.behind_minutes, var.answers_days, var.memory_mb,
    var.timeout_seconds, var.noncurrent_version_days, var.alert_emails, var.log_retention_days, var.kms_key_arn,
    var.permissions_boundary_arn,
  ]
}
