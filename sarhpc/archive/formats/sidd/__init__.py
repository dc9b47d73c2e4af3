"""SIDD: detected SAR products in NITF, placed by their product plane."""
