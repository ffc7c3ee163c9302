"""What a notebook needs around its subject: helpers, exercises, figures, and the runner of the
series.
"""
