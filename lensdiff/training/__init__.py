"""One loop for every task, what each task gives it, and the recipes of the shipped models."""
