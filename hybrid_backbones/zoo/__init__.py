"""What recognises and describes a checkpoint file by all registered networks."""
