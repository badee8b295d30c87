# QuickSight over the warehouse, if asked for: what it shows is described in a file of the model pack.

locals {
  quicksight = var.quicksight == null ? [] : [var.quicksight]
  described  = jsondecode(var.quicksight == null ? "{\"data_sets\": {}, \"dashboard\": null}" : file(coalesce(var.quicksight.description, "../${var.pack}/quicksight.json")))
  data_sets  = local.described.data_sets

  # Into the VPC, if the warehouse is in one.
  connections = var.vpc == null ? 0 : length(local.quicksight)
  of_ec2      = "arn:${data.aws_partition.current.partition}:ec2:${var.region}:${data.aws_caller_identity.current.account_id}"

  # postgres://host:port/database?options
  warehouse = try(regex("^postgres://(?P<host>[^:/?]+)(?::(?P<port>[0-9]+))?/(?P<database>[^/?]+)", var.warehouse_database.url), null)

  # What a viewer needs, and an author of further dashboards.
  may_see = {
    data_set  = ["quicksight:DescribeDataSet", "quicksight:DescribeDataSetPermissions", "quicksight:PassDataSet", "quicksight:DescribeIngestion", "quicksight:ListIngestions"]
    dashboard = ["quicksight:DescribeDashboard", "quicksight:ListDashboardVersions", "quicksight:QueryDashboard"]
  }
}

resource "aws_quicksight_data_source" "warehouse" {
  count = length(local.quicksight)

  data_source_id = local.prefix
  name           = local.prefix
  type           = "POSTGRESQL"

  credentials {
    secret_arn = var.quicksight.secret_arn
  }

  parameters {
    postgresql {
      host     = local.warehouse.host
      port     = tonumber(coalesce(local.warehouse.port, "5432"))
      database = local.warehouse.database
    }
  }

  ssl_properties {
    disable_ssl = false
  }

  dynamic "vpc_connection_properties" {
    for_each = aws_quicksight_vpc_connection.warehouse
    content {
      vpc_connection_arn = vpc_connection_properties.value.arn
    }
  }
}

resource "aws_quicksight_data_set" "all" {
  for_each = local.data_sets

  data_set_id = "${local.prefix}-${replace(each.key, "_", "-")}"
  name        = each.key
  import_mode = var.quicksight.refresh == null ? "DIRECT_QUERY" : "SPICE"

  physical_table_map {
    physical_table_map_id = replace(each.key, "_", "-")

    dynamic "relational_table" {
      for_each = contains(keys(each.value), "sql") ? [] : [each.value.columns]
      content {
        data_source_arn = aws_quicksight_data_source.warehouse[0].arn
        schema          = var.warehouse_database.schema
        name            = each.key

        dynamic "input_columns" {
          for_each = relational_table.value
          content {
            name = input_columns.key
            type = input_columns.value
          }
        }
      }
    }

    dynamic "custom_sql" {
      for_each = contains(keys(each.value), "sql") ? [each.value.columns] : []
      content {
        data_source_arn = aws_quicksight_data_source.warehouse[0].arn
        name            = each.key
        sql_query       = replace(each.value.sql, "{schema}", "\"${var.warehouse_database.schema}\"")

        dynamic "columns" {
          for_each = custom_sql.value
          content {
            name = columns.key
            type = columns.value
          }
        }
      }
    }
  }

  dynamic "permissions" {
    for_each = toset(var.quicksight.viewers)
    content {
      principal = permissions.value
      actions   = local.may_see.data_set
    }
  }
}

resource "aws_quicksight_refresh_schedule" "all" {
  for_each = toset(try(var.quicksight.refresh, null) == null ? [] : keys(local.data_sets))

  data_set_id = aws_quicksight_data_set.all[each.key].data_set_id
  schedule_id = "blackwater"

  schedule {
    refresh_type = "FULL_REFRESH"
    schedule_frequency {
      interval        = var.quicksight.refresh
      time_of_the_day = var.quicksight.refresh == "DAILY" ? "05:00" : null
      timezone        = var.quicksight.refresh == "DAILY" ? "UTC" : null
    }
  }
}

# QuickSight's own interfaces in the VPC: the warehouse has no public address.
resource "aws_quicksight_vpc_connection" "warehouse" {
  count = local.connections

  vpc_connection_id  = local.prefix
  name               = local.prefix
  role_arn           = aws_iam_role.quicksight[0].arn
  subnet_ids         = var.vpc.subnet_ids
  security_group_ids = var.vpc.security_group_ids

  depends_on = [aws_iam_role_policy.quicksight]
}

resource "aws_iam_role" "quicksight" {
  count = local.connections

  name                 = "${local.prefix}-quicksight"
  assume_role_policy   = data.aws_iam_policy_document.assume_quicksight[0].json
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "quicksight" {
  count = local.connections

  name   = "interfaces"
  role   = aws_iam_role.quicksight[0].id
  policy = data.aws_iam_policy_document.quicksight[0].json
}

data "aws_iam_policy_document" "assume_quicksight" {
  count = local.connections

  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["quicksight.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

# https://docs.aws.amazon.com/quicksight/latest/user/vpc-creating-a-connection-in-quicksight.html
data "aws_iam_policy_document" "quicksight" {
  count = local.connections

  statement {
    sid     = "Interfaces"
    actions = ["ec2:CreateNetworkInterface", "ec2:ModifyNetworkInterfaceAttribute", "ec2:DeleteNetworkInterface"]
    resources = concat(
      ["${local.of_ec2}:network-interface/*"],
      [for subnet in var.vpc.subnet_ids : "${local.of_ec2}:subnet/${subnet}"],
      [for group in var.vpc.security_group_ids : "${local.of_ec2}:security-group/${group}"],
    )
  }

  # EC2 lets nobody describe single ones.
  statement {
    sid       = "Look"
    actions   = ["ec2:DescribeSubnets", "ec2:DescribeSecurityGroups"]
    resources = ["*"]
  }
}

# The provider has no dashboard definitions that can be checked, so it is made by CloudFormation.
resource "aws_cloudformation_stack" "dashboard" {
  count = try(local.described.dashboard, null) == null ? 0 : length(local.quicksight)

  name          = "${local.prefix}-dashboard"
  template_body = jsonencode(local.template)
}

locals {
  charts = try(local.described.dashboard, null) == null ? [] : local.described.dashboard.charts

  template = {
    AWSTemplateFormatVersion = "2010-09-09"
    Description              = "Blackwater: the dashboard of ${local.prefix}"
    Resources = {
      Dashboard = {
        Type = "AWS::QuickSight::Dashboard"
        Properties = {
          AwsAccountId = data.aws_caller_identity.current.account_id
          DashboardId  = local.prefix
          Name         = try(local.described.dashboard.name, local.prefix)
          Permissions  = [for viewer in try(var.quicksight.viewers, []) : { Principal = viewer, Actions = local.may_see.dashboard }]
          Definition = {
            DataSetIdentifierDeclarations = [
              for name in distinct([for chart in local.charts : chart.data_set]) :
              { Identifier = name, DataSetArn = aws_quicksight_data_set.all[name].arn }
            ]
            Sheets = [{ SheetId = "sheet", Name = "Overview", Visuals = local.visuals }]
          }
        }
      }
    }
  }

  # Each chart as CloudFormation has it; the parts that are alike come first.
  parts = [
    for place, chart in local.charts : {
      id     = "chart-${place}"
      kind   = chart.kind
      title  = { Visibility = "VISIBLE", FormatText = { PlainText = chart.title } }
      column = { DataSetIdentifier = chart.data_set, ColumnName = try(chart.by, "") }
      values = [{
        NumericalMeasureField = {
          FieldId             = "chart-${place}-sum"
          Column              = { DataSetIdentifier = chart.data_set, ColumnName = chart.sum }
          AggregationFunction = { SimpleNumericalAggregation = "SUM" }
        }
      }]
    }
  ]
  visuals = [
    for part in local.parts : {
      for kind, visual in {
        number = { KPIVisual = { VisualId = part.id, Title = part.title, ChartConfiguration = { FieldWells = { Values = part.values } } } }
        line = { LineChartVisual = { VisualId = part.id, Title = part.title, ChartConfiguration = { FieldWells = { LineChartAggregatedFieldWells = {
          Category = [{ DateDimensionField = { FieldId = "${part.id}-by", Column = part.column, DateGranularity = "DAY" } }], Values = part.values
        } } } } }
        bar = { BarChartVisual = { VisualId = part.id, Title = part.title, ChartConfiguration = { FieldWells = { BarChartAggregatedFieldWells = {
          Category = [{ CategoricalDimensionField = { FieldId = "${part.id}-by", Column = part.column } }], Values = part.values
        } } } } }
      } : keys(visual)[0] => values(visual)[0] if kind == part.kind
    }
  ]
}
