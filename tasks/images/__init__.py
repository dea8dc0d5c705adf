"""Data sets and prompts in, images and lists of prompts in the store out.

Captioned images of LoRAs are in `lora`.
"""
