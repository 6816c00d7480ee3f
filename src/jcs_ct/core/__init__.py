"""What every other part knows: errors, values, geometry, whole files, memory."""
