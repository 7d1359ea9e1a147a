"""The methods that the paper compares with or builds on."""
