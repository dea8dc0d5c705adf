"""LoRA files that somebody else trained in, which of them to ship out."""
