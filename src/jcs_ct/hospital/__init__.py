"""What orchestrators of hospitals ask of a program that they start."""
