"""The compiled parts; everything else about the build stands in pyproject.toml.

They are optional: without a compiler the same code runs in plain Python, slower (ADR 0010).
"""

from setuptools import Extension, setup

SOURCES = {
    "ultraengine.execution._packed": "engine/ultraengine/execution/_packed.c",
    "ultraengine.domains.ledger._lane": "engine/ultraengine/domains/ledger/_lane.c",
    "ultraengine.projection.postgres._rows": "engine/ultraengine/projection/postgres/_rows.c",
}

setup(
    ext_modules=[
        Extension(name, [source], extra_compile_args=["-O2", "-Wall", "-Wextra"], optional=True)
        for name, source in SOURCES.items()
    ]
)
