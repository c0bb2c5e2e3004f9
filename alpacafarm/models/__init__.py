"""Models from Hugging Face folders, the heads that are trained, and the way back to a folder."""
