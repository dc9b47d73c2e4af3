"""The interface for Python, which `import sarhpc` offers by name; see docs/api.md."""
