#!/usr/bin/env python3
"""Writes the sample files beside it, with pyarrow: a writer that shares nothing with the reader under test."""

import pathlib
import random

import pyarrow
import pyarrow.orc
import pyarrow.parquet

HERE = pathlib.Path(__file__).parent


def table(rows, versions=True):
    """Rows whose contents follow from their number; `tests.rs` makes the same."""
    columns = {
        "bucket": pyarrow.array(["example-bucket"] * rows, pyarrow.string()),
        "key": pyarrow.array([f"folder-{i % 7}/日本 {i * i}{'x' * (i % 97 if i % 500 == 0 else i % 3)}" for i in range(rows)]),
    }
    if versions:
        columns["version_id"] = pyarrow.array([None if i % 5 == 0 else f"v{i}" for i in range(rows)], pyarrow.string())
    columns["size"] = pyarrow.array([i * 1_000 for i in range(rows)], pyarrow.int64())
    columns["is_latest"] = pyarrow.array([i % 2 == 0 for i in range(rows)])
    return pyarrow.table(columns)


for name, options in {
    "plain": {"compression": "none", "use_dictionary": False},
    "snappy": {"compression": "snappy", "row_group_size": 700, "data_page_size": 4_096},
    "gzip-v2": {"compression": "gzip", "data_page_version": "2.0", "data_page_size": 4_096},
}.items():
    pyarrow.parquet.write_table(table(2_000), HERE / f"{name}.parquet", **options)
pyarrow.parquet.write_table(table(10), HERE / "zstd.parquet", compression="zstd")
for name, options in {
    "plain": {"compression": "uncompressed"},
    "zlib": {"compression": "zlib", "dictionary_key_size_threshold": 0.9, "stripe_size": 16_384, "batch_size": 256},
    "snappy": {"compression": "snappy", "dictionary_key_size_threshold": 1.0},
}.items():
    pyarrow.orc.write_table(table(2_000), HERE / f"{name}.orc", **options)
pyarrow.orc.write_table(table(10), HERE / "zstd.orc", compression="zstd")
pyarrow.parquet.write_table(table(10, versions=False), HERE / "no-versions.parquet")
pyarrow.orc.write_table(table(10, versions=False), HERE / "no-versions.orc", compression="zlib")
# Lengths that are coded in every way of the run-length encoding: repeated, direct, in steps, with patches.
source = random.Random(1)
lengths = [5] * 600 + list(range(1, 400)) + [source.randrange(1, 60) for _ in range(900)]
lengths += [900 if i % 90 == 40 else source.randrange(1, 9) for i in range(700)] + list(range(399, 0, -1))
keys = pyarrow.array(["k" * n for n in lengths])
buckets = pyarrow.array([str(n) for n in lengths])
pyarrow.orc.write_table(pyarrow.table({"bucket": buckets, "key": keys}), HERE / "lengths.orc", compression="zlib")
