"""Text to image: any base opened part by part, the small base of our own, its scenes and its judge.

Pictures of prompts are drawn here, with or without a LoRA; training a LoRA is in `lora`.
"""
