"""What a check found, and the list of everything that all checks found."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

ERROR, WARNING, NOTE = 'error', 'warning', 'note'
SEVERITIES = (ERROR, WARNING, NOTE)

# From these shares of lost objects on, what is trained or measured is another data set than the one given. Objects that
# a file describes wrongly all over (no area, no polygon) are a mistake of whoever wrote it; stray records are common.
LARGE_SHARE, LARGE_SHARE_OF_STRAYS = 0.05, 0.25


class DataError(ValueError):
    """The data of a config are missing, incomplete, or do not fit it: the results would be meaningless."""


@dataclass(frozen=True)
class Finding:
    """One answer of a check.

    Attributes:
        severity: 'error' (the result would be meaningless), 'warning' (part of the data is lost) or 'note'.
        code: Name of the kind of finding, which `--allow` takes.
        file: File or key of the config that it is about.
        message: What is the case.
        record: An example: the id of an annotation, the name of an image or label map.
        key: Key of the record or of the config.
        count: How many records are affected.
        total: Of how many.
        consequence: What MMDetection or MMSegmentation does with it.
        remedy: The line to write, or the command to run.
    """

    severity: str
    code: str
    file: str
    message: str
    record: str = ''
    key: str = ''
    count: int | None = None
    total: int | None = None
    consequence: str = ''
    remedy: str = ''

    @property
    def share(self) -> float | None:
        """Share of the records that are affected, from 0 to 1."""
        return self.count / self.total if self.count is not None and self.total else None

    def __str__(self) -> str:
        lines = [f'{self.severity.upper():7} [{self.code}] {self.file}: {self.message}']
        details = [f'{self.count} of {self.total} ({self.share:.1%})'] if self.share is not None else []
        details += [f'for example {self.record}'] if self.record else []
        details += [f'key {self.key}'] if self.key else []
        for text in (', '.join(details), self.consequence, f'Remedy: {self.remedy}' if self.remedy else ''):
            lines += [f'        {line}' for line in text.splitlines()]
        return '\n'.join(lines)


def loss_severity(count: int, total: int, large_share: float = LARGE_SHARE) -> str:
    """Severity of losing `count` of `total` records."""
    return ERROR if count >= large_share * total else WARNING


@dataclass
class Report:
    """All findings, errors first.

    Attributes:
        allowed: Codes that pass on purpose.
        hints: Lines for the end of the text: the expected layout, and where to point elsewhere.
    """

    findings: list[Finding] = field(default_factory=list)
    allowed: frozenset[str] = frozenset()
    hints: list[str] = field(default_factory=list)

    def add(self, findings: Iterable[Finding]) -> None:
        known = set(self.findings)
        self.findings += [finding for finding in dict.fromkeys(findings) if finding not in known]
        self.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))

    @property
    def errors(self) -> list[Finding]:
        """Errors that are not allowed."""
        return [f for f in self.findings if f.severity == ERROR and f.code not in self.allowed]

    def text(self, only: Sequence[str] = SEVERITIES) -> str:
        """The findings of some severities, one below the other."""
        shown = [
            f'{finding}\n        (allowed by --allow {finding.code})' if finding.code in self.allowed else str(finding)
            for finding in self.findings
            if finding.severity in only
        ]
        return '\n'.join([*shown, *self.hints])

    def summary(self) -> str:
        """How many findings of each severity there are."""
        counts = {severity: sum(f.severity == severity for f in self.findings) for severity in SEVERITIES}
        return ', '.join(f'{count} {severity}{"" if count == 1 else "s"}' for severity, count in counts.items())

    def raise_errors(self) -> None:
        """Raise a DataError with all findings, if there is an error that is not allowed."""
        if self.errors:
            codes = ' '.join(dict.fromkeys(finding.code for finding in self.errors))
            raise DataError(
                f'the data of this config are missing or incomplete, or do not fit it ({self.summary()}):\n'
                f'{self.text()}\nTo go on in spite of errors: --allow {codes}'
            )
