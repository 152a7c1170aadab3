"""The causes of raise sites, as reviewed by hand: rules/origin_causes.yaml."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache

import msgspec

from doctor.support.cache import load_yaml
from doctor.support.decoding import convert
from doctor.support.package_files import rules_folder


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cause for the places that fit every field that is given.

    `module` is a path inside the package and `function` a name with its class, both with `*`. `says`: parts of templates of which one is
    in the template; unknown text is written `{}`.
    """

    cause: str
    module: str = "*"
    function: str = "*"
    exception: str = ""
    says: tuple[str, ...] = ()

    def fits(self, module: str, function: str, exception: str, template: str) -> bool:
        """Whether the label is one for this place: `module` without its package, `template` as shown to users."""
        return (
            (not self.says or any(part in template for part in self.says))
            and self.exception in ("", exception)
            and fnmatchcase(module, self.module)
            and (self.function == "*" or fnmatchcase(function, self.function))
        )


@cache
def labels() -> dict[str, list[Label]]:
    """Labels by package, in the order of the file: the first that fits counts."""
    return convert(load_yaml(rules_folder() / "origin_causes.yaml"), dict[str, list[Label]])


def label_of(path: str, function: str, exception: str, template: str) -> Label | None:
    """The label of a place: `path` with its package (`transformers/trainer.py`), `template` empty where only the place is known."""
    package, _, module = path.partition("/")
    return next((label for label in labels().get(package, ()) if label.fits(module, function, exception, template)), None)
