"""Packaging of unseg-jax."""

from pathlib import Path

from setuptools import find_packages, setup

# pysodmetrics asks for opencv-python-headless below 5; the refinement needs its superset, which
# fills the same folder. pip installs dependencies of dependencies first: the superset wins.
BENCHMARKS = ["opencv-contrib-python-headless>=4.7,<5", "pysodmetrics>=1.6"]
GCS = ["gcsfs>=2025.5"]
# Not s3fs: it holds botocore to versions that what else needs boto3 rarely agrees with.
S3 = ["boto3", "obstore>=0.8"]
# Formulas become MathML when the site is built: latex2mathml needs no script from elsewhere.
DOCS = ["latex2mathml>=3.78", "mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=1.0"]
DEMO = ["gradio>=6"]
# JAX writes StableHLO with flatbuffers, and does not ask for it.
EXPORT = ["flatbuffers", "onnx>=1.17", "onnxruntime>=1.20"]
# TensorFlow never computes here: its build without accelerators is enough where there is one.
TENSORFLOW = [
  "tensorflow-cpu; sys_platform == 'linux' and platform_machine == 'x86_64'",
  "tensorflow; sys_platform != 'linux' or platform_machine != 'x86_64'",
]

setup(
  name="unseg-jax",
  version="0.1.0",
  description="Unsupervised image segmentation from pretrained GANs, in JAX and Flax",
  long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  url="https://github.com/unseg-jax/unseg-jax",
  project_urls={
    "Source": "https://github.com/unseg-jax/unseg-jax",
    "Issues": "https://github.com/unseg-jax/unseg-jax/issues",
    "Changelog": "https://github.com/unseg-jax/unseg-jax/blob/main/CHANGELOG.md",
    "Paper": "https://arxiv.org/abs/2105.08127",
  },
  keywords=["image segmentation", "unsupervised", "GAN", "JAX", "Flax", "TPU"],
  # .ci/versions runs the oldest and the newest of these, and of JAX and flax below.
  python_requires=">=3.11,<3.14",
  classifiers=[
    "Development Status :: 4 - Beta",
    "Intended Audience :: Science/Research",
    "License :: OSI Approved :: Apache Software License",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Topic :: Scientific/Engineering :: Image Recognition",
  ],
  # The configs become a part of the package: a top-level `configs` would be in everybody's way.
  packages=[
    *find_packages(include=["unseg_jax", "unseg_jax.*", "checkpoints_convert"]),
    "unseg_jax.configs",
  ],
  package_dir={"unseg_jax.configs": "configs"},
  package_data={
    "unseg_jax": [
      "py.typed",
      "demo/templates/*",
      "reporting/templates/*",
      "export/web/*",
      "pretrained/*.safetensors",
      "pretrained/segmenters/*.safetensors",
      "pretrained/*.txt",
      "pretrained/*.md",
      "pretrained/example/*.png",
    ]
  },
  install_requires=[
    "absl-py",
    "array_record",
    "clu",
    "dm-pix",
    "flax>=0.12.7",
    "fsspec",
    "grain",
    "importlib_resources",  # TFDS imports it when a builder is made.
    "jax>=0.10,<0.13",
    "jinja2>=3.1",
    "matplotlib>=3.8",
    "ml-collections",
    "numpy",
    "optax",
    "orbax-checkpoint>=0.11",
    "pillow",
    "pooch>=1.9",
    "protobuf",
    "pyyaml",
    "requests",
    "safetensors",
    "scipy",
    "simplejpeg>=1.8",  # Decodes about 1.7 times as fast as Pillow, to the same pixels.
    "tenacity",
    "tensorboard",
    "tensorflow-datasets",
    "tqdm",
    "urllib3>=2",  # Through requests, version 1 took a download that was cut short for whole.
  ],
  extras_require={
    "benchmarks": BENCHMARKS,
    "convert": ["torch>=2.10"],
    "cuda": ["jax[cuda12]"],
    "demo": DEMO,
    "docs": DOCS,
    "export": EXPORT,
    "gcs": GCS,
    "s3": S3,
    "tensorflow": TENSORFLOW,
    "tpu": ["jax[tpu]"],
    "test": [
      *BENCHMARKS,
      *DEMO,
      *DOCS,
      *EXPORT,
      *GCS,
      *S3,
      *TENSORFLOW,
      "beartype",  # Checks every signature, by jaxtyping's import hook.
      "codespell",
      "dill",  # The builder tests of TFDS import it.
      # The buckets that the tests use.
      "flask",
      "flask-cors",
      "gcp-storage-emulator",
      "moto[s3]>=5",
      "hypothesis",
      "import-linter",  # Holds the layers that pyproject.toml lists.
      # The notebooks, which are executed.
      "ipykernel",
      "ipywidgets",
      "jaxtyping",
      "mypy",
      "nbclient",
      "nbformat",
      "playwright",  # Drives a Chromium that is there; it brings none.
      "pytest",
      "pytest-xdist",  # Runs the tests on two cores.
      "pytorch-pretrained-biggan",  # What the converted BigGAN-deep is compared with.
      "ruff==0.17.6",
      "scikit-image",
      "setuptools>=70.1",  # Builds the wheel that a test installs from.
      "torch==2.13.0",
      "types-requests",
      "types-setuptools",
      "types-tqdm",
    ],
  },
)
