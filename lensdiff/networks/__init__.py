"""The networks: the U-Net of the denoiser, and the classifier with its backbones and heads."""
