# GPU nodes that are there while a run needs them.
data "aws_iam_policy_document" "nodes" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "nodes" {
  name               = "revector-gpu-nodes"
  assume_role_policy = data.aws_iam_policy_document.nodes.json
}

# What every EKS node needs: to join, and to pull images. No right to any bucket: that is the pods' own (identity.tf).
resource "aws_iam_role_policy_attachment" "nodes" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly"])

  role       = aws_iam_role.nodes.name
  policy_arn = "arn:aws:iam::aws:policy/${each.key}"
}

resource "aws_launch_template" "gpu" {
  name_prefix = "revector-gpu-"

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # a pod does not reach it, and so does not get the node's role
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_size           = 200 # GiB: the CUDA image, and what pods keep on local disk
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }
}

resource "aws_eks_node_group" "gpu" {
  cluster_name           = var.cluster_name
  node_group_name_prefix = "revector-gpu-"
  node_role_arn          = aws_iam_role.nodes.arn
  subnet_ids             = var.subnet_ids
  ami_type               = "AL2023_x86_64_NVIDIA"
  capacity_type          = "ON_DEMAND"
  instance_types         = var.gpu_instance_types
  labels                 = { "revector.dev/pool" = "gpu" }

  launch_template {
    id      = aws_launch_template.gpu.id
    version = aws_launch_template.gpu.latest_version
  }

  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = var.gpu_nodes_at_most
  }

  update_config {
    max_unavailable = 1
  }

  taint {
    key    = "nvidia.com/gpu"
    value  = "present"
    effect = "NO_SCHEDULE"
  }

  lifecycle {
    create_before_destroy = true
    ignore_changes        = [scaling_config[0].desired_size] # the autoscaler's
  }

  depends_on = [aws_iam_role_policy_attachment.nodes]
}

# While there is no node to look at, the cluster autoscaler reads from these what a new one would bring.
resource "aws_autoscaling_group_tag" "gpu" {
  for_each = {
    "k8s.io/cluster-autoscaler/node-template/label/revector.dev/pool"                   = "gpu"
    "k8s.io/cluster-autoscaler/node-template/taint/nvidia.com/gpu"                      = "present:NoSchedule"
    "k8s.io/cluster-autoscaler/node-template/resources/nvidia.com/gpu"                  = tostring(var.gpus_per_node)
    "k8s.io/cluster-autoscaler/node-template/autoscaling-options/scaledownunneededtime" = "10m0s"
  }

  autoscaling_group_name = aws_eks_node_group.gpu.resources[0].autoscaling_groups[0].name

  tag {
    key                 = each.key
    value               = each.value
    propagate_at_launch = false
  }
}
