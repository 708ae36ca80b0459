"""The build backend that pyproject.toml names: the suite runs from a checkout and is not built."""

raise SystemExit(
    "This suite runs from a checkout and cannot be installed: clone it, and run `make` there."
)
