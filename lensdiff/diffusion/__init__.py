"""The noise process and the samplers, in torch alone."""
