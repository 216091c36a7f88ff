"""The layers of the eager backend as ordinary PyTorch. Nothing here knows the compiler."""
