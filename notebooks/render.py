"""Execute the notebooks and keep what a reader needs: from *.ipynb to the same files with light outputs.

    python notebooks/render.py [NAME ...]

Left out are times, execution metadata and whatever else changes from one execution to the next; pictures are cut
to a palette. A cell that fails or warns ends it. It changes no cell's source. The first cell of a notebook shows
the picture that the cell with the comment `# shown at the top` draws, as an attachment.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

__all__ = ["HERE", "NOTEBOOKS", "TIMEOUT_S", "a_kernel", "execute", "lighten", "warnings_of"]

HERE = Path(__file__).parent
NOTEBOOKS = tuple(sorted(path.name for path in HERE.glob("[0-9]*.ipynb")))
TIMEOUT_S = 60
_COLOURS = 255
_SHOWN = {"text/plain", "text/html", "text/markdown", "image/png"}
_AT_THE_TOP = "# shown at the top"


def execute(name: str, *, then: str = "", kernel: AsyncKernelManager | None = None) -> NotebookNode:
    """Execute a notebook in its folder; return it with its outputs.

    Args:
        name: of the file.
        then: source of one more cell at the end, which the file does not have.
        kernel: that goes on to live, and forgets every name first; None: one for this notebook alone.

    Raises:
        CellExecutionError: a cell failed.
        CellTimeoutError: a cell took longer than `TIMEOUT_S`.
    """
    notebook = nbformat.read(HERE / name, as_version=4)  # type: ignore[no-untyped-call]
    if then:
        notebook.cells.append(nbformat.v4.new_code_cell(then))  # type: ignore[no-untyped-call]
    if kernel is not None:
        notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))  # type: ignore[no-untyped-call]
    with nullcontext(kernel) if kernel is not None else a_kernel() as manager:
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=TIMEOUT_S,
            coalesce_streams=True,
            record_timing=False,
            resources={"metadata": {"path": str(HERE)}},
        )
        return client.execute()


@contextmanager
def a_kernel() -> Iterator[AsyncKernelManager]:
    """One that the first notebook starts; it ends with the context."""
    with tempfile.TemporaryDirectory() as sockets:
        # Not by TCP: its ports are open to everyone on the machine.
        manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        try:
            yield manager
        finally:
            run_sync(manager.shutdown_kernel)(now=True)


def warnings_of(notebook: NotebookNode) -> list[str]:
    """Everything that cells wrote to stderr: a notebook that is committed writes nothing there."""
    return [
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output["output_type"] == "stream" and output["name"] == "stderr"
    ]


def lighten(notebook: NotebookNode) -> NotebookNode:
    """Cut outputs and metadata, in place, to what is shown and does not change by itself."""
    kernel = notebook.metadata["kernelspec"]
    notebook["metadata"] = {
        "kernelspec": {key: kernel[key] for key in ("display_name", "language", "name")},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell["metadata"] = {}
        for output in cell.get("outputs", ()):
            if "data" in output:
                output["metadata"] = {}
                data = {kind: output.data[kind] for kind in output.data if kind in _SHOWN}
                if "image/png" in data:
                    data = {"image/png": _fewer_colours(data["image/png"])}
                output["data"] = data
        if _AT_THE_TOP in cell.source:
            pictures = [one.data["image/png"] for one in cell.outputs if "image/png" in one.get("data", {})]
            notebook.cells[0]["attachments"] = {"picture.png": {"image/png": pictures[0]}}
    return notebook


def _fewer_colours(png: str) -> str:
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    small = io.BytesIO()
    picture.quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        small, "PNG", optimize=True
    )
    return base64.b64encode(small.getvalue()).decode()


def main() -> None:
    """Entry point of `python notebooks/render.py`."""
    for name in [Path(told).name for told in sys.argv[1:]] or NOTEBOOKS:
        notebook = execute(name)
        if said := warnings_of(notebook):
            raise SystemExit(f"{name} warns: {said[0]}")
        nbformat.write(lighten(notebook), HERE / name)  # type: ignore[no-untyped-call]
        print(f"{name}: {(HERE / name).stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
