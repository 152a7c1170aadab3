"""The lab: the real LLaMA-Factory on CPU, with faults put in on purpose. Run it with `make lab`; see README.md."""
