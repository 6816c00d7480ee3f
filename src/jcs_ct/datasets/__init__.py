"""A group's own data: how it lies on disk (`layouts`), what is wrong with it (`check`), and folds of it (`split`)."""
