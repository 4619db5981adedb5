"""The structure of an HTML page: its tags, tables, cards, captions and addresses, as a test asks for them."""

from html.parser import HTMLParser

VOID = ("meta", "img", "br", "input")


class Dom(HTMLParser):
    """Reads a page. Fails where tags are not closed in order."""

    def __init__(self, page: str | bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        """Of each table the rows, of each row the text of its cells; the header is the first row."""
        self.cards: dict[str, str] = {}
        """Label -> value."""
        self.captions: list[str] = []
        self.errors: list[str] = []
        self._open: list[tuple[str, str, int]] = []
        self.feed(page if isinstance(page, str) else page.decode())
        assert self._open == []

    def values(self, *names: str) -> list[str]:
        """Values of the attributes of these names, in order."""
        return [value for name, value in self.attributes if name in names and value]

    def images(self) -> int:
        """How many images are embedded."""
        return sum(value.startswith("data:image/") for value in self.values("src"))

    def table(self, *header: str) -> list[list[str]]:
        """The rows of the one table whose header starts like this."""
        (found,) = [rows[1:] for rows in self.tables if rows[0][: len(header)] == list(header)]
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append((tag, dict(attrs).get("class") or "", len(self.text)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        opened, kind, start = self._open.pop()
        assert opened == tag
        text = self.text[start:]
        if tag in ("td", "th"):
            self.tables[-1][-1].append(text)
        elif tag == "figcaption":
            self.captions.append(text)
        elif kind == "error":
            self.errors.append(text)
        elif tag == "b":
            self._value = text
        elif tag == "span" and self._open and self._open[-1][1] == "card":
            self.cards[text] = self._value

    def handle_data(self, data: str) -> None:
        self.text += data
