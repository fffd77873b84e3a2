"""Which backbone for this task? A ladder of ever dearer measurements, as far as the time given reaches."""

from .answer import Answer
from .ladder import ask
from .question import Question, read_question

__all__ = ['Answer', 'Question', 'ask', 'read_question']
