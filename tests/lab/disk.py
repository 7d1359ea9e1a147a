import resource
from contextlib import contextmanager


@contextmanager
def full_disk(size):
    """Lets no file grow beyond `size` bytes: what writes more fails as on a full disk, by another number."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
