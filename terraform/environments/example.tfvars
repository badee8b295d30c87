# Copy it to <environment>.tfvars and fill it in: terraform/variables.tf describes every variable. It holds no secret: commit it.
name   = "totesys"
region = "eu-west-2"
pack   = "models/totesys" # the model pack, from the root of the repository

# Addresses without logins: those go into the two secrets that are made.
source_database    = { url = "postgres://totesys.example.eu-west-2.rds.amazonaws.com:5432/totesys" }
warehouse_database = { url = "postgres://warehouse.example.eu-west-2.rds.amazonaws.com:5432/warehouse" }

# Where the databases can be reached; leave it out if they have public addresses.
# vpc = { id = "vpc-…", subnet_ids = ["subnet-…", "subnet-…"], security_group_ids = ["sg-…"], route_table_ids = ["rtb-…"] }

alert_emails = ["data@example.com"]

# QuickSight: docs/deploy.md says what must be there before. Add readers = ["quicksight"] to warehouse_database then.
# quicksight = { secret_arn = "arn:aws:secretsmanager:…", viewers = ["arn:aws:quicksight:…:group/default/analysts"] }

# architecture = "arm64"
