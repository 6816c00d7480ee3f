"""Tables of spreadsheets: semicolons with commas in cells, commas with semicolons, tabs; what is unclear is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from datasets_help import lesion, picture, save
from jcs_ct.core.errors import InputError
from jcs_ct.datasets.csv_tables import number_of, open_table
from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.evaluate.inputs import read_probabilities

if TYPE_CHECKING:
    from pathlib import Path

HEADERS = {  # header → what divides it
    "file,label,group": ",",
    "file;label;group": ";",
    "file\tlabel\tgroup": "\t",
    "file;label;age, years": ";",  # a comma in the name of a column
    "file;label;size, mm;place, town, street": ";",
    "file,label,group;or study": ",",
    '"file";"label";"group, or study"': ";",
    "file, label, note; other; third; fourth": ",",
    "file": ",",
    "label;file": ";",
}


@pytest.mark.parametrize("header", HEADERS)
def test_the_header_tells_what_divides_the_columns(header: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{header}\nx\n")
    table = open_table(tmp_path / "t.csv", ("file", "label", "group"))
    assert table.delimiter == HEADERS[header]
    assert "file" in table.header


def test_cells_keep_their_commas(tmp_path: Path) -> None:
    for name in ("a, left.png", "b;right.png", "c.png"):
        save(tmp_path / name, picture(len(name)))
        save(tmp_path / f"m {name}", lesion(0))
    rows = ['a, left.png;m a, left.png;1;"Doe; J."', '"b;right.png";"m b;right.png";0;p,q', "c.png;m c.png;1;r"]
    texts = {
        "plain": "file;mask;label;patient, or group",
        "sep": "sep=;\nfile;mask;label;group",
        "crlf": "file;mask;label;group\r",
    }
    for name, header in texts.items():
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8-sig")
        data = open_dataset(tmp_path / f"{name}.csv")
        assert [s.path.name for s in data.samples] == ["a, left.png", "b;right.png", "c.png"]
        assert all(s.path.is_file() and s.mask is not None and s.mask.is_file() for s in data.samples)
        assert [s.label for s in data.samples] == [1, 0, 1]
        if name != "plain":
            assert [s.group for s in data.samples] == ["Doe; J.", "p,q", "r"]
    assert any("patient, or group" in note for note in open_dataset(tmp_path / "plain.csv").notes)


def test_what_does_not_fit_is_refused_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for text, message, hint in (
        ("file;label\na;b.png;1\n", "has 3 cells, the header has 2", "put a cell with a semicolon in quotes"),
        ("file,label\na,b.png,1\n", "has 3 cells, the header has 2", "put a cell with a comma in quotes"),
        ("file;label\na.png,1\n", "has 1 cells, the header has 2", "put a cell with a semicolon in quotes"),
        ("name;label\na.png;1\n", "has the columns name, label; 'file' is expected among them", "the first line names"),
        ("file;x,y,file\na;1\n", "can be read in two ways: a comma or a semicolon divides its columns", "quotes"),
    ):
        path.write_text(text)
        with pytest.raises(InputError) as refused:
            open_dataset(path)
        assert message in refused.value.message
        assert hint in (refused.value.hint or "")


def test_probabilities_with_a_decimal_comma(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("file;probability;flags\na, left.png;0,25;\nb.png;1;x, y\nc.png;0.5;\n")
    assert read_probabilities(path) == [("a, left.png", 0.25), ("b.png", 1.0), ("c.png", 0.5)]
    for text, message in (
        ("file,probability\na.png,0,25\n", "has 3 cells, the header has 2"),
        ("file;probability\na.png;1,5\n", "with the probability '1,5'; a number from 0 to 1 is expected"),
        ("file;probability\na.png;0,2,5\n", "with the probability '0,2,5'"),
        ("file;probability;file\na.png;0,2;b\n", "has a column twice"),
    ):
        path.write_text(text)
        with pytest.raises(InputError) as refused:
            read_probabilities(path)
        assert message in refused.value.message
    assert number_of("0.5", ",") == 0.5
    with pytest.raises(ValueError, match="0,5"):
        number_of("0,5", ",")
