import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # Norse builds on torch.jit, which PyTorch deprecates
    import norse.torch  # noqa: F401
