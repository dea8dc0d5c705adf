"""The networks below the scores of images: CLIP in two layouts, ImageReward's BLIP, their input."""
