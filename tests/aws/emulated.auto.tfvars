name               = "shop"
environment        = "test"
region             = "eu-west-2"
packages           = "tests/packages"
pack               = "models/totesys"
source_database    = { url = "postgres://db.example/shop" }
warehouse_database = { url = "postgres://dw.example/warehouse" }
alert_emails       = ["data@example.com"]
