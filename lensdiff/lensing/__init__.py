"""Strong lenses: which there are, how they are simulated and observed, and how they are
measured.
"""
