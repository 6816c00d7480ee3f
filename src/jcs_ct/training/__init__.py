"""What training needs: losses and schedules. Inference never imports this package."""
