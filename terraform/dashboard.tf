# One page of what the alarms watch.

locals {
  graphs = [
    { title = "Runs of extract, and batches", metrics = [["Blackwater", "ExtractRuns", "pipeline", local.prefix], [".", "Batches", ".", "."]] },
    { title = "Rows", metrics = [["Blackwater", "RowsExtracted", "pipeline", local.prefix], [".", "RowsWritten", ".", "."]] },
    { title = "Rows in quarantine", metrics = [["Blackwater", "RowsInQuarantine", "pipeline", local.prefix, { stat = "Maximum" }]] },
    { title = "Age of the oldest batch that the warehouse lacks, s", metrics = [["Blackwater", "Lag", "pipeline", local.prefix, { stat = "Maximum" }]] },
    { title = "How long one transaction has been open at the source, s", metrics = [["Blackwater", "OldestTransaction", "pipeline", local.prefix, { stat = "Maximum" }]] },
    { title = "Write-ahead log that the source keeps for the slot, bytes", metrics = [["Blackwater", "RetainedWal", "pipeline", local.prefix, { stat = "Maximum" }]] },
    { title = "Errors", metrics = [["Blackwater", "${local.prefix}-errors"]] },
    { title = "Time of a run, ms", metrics = [for stage in keys(local.stages) : ["AWS/Lambda", "Duration", "FunctionName", "${local.prefix}-${stage}", { stat = "Maximum" }]] },
    { title = "Throttles", metrics = [for stage in keys(local.stages) : ["AWS/Lambda", "Throttles", "FunctionName", "${local.prefix}-${stage}"]] },
  ]
}

resource "aws_cloudwatch_dashboard" "pipeline" {
  dashboard_name = local.prefix
  dashboard_body = jsonencode({
    widgets = [
      for place, graph in local.graphs : {
        type       = "metric", width = 12, height = 6
        x          = place % 2 * 12, y = floor(place / 2) * 6
        properties = { title = graph.title, metrics = graph.metrics, stat = "Sum", period = 300, region = var.region }
      }
    ]
  })
}
