"""BLIP's multimodal mixture of encoder-decoder, in plain PyTorch."""
