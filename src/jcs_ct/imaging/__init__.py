"""From Hounsfield units or a picture to what a network sees, and back."""
