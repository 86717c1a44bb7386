"""The reference says what the settings say, since it is made of them."""

from pathlib import Path

from upwell.runtime.roles.up_settings import UpSettings
from upwell.runtime.settings import reference

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_table_of_settings_is_the_one_made_from_them() -> None:
    page = REFERENCE.read_text()
    begin = page.index("-->\n", page.index("<!-- settings")) + len("-->\n")
    assert page[begin : page.index("<!-- end -->")] == reference(UpSettings)
