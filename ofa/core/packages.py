"""Packages that can be called: `ofa.train(...)` beside `ofa.train.config`."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def make_callable(package: str, module: str, function: str) -> None:
    """Let a package be called as a function of one of its modules, which is imported on the first call.

    Importing `ofa.train.config` binds the name `train` in `ofa` to the package, whatever it was before; a package that
    can be called is both at once.
    """

    class CallablePackage(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(import_module(f"{package}.{module}"), function)(*args, **kwargs)

        @property
        def __signature__(self) -> Any:
            from inspect import signature

            return signature(getattr(import_module(f"{package}.{module}"), function))

    sys.modules[package].__class__ = CallablePackage
