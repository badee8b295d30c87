# Copy it to <environment>.tfvars and fill it in: terraform/variables.tf describes every variable.
name   = "totesys"
region = "eu-west-2"

# Addresses without logins: those go into the two secrets that are made.
source_database    = { url = "postgres://totesys.example.eu-west-2.rds.amazonaws.com:5432/totesys" }
warehouse_database = { url = "postgres://warehouse.example.eu-west-2.rds.amazonaws.com:5432/warehouse", readers = ["quicksight"] }

# Where the databases can be reached; leave it out if they have public addresses.
# vpc = { id = "vpc-…", subnet_ids = ["subnet-…"], security_group_ids = ["sg-…"], route_table_ids = ["rtb-…"] }

alert_emails = ["data@example.com"]

# quicksight = { secret_arn = "arn:aws:secretsmanager:…", viewers = ["arn:aws:quicksight:eu-west-2:123456789012:group/default/analysts"] }
