"""How the work of a stage is carried out: in turn, on Dask workers, or by ranks together."""
