"""Adds configs/, which lies beside the package in a clone, to the package; the rest is static."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["keras_preact*"]), "keras_preact.configs"],
    package_dir={"keras_preact.configs": "configs"},
    package_data={"keras_preact.configs": ["*.flags"]},
)
