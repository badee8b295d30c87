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
  subnet_ids          = slice(var.vpc.subnet_ids, 0, 1) # Each costs 7.30 USD a month, and is reached from the others.
  security_group_ids  = [aws_security_group.endpoint[0].id]
  private_dns_enabled = true
}

# The endpoint lets the functions in, and nobody else.
resource "aws_security_group" "endpoint" {
  count = length(local.endpoints)

  name        = "${local.prefix}-secrets"
  description = "Blackwater: the functions reach Secrets Manager"
  vpc_id      = var.vpc.id
}

resource "aws_vpc_security_group_ingress_rule" "endpoint" {
  count = length(local.endpoints) * length(try(var.vpc.security_group_ids, []))

  security_group_id            = aws_security_group.endpoint[0].id
  referenced_security_group_id = var.vpc.security_group_ids[count.index]
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}
