"""Pages are put together from templates, in which only what is marked as HTML is markup."""

from importlib.resources import files
from string import Template

import pytest

from ml4t_actor.report.page import Html, render, write_page

TEMPLATES = files("ml4t_actor.report") / "templates"
EVIL = "<b>&\"'$text ${text} {text} %s"


def test_text_is_escaped_and_html_is_not():
    assert render("tearsheet/item", text="<b>") == "<li>&lt;b&gt;</li>"
    assert render("tearsheet/item", text=Html("<b>")) == "<li><b></li>"
    assert render("tearsheet/item", text=3) == "<li>3</li>"


def test_a_fragment_is_put_into_another_as_it_is():
    inner = render("tearsheet/item", text=EVIL)
    assert inner == "<li>&lt;b&gt;&amp;&quot;&#x27;$text ${text} {text} %s</li>"
    assert render("tearsheet/item", text=inner) == f"<li>{inner}</li>"


def test_text_that_was_made_of_html_is_text_again():
    # A slice or a sum of HTML may be anything.
    assert render("tearsheet/item", text=Html("<b>") + "<i>") == "<li>&lt;b&gt;&lt;i&gt;</li>"


def test_a_placeholder_without_a_value_is_refused():
    with pytest.raises(KeyError, match="text"):
        render("tearsheet/item")


@pytest.mark.parametrize("folder", ["tearsheet", "timeline"])
def test_every_template_can_be_filled(folder: str):
    names = [path.name for path in (TEMPLATES / folder).iterdir()]
    assert "page.html" in names
    for name in names:
        text = (TEMPLATES / folder / name).read_text(encoding="utf-8")
        assert Template(text).is_valid(), name
        placeholders = Template(text).get_identifiers()
        filled = render(f"{folder}/{name.removesuffix('.html')}", **dict.fromkeys(placeholders, "x"))
        assert "$" not in filled, name


def test_a_page_goes_into_a_new_folder_with_unix_line_ends(tmp_path):
    path = write_page(Html("<p>é\n</p>"), tmp_path / "deep" / "page.html")
    assert path.read_bytes() == "<p>é\n</p>\n".encode()
