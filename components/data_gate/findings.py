"""Finding: one fault of the data, in fields for the report and as a sentence for the user."""

from dataclasses import dataclass

_SHOWN_IDS = 3


@dataclass(frozen=True)
class Finding:
    """A fault of the data.

    severity: 'error' stops the run, 'warning' is only reported.
    kind: such as 'undecodable'.
    split: the split that has the fault; 'serving' if the serving folder does not fit the data.
    feature: the feature that has it; '' for the whole record.
    expected, found: in words.
    count: how many records have it.
    ids: the first ten of these records, in the order of their ids; empty when the fault is not one of single records.
    """

    severity: str
    kind: str
    split: str
    feature: str
    expected: str
    found: str
    count: int
    ids: tuple[str, ...] = ()

    def to_sentence(self) -> str:
        """Puts the finding into words, with at most three ids.

        For example: 'test, image: 5 of 90 records do not decode; expected PNG or JPEG (test_00001, test_00002,
        test_00007 and 2 more)'.
        """
        where = f'{self.split}, {self.feature}' if self.feature else self.split
        shown = self.ids[:_SHOWN_IDS]
        more = f' and {self.count - len(shown):,} more' if self.count > len(shown) else ''
        ids = f' ({", ".join(shown)}{more})' if shown else ''
        return f'{where}: {self.found}; expected {self.expected}{ids}'
