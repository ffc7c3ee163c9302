"""Images to learn from: sets of them, their split, symmetries and labels, and the readers of
folders.
"""
