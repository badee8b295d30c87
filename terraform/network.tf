# In a VPC the functions reach S3 and Secrets Manager by endpoints; a NAT gateway would cost more than all the rest.

locals {
  endpoints = try(var.vpc.make_endpoints, false) ? [var.vpc] : []
}

resource "aws_vpc_endpoint" "s3" {
  count = length(local.endpoints)

  vpc_id            = var.vpc.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = var.vpc.route_table_ids
}

resource "aws_vpc_endpoint" "secrets" {
  count = length(local.endpoints)

  vpc_id              = var.vpc.id
  service_name        = "com.amazonaws.${var.region}.secretsmanager"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = var.vpc.subnet_ids
  security_group_ids  = var.vpc.security_group_ids
  private_dns_enabled = true
}
