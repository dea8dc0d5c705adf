"""The parts that the two LoRA flows share: training, prompts to score on, scoring."""
