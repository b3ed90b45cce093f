"""The pages of the site, gathered from the repository and written from the package."""
