"""The processor's name, for records of measurements."""

import platform
import re
from pathlib import Path


def processor_name() -> str:
    """Model, and where Linux says so family and model number."""
    cpus = Path('/proc/cpuinfo')
    text = cpus.read_text(encoding='utf-8') if cpus.is_file() else ''
    known = dict(re.findall(r'^(model name|cpu family|model)\s*: (.+)$', text, re.MULTILINE))
    if len(known) == 3:
        # Virtual machines report one model name for several generations of processors.
        return f'{known["model name"]}, family {known["cpu family"]}, model {known["model"]}'
    return platform.processor() or platform.machine()
