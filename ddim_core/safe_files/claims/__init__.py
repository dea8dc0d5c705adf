"""What files claim to unpack to, read off their heads before anything of them is unpacked.

Headers of NumPy's arrays and of safetensors, messages of Arrow, pages of Parquet. What they hold is
read elsewhere.
"""
