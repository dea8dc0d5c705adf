"""Captioned images in, a trained LoRA and its files out. Its scorecard is in `scoring`."""
