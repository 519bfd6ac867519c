"""Helpers that run the import and export jobs, and read and write their files."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import load_job
from videogen import storage
from videogen.data.sources import open_source


def run_import(source, output, *options):
    """Run the job; return videos with captions by the end of their path, and errors by member."""
    load_job("import_videos").main(["--input", str(source), "--output", str(output), *map(str, options)])
    source = open_source(storage.join(str(output), "videos.parquet"))
    rows = pa.Table.from_batches(source.batches()).to_pylist()
    filesystem, path = storage.arrow_filesystem(storage.join(str(output), "errors.parquet"))
    errors = pq.read_table(path, filesystem=filesystem).to_pylist()
    return rows, {error["member"]: error["error"] for error in errors}


def write_tar(path, files, mode="w"):
    """Write a tar archive; values are file contents, or a TarInfo for a member that is not a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in files:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def export(table, output, form, *options):
    load_job("export_table").main(
        ["--table", str(table), "--output", str(output), "--format", form, *map(str, options)]
    )
    return sorted(str(path.relative_to(output)) for path in Path(output).rglob("*") if path.is_file())


def read_tars(folder):
    import webdataset

    tars = sorted(str(path) for path in Path(folder).glob("*.tar"))
    return list(webdataset.WebDataset(tars, shardshuffle=False).decode())
