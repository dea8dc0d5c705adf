"""Pictures with and without a LoRA in, a scorecard's rows out."""
