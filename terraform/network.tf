# In a VPC the functions reach S3 and Secrets Manager by endpoints; a NAT gateway would cost more than all the rest.

locals {
  endpoints = { for name in ["s3", "secretsmanager"] : name => contains(try(var.vpc.endpoints, []), name) ? 1 : 0 }
}

resource "aws_vpc_endpoint" "s3" {
  count = local.endpoints.s3

  vpc_id            = var.vpc.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = var.vpc.route_table_ids
}

resource "aws_vpc_endpoint" "secrets" {
  count = local.endpoints.secretsmanager

  vpc_id              = var.vpc.id
  service_name        = "com.amazonaws.${var.region}.secretsmanager"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = slice(var.vpc.subnet_ids, 0, 1) # Each costs 7.30 USD a month, and is reached from the others.
  security_group_ids  = [aws_security_group.endpoint[0].id]
  private_dns_enabled = true
}

# It answers for the whole VPC, so it lets the whole VPC in; who may read which secret is for IAM to say.
resource "aws_security_group" "endpoint" {
  count = local.endpoints.secretsmanager

  name        = "${local.prefix}-secrets"
  description = "Blackwater: the way to Secrets Manager"
  vpc_id      = var.vpc.id
}

data "aws_vpc" "functions" {
  count = local.endpoints.secretsmanager

  id = var.vpc.id
}

resource "aws_vpc_security_group_ingress_rule" "endpoint" {
  count = local.endpoints.secretsmanager

  security_group_id = aws_security_group.endpoint[0].id
  cidr_ipv4         = data.aws_vpc.functions[0].cidr_block
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
