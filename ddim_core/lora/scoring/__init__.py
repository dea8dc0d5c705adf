"""What a LoRA gained and what it cost: measures of pictures, paired over prompts.

Sentences about scorecards are in `reports`.
"""
