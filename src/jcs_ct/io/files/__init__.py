"""Files: what they are, which ones an input names, how they are opened."""
