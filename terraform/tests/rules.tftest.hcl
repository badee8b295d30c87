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
  name               = "shop"
  environment        = "test"
  region             = "eu-west-2"
  packages           = "tests/packages"
  pack               = "models/totesys"
  source_database    = { url = "postgres://db.example/shop" }
  warehouse_database = { url = "postgres://dw.example/warehouse", readers = ["quicksight"] }
  alert_emails       = ["data@example.com"]
}

run "whole" {
  command = apply

  assert {
    condition = alltrue(flatten([
      for stage, function in module.function : [
        for statement in jsondecode(function.resources.policy).Statement : [
          alltrue([for action in flatten([statement.Action]) : !strcontains(action, "*")]),
          alltrue([for resource in flatten([statement.Resource]) : startswith(resource, "arn:") && !endswith(resource, ":::*")]),
        ]
      ]
    ]))
    error_message = "A role may do more than it names."
  }

  assert {
    condition = alltrue([
      for stage, database in { extract = "source", load = "warehouse" } :
      strcontains(module.function[stage].resources.policy, local.secret_arns[database])
    ]) && !strcontains(module.function["transform"].resources.policy, "secretsmanager") && !strcontains(module.function["extract"].resources.policy, local.secret_arns.warehouse)
    error_message = "Each stage reads the login of its own database, and no other."
  }

  assert {
    condition     = !strcontains(join("", [for function in module.function : function.resources.policy]), "DeleteObject")
    error_message = "No stage deletes an object."
  }

  assert {
    condition = alltrue([
      for bucket, stage in { ingestion = "transform", processed = "load" } :
      module.function[stage].resources.notifications[0].bucket == module.bucket[bucket].name
      && module.function[stage].resources.notifications[0].lambda_function[0].lambda_function_arn == module.function[stage].resources.alias.arn
      && module.function[stage].resources.notifications[0].lambda_function[0].filter_prefix == "batches/"
      && module.function[stage].resources.permissions[0].source_arn == module.bucket[bucket].arn
      && module.function[stage].resources.permissions[0].qualifier == "live"
    ])
    error_message = "A manifest in a bucket invokes the stage that follows."
  }

  assert {
    condition = alltrue([
      for function in values(module.function) :
      function.resources.schedule.state == "ENABLED"
      && function.resources.schedule.target[0].retry_policy[0].maximum_retry_attempts == 0
      && function.resources.schedule.target[0].arn == function.resources.alias.arn
    ])
    error_message = "The schedules invoke the live functions, and do not retry."
  }

  assert {
    condition     = module.function["extract"].resources.invocation.maximum_retry_attempts == 0
    error_message = "The next run of extract is near; Lambda must not repeat it."
  }

  assert {
    condition = alltrue(flatten([
      for bucket in values(module.bucket) :
      [bucket.rules.access.block_public_acls, bucket.rules.access.block_public_policy, bucket.rules.access.ignore_public_acls, bucket.rules.access.restrict_public_buckets]
    ]))
    error_message = "A bucket may become public."
  }

  assert {
    condition = alltrue([
      for bucket in values(module.bucket) : length([
        for statement in jsondecode(bucket.rules.policy).Statement : statement
        if statement.Effect == "Deny"
        && join(",", flatten([statement.Action])) == "s3:PutObject"
        && endswith(join(",", flatten([statement.Resource])), "/batches/*")
        && try(join(",", flatten([statement.Condition.Null["s3:if-none-match"]])), "") == "true"
      ]) == 1
    ])
    error_message = "A manifest could be overwritten."
  }

  assert {
    condition     = alltrue([for bucket in values(module.bucket) : length(bucket.rules.lifecycle.rule[0].expiration) == 0 && length(bucket.rules.lifecycle.rule[0].transition) == 0])
    error_message = "The log itself must neither expire nor move to a colder class."
  }

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.all["silence"].treat_missing_data == "breaching"
      && aws_cloudwatch_metric_alarm.all["silence"].period == 900
      && aws_cloudwatch_metric_alarm.all["silence"].dimensions.pipeline == "shop-test"
      && aws_cloudwatch_metric_alarm.all["errors"].threshold == 1
      && alltrue([
        for alarm in concat(values(aws_cloudwatch_metric_alarm.all), flatten([for function in values(module.function) : values(function.resources.alarms)])) :
        tolist(alarm.alarm_actions)[0] == aws_sns_topic.alarms.arn
      ])
    )
    error_message = "Somebody hears of a silent pipeline, and of any error."
  }

  assert {
    condition = (
      length(aws_cloudwatch_metric_alarm.all) + length(flatten([for function in values(module.function) : values(function.resources.alarms)])) == 11
      && length(distinct([for function in values(module.function) : function.resources.errors.metric_transformation[0].name])) == 1
      && length(aws_vpc_endpoint.s3) + length(aws_vpc_endpoint.secrets) == 0
      && length(aws_secretsmanager_secret.login) == 2
      && length(aws_quicksight_data_source.warehouse) + length(aws_quicksight_data_set.all) + length(aws_cloudformation_stack.dashboard) == 0
    )
    error_message = "It costs more than docs/deploy.md says."
  }

  assert {
    condition     = alltrue([for function in values(module.function) : function.resources.function.publish && endswith(function.resources.function.description, local.deployment)])
    error_message = "A deployment makes a version of every function, or a rollback would mix deployments."
  }

  assert {
    condition     = alltrue([for function in values(module.function) : function.resources.log.retention_in_days == 30])
    error_message = "Logs are kept for ever."
  }
}

run "disabled_in_a_vpc" {
  command = apply

  variables {
    enabled                  = false
    kms_key_arn              = "arn:aws:kms:eu-west-2:123456789012:key/one"
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
    vpc                      = { id = "vpc-1", subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"], route_table_ids = ["rtb-1"] }
    source_database = {
      url        = "postgres://db.example/shop"
      secret_arn = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:rds"
    }
  }

  assert {
    condition     = alltrue([for function in values(module.function) : function.resources.schedule.state == "DISABLED"])
    error_message = "A disabled pipeline has no schedule."
  }

  assert {
    condition     = length(aws_vpc_endpoint.s3) == 1 && length(aws_vpc_endpoint.secrets) == 1 && module.function["load"].resources.function.vpc_config[0].subnet_ids == toset(["subnet-1"])
    error_message = "The functions are in the VPC, with endpoints."
  }

  assert {
    condition = (
      aws_vpc_endpoint.secrets[0].security_group_ids == toset([aws_security_group.endpoint[0].id])
      && aws_vpc_security_group_ingress_rule.endpoint[0].cidr_ipv4 == data.aws_vpc.functions[0].cidr_block
      && aws_vpc_security_group_ingress_rule.endpoint[0].from_port == 443
    )
    error_message = "The endpoint lets in the VPC, by TLS."
  }

  assert {
    condition = alltrue([
      for role in flatten([for function in values(module.function) : function.resources.roles]) : role.permissions_boundary == var.permissions_boundary_arn
    ])
    error_message = "Every role has the boundary."
  }

  assert {
    condition     = keys(aws_secretsmanager_secret.login) == ["warehouse"] && module.function["extract"].resources.function.environment[0].variables.BLACKWATER_SOURCE__SECRET == var.source_database.secret_arn
    error_message = "A secret that is there is used."
  }
}

run "quicksight" {
  command = apply

  variables {
    vpc        = { id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], security_group_ids = ["sg-1"], endpoints = [] }
    quicksight = { secret_arn = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:reader", viewers = ["arn:aws:quicksight:eu-west-2:123456789012:group/default/analysts"] }
  }

  assert {
    condition     = length(aws_vpc_endpoint.s3) + length(aws_vpc_endpoint.secrets) + length(aws_security_group.endpoint) == 0
    error_message = "A VPC that has endpoints gets no second ones."
  }

  assert {
    condition = alltrue([
      for table in ["current_fact_sales_order", "current_fact_purchase_order", "current_fact_payment", "dim_staff", "dim_date"] :
      one(aws_quicksight_data_set.all[table].physical_table_map).relational_table[0].schema == "public"
      && contains(keys(aws_quicksight_refresh_schedule.all), table)
    ]) && !anytrue([for table in keys(aws_quicksight_data_set.all) : startswith(table, "fact_")])
    error_message = "The data sets show the newest version of each fact, and the dimensions."
  }

  assert {
    condition = (
      aws_quicksight_data_source.warehouse[0].credentials[0].secret_arn == var.quicksight.secret_arn
      && !aws_quicksight_data_source.warehouse[0].ssl_properties[0].disable_ssl
      && aws_quicksight_data_source.warehouse[0].vpc_connection_properties[0].vpc_connection_arn == aws_quicksight_vpc_connection.warehouse[0].arn
      && aws_quicksight_data_source.warehouse[0].parameters[0].postgresql[0].host == "dw.example"
    )
    error_message = "QuickSight reads the warehouse in the VPC, by TLS, with a login of its own."
  }

  assert {
    condition     = alltrue([for function in module.function : !strcontains(function.resources.policy, var.quicksight.secret_arn)])
    error_message = "No stage reads the login of QuickSight."
  }

  assert {
    condition = alltrue([
      for set in values(aws_quicksight_data_set.all) : alltrue([
        for permission in set.permissions : !anytrue([for action in permission.actions : strcontains(action, "Update") || strcontains(action, "Delete")])
      ])
    ])
    error_message = "A viewer may look, and not change."
  }

  assert {
    condition = (
      length(jsondecode(aws_cloudformation_stack.dashboard[0].template_body).Resources.Dashboard.Properties.Definition.Sheets[0].Visuals) == 7
      && alltrue([
        for set in jsondecode(aws_cloudformation_stack.dashboard[0].template_body).Resources.Dashboard.Properties.Definition.DataSetIdentifierDeclarations :
        set.DataSetArn == aws_quicksight_data_set.all[set.Identifier].arn
      ])
    )
    error_message = "The dashboard has the charts that the model pack describes."
  }
}

run "a_login_in_an_address" {
  command = plan

  variables {
    source_database = { url = "postgres://reader:password@db.example/shop" }
  }

  expect_failures = [var.source_database]
}

run "quicksight_in_one_subnet" {
  command = plan

  variables {
    vpc        = { id = "vpc-1", subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"], endpoints = ["secretsmanager"] }
    quicksight = { secret_arn = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:reader", viewers = ["analysts"] }
  }

  expect_failures = [var.quicksight]
}

run "what_is_none" {
  command = plan

  variables {
    name                     = "Shop!"
    environment              = "production-and-more"
    region                   = "London"
    architecture             = "riscv"
    schedule                 = "often"
    sweep                    = "seldom"
    memory_mb                = { load = 128 }
    timeout_seconds          = 5
    disk_mb                  = 100
    batch_mb                 = 0.5
    alert_emails             = ["nobody"]
    kms_key_arn              = "alias/key"
    permissions_boundary_arn = "boundary"
    log_retention_days       = 31
    noncurrent_version_days  = 0
    warehouse_database       = { url = "mysql://dw.example/warehouse" }
    vpc                      = { id = "vpc-1", subnet_ids = [], security_group_ids = ["sg-1"] }
    pack                     = "models/nothing"
    silence_minutes          = 1
    change_detection         = "timestamps"
    retained_wal_gb          = 0
  }

  expect_failures = [
    var.name, var.environment, var.region, var.architecture, var.schedule, var.sweep, var.memory_mb, var.timeout_seconds,
    var.disk_mb, var.batch_mb, var.alert_emails, var.kms_key_arn, var.permissions_boundary_arn, var.log_retention_days,
    var.noncurrent_version_days, var.warehouse_database, var.vpc, var.pack, var.silence_minutes, var.change_detection, var.retained_wal_gb,
  ]
}
