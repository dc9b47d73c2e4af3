"""Shards: sample schema, writer, reader and training loader. The only owner of tar bytes."""
