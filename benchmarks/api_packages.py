"""The packages whose public names the index of names holds, and their releases; where to read them from is in `origin_packages.py`."""

from __future__ import annotations

from origin_packages import Package

PACKAGES = (
    Package("llamafactory", "llamafactory", "0.7", patches=True),
    Package("transformers", "transformers", "4.24"),
    Package("trl", "trl", "0.4"),
    Package("peft", "peft", "0.3"),
    Package("accelerate", "accelerate", "0.18"),
    Package("datasets", "datasets", "2.10"),
    Package("huggingface_hub", "huggingface_hub", "0.14"),
    Package("tokenizers", "tokenizers", "0.13"),
    Package("liger_kernel", "liger_kernel", "0.2"),
    Package("qwen_vl_utils", "qwen_vl_utils", "0.0", patches=True),
    Package("torchvision", "torchvision", "0.15"),
    Package("pyarrow", "pyarrow", some="13.0.0 14.0.2 15.0.2 16.1.0 17.0.0 18.1.0 19.0.1 20.0.0 21.0.0 22.0.0 24.0.0 26.0.1"),
)
"""From the oldest releases that logs still show to the newest."""

NUMPY = ("1.23", "1.24", "1.25", "1.26", "2.0", "2.1", "2.2", "2.3", "2.4")
NUMPY_REMOVED = {
    "1.24": "bool int float complex object str",
    "2.0": (
        "cast source lookfor who fastCopyAndTranspose set_numeric_ops NINF PINF NZERO PZERO add_newdoc add_docstring "
        "add_newdoc_ufunc compat safe_eval float_ complex_ longfloat singlecomplex cfloat longcomplex clongfloat string_ "
        "unicode_ Inf Infinity NaN infty mat issubclass_ asfarray issubsctype maximum_sctype obj2sctype sctype2char sctypes "
        "set_string_function DataSource nbytes byte_bounds disp find_common_type round_ cumproduct product sometrue alltrue "
        "deprecate deprecate_with_doc recfromcsv recfromtxt geterrobj seterrobj"
    ),
}
"""numpy's top-level names come from C: those that a release removed are from the release notes of 1.24.0 and 2.0.0."""
