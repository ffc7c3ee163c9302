"""What the stored tables of the notebooks were made with, each resumable."""
