"""SICD: complex SAR images in NITF with their acquisition geometry."""
