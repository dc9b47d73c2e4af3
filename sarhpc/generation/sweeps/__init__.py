"""Sensor sweeps: each layout imaged under many sensor settings, and speckle drawn repeatedly."""
