# Stores: tables, catalog, ledgers.
#
# Versioning stays off, on purpose. Lance keeps every version that is still needed, in files of their own, so S3's versions would add
# nothing to a table; they would keep each heartbeat of each run, one every five seconds; and what `revector maintain --erase` removed
# would still be there, although it says that no byte of it is left. Against deletion by mistake: of what this code makes, only the two
# roles in identity.tf may delete objects.
resource "aws_s3_bucket" "stores" {
  bucket = var.bucket

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_ownership_controls" "stores" {
  bucket = aws_s3_bucket.stores.id

  rule {
    object_ownership = "BucketOwnerEnforced" # no access lists
  }
}

resource "aws_s3_bucket_public_access_block" "stores" {
  bucket                  = aws_s3_bucket.stores.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# With S3's own keys: a KMS key would add a request, a price and a right to each of the many small reads. Replace aws:kms where a
# rule of your house asks for it; conditional writes work with both.
resource "aws_s3_bucket_server_side_encryption_configuration" "stores" {
  bucket = aws_s3_bucket.stores.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# Nothing here may expire objects: what is old is not what is unneeded, and only `revector maintain` knows the difference.
resource "aws_s3_bucket_lifecycle_configuration" "stores" {
  bucket = aws_s3_bucket.stores.id

  rule {
    id     = "parts of uploads that a killed process left"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 3
    }
  }
}

data "aws_iam_policy_document" "tls_only" {
  statement {
    sid       = "NothingWithoutTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.stores.arn, "${aws_s3_bucket.stores.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "stores" {
  bucket     = aws_s3_bucket.stores.id
  policy     = data.aws_iam_policy_document.tls_only.json
  depends_on = [aws_s3_bucket_public_access_block.stores]
}
