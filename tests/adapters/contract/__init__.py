"""The contract that every library of neurons keeps, one set of tests for all of them.

To add a library, derive a class from `Library` in a file of libraries/ and list it there: the tests of this folder then
run its neurons. libraries/stub.py is the shortest one. What is peculiar to a library is tested beside this folder.

In the reference the library's own neurons are called step by step; gradients of weights, traces and relations come from
the loops of tests/reference.py.
"""
