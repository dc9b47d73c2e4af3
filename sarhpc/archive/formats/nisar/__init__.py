"""GSLC, GCOV and RSLC products in the HDF5 layout of NISAR; UAVSAR products use it too."""
