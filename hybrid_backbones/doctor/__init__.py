"""`python -m hybrid_backbones.doctor`: what is installed here, whether it works together, how to fix what does not."""
