"""Parses Python tracebacks, one parser per lane: indented or not, excerpted, chained, nested, grouped, boxed (rich), IPython's."""

from __future__ import annotations

import re

import msgspec

from doctor.core.events import Frame
from doctor.readers.console import ipython
from doctor.support.lazy_regex import lazy_compile

HEADER = "Traceback (most recent call last)"
CUT = '.py", line '
_COLLAPSED = lazy_compile(r"\(most recent call last\):?[ \t]+File [\"“']")
"""A whole traceback pasted as one line: an ordinary line, whose end rules read."""
_FRAME = lazy_compile(r'\s*File "([^"]{1,1000})", line (\d{1,9})(?:, in (.{1,300}))?\s*$')
_CUT_FRAME = lazy_compile(r'\s*([^"]{1,1000}\.py)", line (\d{1,9})(?:, in (.{1,300}))?\s*$')
"""The first frame of an excerpt that begins in the middle of its line."""
_RICH_FRAME = lazy_compile(r"(\S.*?):(\d{1,9}) in (\S.*)$")
_RICH_CODE = lazy_compile(r"❱\s*\d+\s*│?\s?(.*)$")
_RAISED = lazy_compile(
    r"((?:[A-Za-z_]\w*\.)*_?[A-Z]\w*|socket\.\w+|(?:struct|zlib|binascii|re)\.error)(?:\([\w., ]{1,200}\))?(?::(?:\s(.*))?)?$", re.S | re.A
)
"""The line that ends a traceback: a class name (ASCII: damaged bytes can look like letters), then usually a colon and the message."""
_BARE = lazy_compile(
    r"\s*((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Invalid|Exit)|StopIteration)(?:\([\w.]{1,100}\))?(?::\s(.*))?$", re.S
)
"""The same without a traceback before it (an excerpt): only names that are exceptions for certain."""
_BEHIND_CODE = lazy_compile(
    r"(?:if|for|while|return|with|self\b|\w+ ?=|\w+\().*\S ((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)):\s(\S.*)$"
)
"""An exception behind its source line: line ends were lost when the text was pasted."""
_RAISES = lazy_compile(r"raise ((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)?)\([rfRF]?(?P<quote>[\"'])(.+?)(?P=quote)")
"""A source line that raises with a text of its own: it names the exception where the traceback was cut off behind it."""
_NO_EXCEPTION = frozenset(
    {"Killed", "Terminated", "Aborted", "Hangup", "Traceback", "Note", "Warning", "True", "None", "Message", "Arguments", "Command"}
)
_DOUBTFUL = frozenset({"Error", "Exception"})
"""Names that count as exceptions only after a traceback."""
_ELLIPSES = frozenset({"...", "…", "[...]", "......", "....."})
_DECORATION = lazy_compile(r"[\s^~()\[\]{},]*$|\.\.\.<\d+ lines>\.\.\.$|\[Previous line repeated ")
_FOREIGN = lazy_compile(
    r"""\s*(?:\[(?!\s*\d+\]|'|"|Errno)|\d{4}-\d\d-\d\d|\d\d/\d\d/\d{4}|[WEIF]\d{4}\s|\d+%\||={5}|\*{5}|-{20}|[╭╰│┌└]|\{['"]|(?!nccl\w*Error)[a-z][\w.-]*:\s|
    (?:INFO|WARNING|ERROR|DEBUG|CRITICAL)\b|Killed|Terminated|Aborted|Segmentation\ fault|Bus\ error|During\ handling|The\ above\ exc|
    Traceback\ |Exception\ (?:ignored|in)|Fatal\ Python|['"]{3}|/\S+:\d+:\s|wandb|\+\ |\#\s|\$\s|Loading\ |Saving\ |Root\ Cause|Failures:|
    (?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Warning):\s|File\ ")""",
    re.X,
)
"""Lines that may follow a message and are no part of it."""
LOGGING_ERROR, IGNORED = "--- Logging error ---", "Exception ignored in"
"""Text of the lines before blocks of errors that Python's logging and its garbage collector ignore."""
_IGNORED = re.compile(r"Exception ignored in(?::| \w)")
_MAX_HARMLESS = 200
"""Lines of a logging error at most: two stacks."""
CHAIN = ("During handling of the above exception", "The above exception was the direct cause")
_MESSAGE_LINES, _MESSAGE_SIZE = 40, 20_000
"""Lines and characters of a message."""
_MAX_FRAMES = 200
"""Frames of a traceback; of a deeper one the middle is dropped."""
_MAX_FOREIGN = 60
"""Lines of other output inside a traceback after which it counts as cut off."""
_MAX_CODE = 500
"""Characters of a frame's source line."""


class Raised(msgspec.Struct):
    """A complete exception. `line` is the line with its name, or of the last frame if the text ended before it."""

    exception: str
    message: str
    frames: tuple[Frame, ...]
    chain: int
    line: int


class _Open(msgspec.Struct):
    """A traceback that is being read. `raises`: class and text of a source line that raises, which counts if no exception follows."""

    indent: int
    line: int
    frames: list[Frame] = []
    flat: bool = True
    rich: bool = False
    grouped: bool = False
    cells: bool = False
    expects_code: bool = False
    foreign: int = 0
    exception: str = ""
    message: list[str] = []
    size: int = 0
    raises: tuple[str, str] | None = None


class Tracebacks:
    """`feed` line after line of one lane. It returns whether the line is part of a traceback, and the exceptions that it completes.

    `rank`: that of the lane, if its lines tell it.
    """

    def __init__(self) -> None:
        self.rank: int | None = None
        self._open: _Open | None = None
        self._outer: list[_Open] = []
        self._chain = 0
        self._chained = False
        self._remote = False
        self._ignores = False
        self._skipping = 0
        self.line = 0

    @property
    def silent_since(self) -> int | None:
        """The last line of a message that may be complete; None if no message is open."""
        return self.line if self._open is not None and self._open.exception else None

    @property
    def active(self) -> bool:
        """Whether the next line may belong to a traceback whatever it looks like."""
        return self._open is not None or self._remote

    @property
    def idle(self) -> bool:
        """Whether the next line matters only if it begins something."""
        return self._open is None and not self._remote and not self._skipping

    def lacks(self, text: str) -> bool:
        """Whether a traceback is open whose exception is missing, and this line (without newline and prefix) names one."""
        open_ = self._open
        return open_ is not None and not open_.exception and bool(open_.frames or open_.raises) and _BARE.match(text) is not None

    def feed(self, text: str, line: int) -> tuple[bool, list[Raised]]:
        """Add a line (without newline and rank prefix)."""
        open_ = self._open
        self.line = line
        if (harmless := self._harmless_block(text)) is not None:
            return harmless
        if HEADER in text and not _COLLAPSED.search(text):
            return True, self._start(text, line)
        if open_ is None:
            return self._idle(text, line)
        if open_.grouped:
            text = re.sub(r"^\s*[|+]\s?", "", text, count=1)
        if open_.exception:
            return self._in_message(open_, text, line)
        return (self._in_cells if open_.cells else self._in_rich if open_.rich else self._in_frames)(open_, text, line)

    def _harmless_block(self, text: str) -> tuple[bool, list[Raised]] | None:
        """Skip what Python prints of errors that it then ignores; None if the line is no part of such a block.

        `--- Logging error ---` ends with its `Arguments:`. `Exception ignored in` is followed by one traceback.
        """
        if LOGGING_ERROR in text:
            done = self.close()
            self._skipping = _MAX_HARMLESS
            return True, done
        if self._skipping:
            self._skipping = 0 if text.startswith("Arguments:") else self._skipping - 1
            return True, []
        if IGNORED in text and _IGNORED.match(text.strip()):
            done = self.close()
            self._ignores = True
            return True, done
        return None

    def close(self) -> list[Raised]:
        """The text ended."""
        done = []
        while self._open is not None:
            done += self._finish()
        return done

    def _start(self, text: str, line: int) -> list[Raised]:
        open_ = self._open
        done: list[Raised] = []
        before = text[: text.index(HEADER)]
        if open_ is not None:
            if open_.exception and "Original" in before:
                self._outer.append(open_)
                self._open = None
            else:
                done = self.close()
        if not self._chained and not self._outer:
            self._chain = 0
        self._chained = self._remote = False
        indent = len(before) if before.isspace() else 0
        self._open = _Open(indent=indent, line=line, rich="─" in before, grouped="Group" in before or "|" in before[:8])
        self._open.cells = ipython.HEADER_NAME.match(before) is not None
        return done

    def _idle(self, text: str, line: int) -> tuple[bool, list[Raised]]:
        if text.startswith(CHAIN):
            self._chained = True
            return True, []
        if "RemoteTraceback" in text and text.rstrip(" :").endswith("RemoteTraceback"):
            self._remote = True
            return True, []
        if text.strip() in ('"""', "'''") and (self._remote or self._chain):
            self._remote = False
            return True, []
        frame = _FRAME.match(text) if 'File "' in text else _CUT_FRAME.match(text) if CUT in text else None
        if frame is not None:
            self._chain = 0
            self._open = _Open(indent=len(text) - len(text.lstrip()) - 2, line=line)
            self._add_frame(self._open, frame, text)
            return True, []
        if ipython.ARROW in text and ipython.running(text) is not None:
            self._chain = 0
            self._open = _Open(indent=0, line=line, cells=True)
            return self._in_cells(self._open, text, line)
        if (raises := _RAISES.match(text.lstrip())) is not None:
            self._chain = 0
            self._open = _Open(indent=len(text) - len(text.lstrip()) - 1, line=line, raises=(raises[1], raises[3]))
            return True, []
        bare = _BARE.match(text) if not text.startswith("\t") else None
        if bare is not None and bare[1] not in _NO_EXCEPTION and bare[1] not in _DOUBTFUL:
            self._chain = self._chain if self._chained else 0
            self._chained = False
            self._open = _Open(indent=0, line=line, exception=bare[1])
            self._add_message(self._open, bare[2] or "")
            return True, []
        return False, []

    def _in_frames(self, open_: _Open, text: str, line: int) -> tuple[bool, list[Raised]]:
        stripped = text.strip()
        if not stripped or stripped in _ELLIPSES:
            open_.expects_code = False
            return True, []
        if text.startswith(CHAIN):
            done = self._finish()
            return True, [*done, *self._idle(text, line)[1]]
        frame = _FRAME.match(text) if 'File "' in text else None
        if frame is not None:
            self._add_frame(open_, frame, text)
            open_.line = line
            return True, []
        if not open_.frames and not _BARE.match(stripped):  # a raising source line alone: only its exception may follow
            done = self._finish()
            consumed, more = self._idle(text, line)
            return consumed, [*done, *more]
        indent = len(text) - len(text.lstrip())
        if indent > max(open_.indent, 0) or (indent and not open_.flat and indent > open_.indent):
            return self._code(open_, stripped), []
        raised = _RAISED.match(stripped)
        if raised and raised[1] not in _NO_EXCEPTION and not raised[1].isupper():
            open_.exception, open_.line = raised[1], line
            self._add_message(open_, raised[2] or "")
            return True, []
        if (behind := _BEHIND_CODE.match(stripped)) is not None:
            open_.exception, open_.line = behind[1], line
            self._add_message(open_, behind[2])
            return True, []
        if open_.expects_code and open_.flat:
            return self._code(open_, stripped), []
        if (raises := _RAISES.match(stripped)) is not None:  # an excerpt: the frames before it were cut out
            open_.raises, open_.line = (raises[1], raises[3]), line
            return True, []
        open_.foreign += 1
        return False, self._finish() if open_.foreign > _MAX_FOREIGN else []

    def _in_rich(self, open_: _Open, text: str, line: int) -> tuple[bool, list[Raised]]:
        inner = text.strip().strip("│").strip()
        if text.lstrip().startswith("╰"):
            open_.rich, open_.flat, open_.indent = False, False, 0
        elif (frame := _RICH_FRAME.match(inner)) and len(open_.frames) < _MAX_FRAMES:
            open_.frames.append(Frame(frame[1], int(frame[2]), frame[3].rstrip("│ ")))
            open_.line = line
        elif (code := _RICH_CODE.search(inner)) and open_.frames:
            open_.frames[-1] = msgspec.structs.replace(open_.frames[-1], code=code[1].strip())
        return True, []

    def _in_cells(self, open_: _Open, text: str, line: int) -> tuple[bool, list[Raised]]:
        frame = ipython.frame(text)
        marked = None if frame is not None else ipython.running(text)
        if frame is not None:
            if len(open_.frames) >= _MAX_FRAMES:
                del open_.frames[_MAX_FRAMES // 2]
            open_.frames.append(frame)
            open_.line = line
        elif marked is not None and open_.frames:
            open_.frames[-1] = msgspec.structs.replace(open_.frames[-1], line=marked[0], code=marked[1])
        elif marked is not None:
            open_.frames.append(Frame("", marked[0], "", marked[1]))
        elif (raised := _RAISED.match(text.rstrip())) and raised[1] not in _NO_EXCEPTION and not raised[1].isupper():
            open_.exception, open_.line = raised[1], line
            self._add_message(open_, raised[2] or "")
        elif not ipython.is_context_line(text):
            open_.foreign += 1
            return False, self._finish() if open_.foreign > _MAX_FOREIGN else []
        return True, []

    def _code(self, open_: _Open, stripped: str) -> bool:
        """Add the source line under a frame; its underlining is skipped. Other indented text is no part of the traceback."""
        if not open_.expects_code or not open_.frames:
            return _DECORATION.match(stripped) is not None
        open_.frames[-1] = msgspec.structs.replace(open_.frames[-1], code=stripped[:_MAX_CODE])
        open_.expects_code = False
        return True

    def _add_frame(self, open_: _Open, frame: re.Match[str], text: str) -> None:
        if text[:1].isspace():
            open_.flat = False
        if len(open_.frames) >= _MAX_FRAMES:
            del open_.frames[_MAX_FRAMES // 2]
        open_.frames.append(Frame(frame[1], int(frame[2]), frame[3] or ""))
        open_.expects_code = True

    def _in_message(self, open_: _Open, text: str, line: int) -> tuple[bool, list[Raised]]:
        if 'File "' in text and text[:1].isspace() and _FRAME.match(text):
            self._outer.append(open_)
            self._open = _Open(indent=len(text) - len(text.lstrip()) - 2, line=line)
            return self._in_frames(self._open, text, line)
        if text.strip() in _ELLIPSES:
            return True, self.close()
        fits = text.strip() and len(open_.message) < _MESSAGE_LINES and open_.size < _MESSAGE_SIZE
        if fits and not _FOREIGN.match(text):
            self._add_message(open_, text)
            return True, []
        done = self._finish()
        if self._open is not None:
            more_consumed, more = self._in_message(self._open, text, line)
            return more_consumed, done + more
        consumed, more = (True, []) if not text.strip() else self._idle(text, line)
        return consumed, done + more

    def _add_message(self, open_: _Open, text: str) -> None:
        open_.message.append(text.rstrip()[: _MESSAGE_SIZE - open_.size])
        open_.size += len(text)

    def _finish(self) -> list[Raised]:
        """Complete the innermost open traceback; an outer one that quoted it continues."""
        open_ = self._open
        self._open = self._outer.pop() if self._outer else None
        if open_ is None or not (open_.exception or open_.frames or open_.raises):
            return []
        if self._ignores:
            self._ignores = False
            return []
        if not open_.exception and (raises := open_.raises or _raised_by(open_.frames)) is not None:
            open_.exception, open_.message = raises[0], [raises[1]]
        chain, self._chain = self._chain, self._chain + 1
        return [Raised(open_.exception, "\n".join(open_.message).strip(), tuple(open_.frames), chain, open_.line)]


def _raised_by(frames: list[Frame]) -> tuple[str, str] | None:
    """Class and text that the innermost frame's source line raises."""
    found = _RAISES.match(frames[-1].code) if frames else None
    return (found[1], found[3]) if found else None
