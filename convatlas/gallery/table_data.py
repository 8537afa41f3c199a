"""The rows of a large table as JSON in the page, from which static/table.js makes those that are shown."""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from convatlas.gallery.explorer_data import dump_script_json


@dataclass(frozen=True)
class TableColumn:
    """A column of a large table.

    Attributes:
        key: Its name in the address of the page.
        title: Its header.
        values: Numbers, (rows,), of which float32 is shown and exported; NaN is an empty cell. With choices,
            indices into them; -1 is an empty cell.
        choices: The texts of a column of texts, without repeats, in the order in which they are sorted.
        is_header: Whether its cells are the headers of the rows.
        is_link: Whether its cells link to what the row is about.
        unlinked: The choices whose rows have no link.
    """

    key: str
    title: str
    values: np.ndarray
    choices: Sequence[str] | None = None
    is_header: bool = False
    is_link: bool = False
    unlinked: Sequence[int] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether no cell has a value."""
        return bool(np.isnan(self.values).all() if self.is_number else (self.values < 0).all())

    @property
    def is_number(self) -> bool:
        """Return whether its cells are numbers."""
        return self.choices is None

    def format_cell(self, row: int) -> str:
        """Return the text of a cell, as the script writes it.

        Args:
            row: Number of the row.
        """
        if self.choices is not None:
            index = int(self.values[row])
            return self.choices[index] if index >= 0 else ""
        value = float(np.float32(self.values[row]))
        if np.isnan(value):
            return "–"
        text = f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{float(f'{value:.3g}'):.16g}"
        return text.replace("e-0", "e-").replace("e+0", "e+").replace("-", "−")


def dump_table(columns: Sequence[TableColumn]) -> Markup:
    """Write the rows of a table as JSON that is safe within a script element.

    Args:
        columns: The columns, of as many rows each.

    Returns:
        The columns without values, the number of rows, and the values as float32, little-endian, by columns:
        of each the first bytes of all values, then the second, third and fourth, which compresses better;
        deflated, in base64.
    """
    planes = [
        np.ascontiguousarray(column.values, "<f4").view(np.uint8).reshape(-1, 4).T.tobytes()
        for column in columns
    ]
    return dump_script_json(
        {
            "columns": [
                {
                    "key": column.key,
                    "title": column.title,
                    **({"choices": list(column.choices)} if column.choices is not None else {}),
                    **({"unlinked": list(column.unlinked)} if column.unlinked else {}),
                    **{name: True for name in ("is_header", "is_link") if getattr(column, name)},
                }
                for column in columns
            ],
            "length": len(columns[0].values),
            "data": base64.b64encode(zlib.compress(b"".join(planes), 9)).decode(),
        }
    )
