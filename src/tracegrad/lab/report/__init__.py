"""Every table, picture and page on runs and studies."""
