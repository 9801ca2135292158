"""Hides torch, which no user's environment needs; Python runs this at its start."""

from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec


@staticmethod
def find_all_but_torch(name, path=None, target=None):
    is_torch = name.partition(".")[0] == "torch"
    return None if is_torch else find_spec(name, path, target)


PathFinder.find_spec = find_all_but_torch
