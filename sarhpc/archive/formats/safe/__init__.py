"""Sentinel-1 GRD and SLC measurements in a SAFE folder, calibrated by their annotation."""
