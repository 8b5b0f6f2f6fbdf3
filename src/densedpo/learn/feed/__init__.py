"""What a step is fed with: the labelled pairs of a project, the order of visits, and the tensors of a batch."""
