"""Package metadata. The wheel carries `configs/` as `vissl_lite/configs`."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
EXTRAS = {
    "fast": ["simplejpeg", "opencv-python-headless"],  # decoding, and colours on a CPU
    "timm": ["timm"],
    "detection": ["pycocotools"],
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
    "huggingface": ["transformers"],
    "wandb": ["wandb"],
    "s3": ["boto3"],
    "slurm": ["hydra-submitit-launcher==1.2.0"],
    # hydra-optuna-sweeper 1.3.0 brings optuna 2, whose storage needs these old versions
    "sweep": [
        "hydra-joblib-launcher==1.2.0",
        "hydra-optuna-sweeper==1.3.0",
        "sqlalchemy<2",
        "alembic<1.14",
    ],
}
TOOLS = ["pytest", "pytest-xdist", "ruff", "pyright", "build"]
TESTED = ["fast", "timm", "detection", "onnx", "huggingface", "slurm", "sweep"]


def version() -> str:
    """Read as text: importing the package would need torch."""
    for line in (ROOT / "vissl_lite" / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("vissl_lite/__init__.py has no __version__")


setup(
    name="vissl-lite",
    version=version(),
    description="Pre-training of large vision models without labels or with weak ones.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[*find_packages(include=["vissl_lite", "vissl_lite.*"]), "vissl_lite.configs"],
    package_dir={"vissl_lite.configs": "configs"},
    include_package_data=False,
    package_data={"vissl_lite.configs": ["**/*.yaml"]},
    install_requires=[
        "torch>=2.11",
        "torchvision",
        "hydra-core>=1.3.8,<1.4",
        "omegaconf>=2.3,<2.4",
        "fvcore",
        "iopath",
        "numpy",
        "pillow",
        "pyarrow",
        "pyyaml",
        "rich",
        "safetensors",
        "scikit-learn",
        "scipy",
        "tensorboard",
    ],
    extras_require={
        "test": [*TOOLS, *(word for name in TESTED for word in EXTRAS[name])],
        **EXTRAS,
    },
    entry_points={"console_scripts": ["vissl-lite = vissl_lite.__main__:main"]},
)
