from .builder import (
    Prompt as Prompt,
    PromptBuilder as PromptBuilder,
    PromptTurn as PromptTurn,
)
from .config import PromptConfig as PromptConfig
from .templates import (
    PlainTemplate as PlainTemplate,
    Template as Template,
    TemplateName as TemplateName,
    make_template as make_template,
)
