"""HTML from the templates beside this module, in which text cannot become markup."""

from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template


class Html(str):
    """Finished HTML, which `render` puts in as it is; every other string is text and gets escaped."""

    __slots__ = ()


def render(template: str, **values: str | int) -> Html:
    """Return a template with its placeholders filled.

    Parameters
    ----------
    template : str
        Path in the folder `templates`, without the ending.
    **values : str or int
        One for each ``$name`` in it: `Html` as it is, anything else escaped.

    Raises
    ------
    KeyError
        If a placeholder has no value.

    Examples
    --------
    >>> render("tearsheet/item", text="1 < 2")
    '<li>1 &lt; 2</li>'
    """
    return Html(
        _template(template).substitute(
            {name: value if isinstance(value, Html) else escape(str(value)) for name, value in values.items()}
        )
    )


def plotly_script() -> Html:
    """Return plotly.js.

    Raises
    ------
    ImportError
        If plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as e:
        raise ImportError("a tearsheet needs plotly: pip install 'ml4t_actor[report]'") from e
    return Html(get_plotlyjs())


def write_page(page: Html, path: str | Path) -> Path:
    """Write a page, with the folder that it goes into, and return where it is."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(f"{page}\n", encoding="utf-8", newline="\n")
    return target


@cache
def _template(name: str) -> Template:
    text = (files("ml4t_actor.report") / "templates" / f"{name}.html").read_text(encoding="utf-8")
    return Template(text.removesuffix("\n"))
