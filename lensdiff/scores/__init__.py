"""What generated images and classifiers are worth: features, distances, the card, classes and
parameters.
"""
