"""How the work of SwiGLU is cut into programs."""

BLOCK = 2048
"""Numbers of a program: with four warps 16 per thread, two loads of 16 bytes in bfloat16."""

WARPS = 4
