"""The `data` command for one's own pictures: lists, converts, splits and writes them as TFRecords, with a report.

Called by the command line. Beam and TensorFlow, which take some 10 seconds to import, are imported only when all
pictures are converted, and it is known that they can be used.
"""

from pathlib import Path

from components.data.images import dataset, labels_csv, listing
from components.data.images.dataset import Request
from components.data.images.reading import compute_sha256
from components.data.images.report import FILES_NAME, describe_dataset
from components.data.images.splitting import compile_group_by
from components.data.manifest import Source, check_vacant, find_written, read_manifest
from components.errors import UsageError
from components.progress import track
from components.staging import stage_folder
from pipeline.data import describe_counts
from pipeline.imports import BEAM_MODULES, track_imports

_SIZES = range(8, 4_097)  # pixels; the largest square is as large as the data gate accepts


def _find_own_pictures(
    folder: Path, csv_file: Path | None, out: Path, request: Request
) -> tuple[listing.Listing, Source | None]:
    """Lists the pictures; also returns their source if `out` already holds exactly these.

    Raises:
      UsageError, DataError: see `write_from_images`.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f'--out {out} is inside {folder}, where it would be taken for a class; give a different --out.'
        )
    found = listing.list_folder(folder) if csv_file is None else labels_csv.list_csv(csv_file, folder)
    if out.is_dir() and read_manifest(out) is not None:
        with track('comparison', len(found.files), 'files') as advance:
            hashes = []
            for file in found.files:
                hashes.append(compute_sha256(file.path))
                advance(1)
        source = _make_source(folder, csv_file, dataset.compute_digest(found.files, hashes))
        manifest = find_written(out, source, None)
        if manifest is not None and manifest.get('images') == request._asdict():
            return found, source
    check_vacant(out)
    return found, None


def _make_source(folder: Path, csv_file: Path | None, sha256: str) -> Source:
    kind, place = ('images', folder.resolve()) if csv_file is None else ('csv', csv_file)
    return Source(kind=kind, name=place.name, sha256=sha256)


def write_from_images(
    folder: Path, out: Path, *, csv_file: Path | None = None, size: int | None = None, group_by: str | None = None
) -> str:
    """Writes a folder of one's own pictures as TFRecords, with what became of each file in `files.csv`.

    Args:
      folder: FOLDER/CLASS/*.jpg, or FOLDER/{train,val,test}/CLASS/*.jpg, or any folder with a CSV file.
      out: folder to make.
      csv_file: the class of each picture, see `components.data.images.labels_csv`; None takes the folders' names.
      size: length in pixels of the shorter side of every stored picture; None keeps CIFAR-10's size where all pictures
        have it, and else means 256.
      group_by: a regular expression; see `components.data.images.splitting.choose_splits`.

    Returns:
      A sentence that says what was done, and a few lines about the pictures.

    Raises:
      UsageError: the folder or the options are wrong, or `out` holds something else.
      DataError: the pictures or the CSV file cannot be used.
    """
    if size is not None and size not in _SIZES:
        raise UsageError(f'--size takes a number of pixels from {_SIZES[0]} to {_SIZES[-1]:,}. Received: {size}')
    request = Request(size, group_by)
    if group_by:
        compile_group_by(group_by)
    found, source = _find_own_pictures(folder, csv_file, out, request)
    if source is not None:
        return f'{describe_counts(read_manifest(out) or {})} already in {out}: nothing to do'
    report = out.with_name(f'{out.name}.{FILES_NAME}')
    with stage_folder(out) as staging:
        pictures = dataset.convert_pictures(found, request, staging, report)
        with track_imports(BEAM_MODULES):
            from components.data.images.records import write_records  # imports Beam and TensorFlow

        write_records(pictures, staging)
        hashes = [row.sha256 for row in pictures.rows[: len(found.files)]]
        source = _make_source(folder, csv_file, dataset.compute_digest(found.files, hashes))
        manifest = dataset.write_manifest(pictures, source, request, staging)
        if out.exists():
            out.rmdir()  # it is empty, or check_vacant would have refused it
        staging.rename(out)
    report.unlink(missing_ok=True)  # of an attempt that failed
    done = f'{describe_counts(manifest)} written to {out}: {pictures.contract.describe()}'
    details = describe_dataset(pictures.rows, pictures.contract.class_names)
    return '\n'.join([done, *details, f'each file is in {out / FILES_NAME}'])
